import dataclasses

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from fasterrcnn import presets
from fasterrcnn.errors import ImageError, UsageError
from fasterrcnn.explanation.trace import STEPS, trace_image
from fasterrcnn.inference.detector import Detector
from fasterrcnn.ops import boxes
from fasterrcnn.ops.boxes import at_least

HEAVY = {"resnet50-fpn-v2", "resnet50-c4", "resnet50-dc5", "mobilenetv3-large-fpn"}
"""Presets whose parts the others have too."""

ARCHITECTURES = [pytest.param(n, marks=pytest.mark.slow) if n in HEAVY else n for n in presets.names()]
ARCHITECTURES += ["timm:test_efficientnet"]


class Counts:
    """What goes in and out of the stages and of the very functions that the components call."""

    def __init__(self, monkeypatch, detector):
        self.seen = {}
        for module, kind, name in (
            (boxes, "best_of_each", "proposals"),
            (boxes, "nms", "detections"),
            (boxes, "soft_nms", "detections"),
        ):
            monkeypatch.setattr(module, kind, self.around(getattr(module, kind), name))
        self.compute = {name: getattr(detector.stages, name) for name in ("dense", "head")}
        for name in self.compute:
            monkeypatch.setattr(detector.stages, name, getattr(self, name))

    def dense(self, pixels):
        outputs = self.compute["dense"](pixels)
        self.seen["anchors"] = sum(level.shape[1] for level in outputs.logits)
        return outputs

    def head(self, pooled):
        logits, deltas = self.compute["head"](pooled)
        self.seen["proposals"] = len(logits)
        return logits, deltas

    def around(self, nms, name):
        def counted(boxes, *others, **options):
            result = nms(boxes, *others, **options)
            # Hard NMS of one image gives indices, that of several images a list of these, soft NMS scores as well.
            keep = result[0] if isinstance(result, tuple | list) else result
            # The last tensor of each image marks which of its boxes are usable.
            self.seen[f"{name} nms"] = int(boxes[0][-1].sum()) if isinstance(boxes, list) else len(boxes), len(keep)
            return result

        return counted


def detect(detector, image, score):
    """The detections without an observer, with the same runtime: another one may round otherwise."""
    selection = dataclasses.replace(detector.model.postprocess, score_threshold=score)
    batch = detector.to_batch([torch.from_numpy(np.array(image)).permute(2, 0, 1)])
    with torch.no_grad():
        (detections,) = detector.model(batch, postprocess=selection, stages=detector.stages)
    return detections


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_trace_image__funnel_of_every_architecture_is_what_the_model_did(name, shrink, lively, photo, monkeypatch):
    config = shrink(presets.get(name, ("cat", "dog", "owl")))
    detector = Detector(lively(config), config, device="cpu")
    counts = Counts(monkeypatch, detector)
    trace = trace_image(detector, photo((64, 90)), score=0.2)
    funnel, seen = list(trace.funnel.values()), counts.seen
    levels = [min(len(level), config.proposals.candidates) for level in trace.logits]
    assert funnel == [
        seen["anchors"],
        sum(levels),
        seen["proposals nms"][0],
        seen["proposals nms"][1],
        seen["proposals"],
        3 * seen["proposals"],
        seen["detections nms"][0],
        len(detect(detector, photo((64, 90)), score=0.2).boxes),
    ]
    assert funnel[0] > 0
    assert funnel[-1] > 0
    assert len(trace.pooled) == len(trace.shown) > 0
    assert list(trace.seconds) == [step for step in STEPS if step != "dense"]
    assert min(trace.seconds.values()) > 0


def test_trace_image__detections_are_those_of_predict(tiny_detector, photo):
    image = photo((80, 60), 3)
    detections = trace_image(tiny_detector, image, score=0.2).detections
    expected = tiny_detector.predict(image, score=0.2)
    assert len(detections) > 3
    np.testing.assert_allclose(detections.boxes, expected.boxes, atol=1e-3)
    np.testing.assert_allclose(detections.scores, expected.scores, atol=1e-5)


def test_trace_image__hooks_are_gone_afterwards(tiny_detector, photo):
    trace_image(tiny_detector, photo((64, 64)))
    assert not tiny_detector.stages.backbone.body._forward_hooks
    assert not tiny_detector.stages.backbone._forward_hooks


