import pytest
import torch

from fasterrcnn import presets
from fasterrcnn.acceleration import accelerate
from fasterrcnn.inference.runtimes.eager import ConvolutionHead, multiply, torch_stages
from fasterrcnn.inference.runtimes.parts import HeadPart


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rows", [0, 1, 15, 16, 37, 100])
def test_multiply__is_the_product(rows, threads, request):
    before = torch.get_num_threads()
    request.addfinalizer(lambda: torch.set_num_threads(before))
    torch.set_num_threads(threads)
    x, weight, bias = torch.randn(rows, 24), torch.randn(10, 24), torch.randn(10)
    torch.testing.assert_close(multiply(x, weight, bias), torch.nn.functional.linear(x, weight, bias))


HEAVY = [pytest.param(name, marks=pytest.mark.slow) for name in ("resnet50-fpn-v2", "resnet50-c4")]


@pytest.mark.parametrize("preset", ["resnet50-fpn", "resnet50-c5", *HEAVY])
def test_runtime__is_the_model(preset, shrink, lively, batch_of):
    model = lively(shrink(presets.get(preset, ["a", "b", "c"])))
    model = accelerate(model, for_="inference").requires_grad_(False)
    batch = batch_of((64, 64), (64, 96), (33, 64))
    with torch.inference_mode():
        found = model(batch, stages=torch_stages(model))
        expected = model(batch)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.labels, theirs.labels)
        torch.testing.assert_close(ours.boxes, theirs.boxes, rtol=0, atol=1e-2)
        torch.testing.assert_close(ours.scores, theirs.scores, rtol=0, atol=1e-4)


def test_head__keeps_the_weights_of_the_model(tiny_model):
    head = ConvolutionHead(HeadPart(tiny_model))
    assert head.class_logits.weight is tiny_model.box_head.class_logits.weight
