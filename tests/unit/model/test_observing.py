import torch
from torch.testing import assert_close

from fasterrcnn.model.postprocess import PostProcess

STEPS = ["features", "rpn", "anchors", "candidates", "proposals", "pooled", "head", "scored", "detections"]


def watch(model, batch):
    logged = []
    with torch.no_grad():
        found = model(
            batch,
            postprocess=PostProcess(score_threshold=0.2),
            observe=lambda step, **values: logged.append((step, values)),
        )
    return found, logged


def test_observe__steps_in_order(tiny_model, batch_of):
    _, logged = watch(tiny_model, batch_of((64, 96)))
    assert [step for step, _ in logged] == STEPS


def test_observe__images_one_after_the_other(tiny_model, batch_of):
    _, logged = watch(tiny_model, batch_of((64, 96), (64, 96)))
    names = [step for step, _ in logged]
    assert names == [*STEPS[:5], "proposals", "pooled", "head", "scored", "scored", "detections", "detections"]


def test_observe__nothing_changes(tiny_model, batch_of):
    batch = batch_of((64, 96))
    found, _ = watch(tiny_model, batch)
    with torch.no_grad():
        expected = tiny_model(batch, postprocess=PostProcess(score_threshold=0.2))
    assert_close(found[0].boxes, expected[0].boxes, atol=0, rtol=0)
    assert_close(found[0].scores, expected[0].scores, atol=0, rtol=0)


def test_observe__values_fit_together(tiny_model, batch_of):
    (found,), logged = watch(tiny_model, batch_of((64, 96)))
    values = dict(logged)
    anchors, logits = torch.cat(values["anchors"]["anchors"]), torch.cat(values["rpn"]["logits"], dim=1)[0]
    index, first = values["candidates"]["index"][0], values["proposals"]
    assert len(anchors) == len(logits)
    assert_close(first["scores"], logits[index].sigmoid())
    kept = first["survivors"][: first["kept"]]
    assert_close(values["pooled"]["rois"][:, 1:], first["boxes"][kept])
    assert first["good"][kept].all()
    scored, detected = values["scored"], values["detections"]
    probabilities = values["head"]["logits"].softmax(dim=1)
    assert_close(scored["scores"], probabilities[scored["rows"], scored["labels"]])
    assert detected["detections"] is found
    assert_close(scored["boxes"][detected["kept"]], found.boxes)