@pytest.mark.parametrize("runtime", ["openvino", pytest.param("onnxruntime", marks=pytest.mark.slow)])
def test_trace_image__of_a_runtime_that_shows_no_body(runtime, tiny_config, tiny_model, tiny_detector, photo):
    pytest.importorskip(runtime)
    detector = Detector(tiny_model, tiny_config, device="cpu", runtime=runtime)
    trace, expected = (trace_image(each, photo((64, 96)), score=0.2) for each in (detector, tiny_detector))
    assert (trace.runtime, trace.body_maps) == (runtime, [])
    assert list(trace.seconds) == [step for step in STEPS if step not in ("body", "features", "rpn")]
    assert trace.grids_hw == expected.grids_hw
    assert trace.strides == expected.strides
    for maps, others in zip(trace.maps, expected.maps, strict=False):
        assert_close(maps, others, atol=1e-2, rtol=1e-2)
    again = [maps.clone() for maps in trace.maps]
    detector.predict(photo((64, 96), 1))
    assert all(torch.equal(maps, before) for maps, before in zip(trace.maps, again, strict=True))


def test_trace_image__candidates_belong_to_their_levels(tiny_detector, photo):
    trace = trace_image(tiny_detector, photo((64, 96)), score=0.2)
    anchors = torch.cat(trace.anchors)
    starts = [0, *np.cumsum([len(level) for level in trace.anchors])]
    for level, index in zip(trace.candidate_levels.tolist(), trace.candidate_index.tolist(), strict=True):
        assert starts[level] <= index < starts[level + 1]
    assert len(anchors) == starts[-1]
    assert at_least(trace.candidates[trace.good], 1e-3).all()
    assert_close(trace.probabilities.sum(dim=1), torch.ones(len(trace.proposals)))


def test_trace_image__shows_the_regions_of_detections_first(tiny_detector, photo):
    trace = trace_image(tiny_detector, photo((64, 96)), score=0.2)
    behind = list(dict.fromkeys(trace.scored_rows[trace.kept].tolist()))
    assert trace.shown.tolist()[: len(behind)] == behind[:8]
    assert len(set(trace.shown.tolist())) == len(trace.shown)


def test_trace_image__shows_regions_of_different_objects(plant, image):
    near, far = (36.0, 32.0, 68.0, 64.0), (80.0, 80.0, 112.0, 112.0)  # IoU of near with the first: 28 / 36
    candidates = [(3, 3, 0.9, (32.0, 32.0, 64.0, 64.0)), (3, 4, 0.8, near), (6, 6, 0.7, far)]
    detector = plant(candidates, [(box, 0.1, 0.1) for *_, box in candidates], nms_threshold=0.9)
    trace = trace_image(detector, image)
    assert len(trace.proposals) == 3
    assert trace.shown.tolist() == [0, 2]


@pytest.mark.parametrize("source", ["file", "array", "tensor", "floats"])
def test_trace_image__kinds_of_images(source, tiny_detector, photo, tmp_path):
    image = photo((64, 96))
    image.save(tmp_path / "p.png")
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    kinds = {"file": tmp_path / "p.png", "array": np.array(image), "tensor": tensor, "floats": tensor / 255}
    trace = trace_image(tiny_detector, kinds[source], score=0.2)
    assert np.array_equal(trace.image, image)
    assert trace.source == (tmp_path / "p.png" if source == "file" else None)


def test_trace_image__refuses(tiny_detector, photo, tmp_path):
    with pytest.raises(ImageError, match=r"none\.png"):
        trace_image(tiny_detector, tmp_path / "none.png")
    with pytest.raises(UsageError, match="score_threshold must lie in"):
        trace_image(tiny_detector, photo((64, 64)), score=2.0)


def test_strides__are_those_of_the_generator(shrink, lively, photo, tiny_detector):
    assert trace_image(tiny_detector, photo((64, 96))).strides == [8, 16, 32, 64]
    config = shrink(presets.get("mobilenetv3-large-320-fpn", ("cat",)))
    trace = trace_image(Detector(lively(config), config, device="cpu"), photo((64, 96)))
    columns = [maps.shape[-1] for maps in trace.maps]
    per_cell = trace.model.anchors.per_cell
    for level, stride in enumerate(trace.strides):
        rows = trace.anchors[level][:: columns[level] * per_cell, 1]  # the first anchor of each row of cells
        assert set((rows[1:] - rows[:-1]).tolist()) <= {float(stride)}
