import pickle

import pytest
import torch
from torch import fx, nn

from fasterrcnn import presets
from fasterrcnn.acceleration import accelerate, winograd
from fasterrcnn.acceleration.flat_graphs import flatten, trace
from fasterrcnn.acceleration.winograd import WinogradConv, with_winograd
from fasterrcnn.inference.detector import Detector

HEAVY = ("resnet50-fpn", "resnet50-fpn-v2", "resnet50-c5", "resnet50-dc5")
"""Presets whose parts the others have too."""
PRESETS = [
    "resnet50-c4",
    "mobilenetv3-large-320-fpn",
    *(pytest.param(name, marks=pytest.mark.slow) for name in HEAVY),
]


@pytest.fixture(scope="module", params=PRESETS)
def model(request, shrink, lively):
    whole = lively(shrink(presets.get(request.param, ["a", "b", "c"])))
    return accelerate(whole, for_="inference").requires_grad_(False)


def test_flatten__computes_what_the_model_does(model, batch_of):
    flat = flatten(model)
    pixels = batch_of((64, 96)).pixels
    side, channels = model.roi_pooling.output_size, model.backbone.channels
    pooled = torch.rand(20, channels, side, side).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        ours, expected = flat.dense(pixels), model.dense(pixels)
        for name in ("features", "logits", "deltas"):
            assert all(map(torch.equal, getattr(ours, name), getattr(expected, name)))
        assert ours.sizes_hw == expected.sizes_hw
        for ours_of, of_model in zip(flat.head(pooled), model.head(pooled), strict=True):
            largest = float(of_model.abs().max())
            torch.testing.assert_close(ours_of / largest, of_model / largest, rtol=0, atol=1e-5)


def test_flatten__one_graph_of_layers(model):
    flat = flatten(model)
    for part in (flat.backbone.body, flat.backbone.neck, flat.rpn):
        assert isinstance(part, fx.GraphModule)
        called = [part.get_submodule(str(node.target)) for node in part.graph.nodes if node.op == "call_module"]
        assert not any(list(layer.children()) for layer in called)


def test_trace__stays_in_place():
    class InPlace(nn.Module):
        def forward(self, x):
            y = x.clone()
            y += x
            y *= x
            return y

    assert "iadd" in str(trace(InPlace()))
    assert "imul" in str(trace(InPlace()))


def test_flatten__shares_the_weights_and_leaves_the_model_alone(tiny_model):
    model = accelerate(tiny_model, for_="inference")
    flat = flatten(model)
    assert flat.rpn.part.objectness.weight is model.rpn.objectness.weight
    assert not isinstance(model.backbone.body, fx.GraphModule)
    assert flat.box_head._class_logits[0] is model.box_head.class_logits.weight


def test_flatten__body_that_decides_by_values_stays(tiny_model, batch_of):
    class Deciding(nn.Module):
        def __init__(self, body):
            super().__init__()
            self.body = body

        def forward(self, pixels):
            return self.body(pixels) if float(pixels.sum()) > 0 else self.body(0 * pixels)

    model = accelerate(tiny_model, for_="inference")
    model.backbone.body = Deciding(model.backbone.body)
    assert trace(model.backbone.body) is None
    flat = flatten(model)
    assert type(flat.backbone.body) is Deciding
    batch = batch_of((64, 64))
    assert torch.equal(model(batch, stages=flat)[0].labels, model(batch)[0].labels)


def test_with_winograd__exchanges_the_layers_of_a_copy(tiny_model, monkeypatch):
    model = accelerate(tiny_model, for_="inference")
    monkeypatch.setattr(winograd, "suits", lambda layer: isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3))
    monkeypatch.setattr(winograd, "transform_weight", lambda weight: weight)  # needs no compiler
    fast = with_winograd(model)
    assert any(isinstance(module, WinogradConv) for module in fast.modules())
    assert not any(isinstance(module, WinogradConv) for module in model.modules())


def test_detector__is_sent_to_another_process_without_its_graphs(tiny_model, tiny_config, photo):
    detector = Detector(tiny_model, tiny_config, device="cpu")
    again = pickle.loads(pickle.dumps(detector))
    assert again.predict(photo((50, 70))) == detector.predict(photo((50, 70)))
