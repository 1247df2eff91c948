import pytest
import torch

from fasterrcnn import presets
from fasterrcnn.acceleration import accelerate, fused_convs
from fasterrcnn.acceleration.fused_convs import fusion_works
from fasterrcnn.acceleration.onednn_layers import FusedConv
from fasterrcnn.inference.runtimes.half import half_stages
from fasterrcnn.model.stages import Stages

SHARE = 0.06
"""Largest error of features, logits and deltas as a share of their size (root mean square)."""

PRESETS = [
    "mobilenetv3-large-320-fpn",
    "efficientnet-lite0-fpn",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in (
            "resnet50-fpn",
            "resnet50-fpn-v2",
            "resnet50-c4",
            "resnet50-c5",
            "resnet50-dc5",
            "mobilenetv3-large-fpn",
        )
    ),
]


@pytest.fixture(autouse=True)
def inference():
    with torch.inference_mode():
        yield


def assert_near(ours, expected):
    size = float(expected.square().mean().sqrt())
    assert float((ours.float() - expected).square().mean().sqrt()) <= SHARE * size


def outputs(stages, pixels, pooled):
    dense = stages.dense(pixels)
    return [*dense.features, *dense.logits, *dense.deltas, *stages.head(pooled)]


def prepared(preset, shrink, lively):
    return accelerate(lively(shrink(presets.get(preset, ["a", "b", "c"]))), for_="inference").requires_grad_(False)


def pooled_of(model):
    side, channels = model.roi_pooling.output_size, model.backbone.channels
    values = torch.rand(9, channels, side, side, generator=torch.Generator().manual_seed(0))
    return values.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("preset", PRESETS)
def test_half_stages__near_float32(preset, shrink, lively, batch_of):
    model, pixels = prepared(preset, shrink, lively), batch_of((64, 96), (64, 96)).pixels
    half = half_stages(model, torch.bfloat16)
    assert isinstance(half, Stages)
    for ours, expected in zip(
        outputs(half, pixels, pooled_of(model)), outputs(model, pixels, pooled_of(model)), strict=True
    ):
        assert ours.shape == expected.shape
        assert_near(ours, expected)


def test_half_stages__without_fused_layers(shrink, lively, batch_of, monkeypatch):
    monkeypatch.setattr(fused_convs, "fusion_works", lambda _: False)
    model, pixels = prepared("efficientnet-lite0-fpn", shrink, lively), batch_of((64, 96)).pixels
    half = half_stages(model, torch.bfloat16)
    assert not any(isinstance(layer, FusedConv) for layer in half._model.modules())
    for ours, expected in zip(
        outputs(half, pixels, pooled_of(model)), outputs(model, pixels, pooled_of(model)), strict=True
    ):
        assert_near(ours, expected)


def test_half_stages__what_decides_on_boxes_leaves_in_float32(tiny_model, batch_of):
    model = accelerate(tiny_model, for_="inference").requires_grad_(False)
    half = half_stages(model, torch.bfloat16)
    dense, head = half.dense(batch_of((64, 96)).pixels), half.head(pooled_of(model))
    assert {value.dtype for value in (*dense.logits, *dense.deltas, *head)} == {torch.float32}
    assert {level.dtype for level in dense.features} == {torch.bfloat16}


def test_half_stages__the_model_stays_in_float32(tiny_model):
    model = accelerate(tiny_model, for_="inference")
    half_stages(model, torch.bfloat16)
    assert {value.dtype for value in model.parameters()} == {torch.float32}


def test_half_stages__body_that_cannot_be_followed(tiny_model, batch_of):
    class Deciding(torch.nn.Module):
        def __init__(self, body):
            super().__init__()
            self.body = body

        def forward(self, pixels):
            return self.body(pixels) if float(pixels.sum()) > 0 else self.body(0 * pixels)

    model = accelerate(tiny_model, for_="inference").requires_grad_(False)
    model.backbone.body = Deciding(model.backbone.body)
    pixels = batch_of((64, 96)).pixels
    ours, expected = half_stages(model, torch.bfloat16).dense(pixels), model.dense(pixels)
    for value, wanted in zip(ours.features, expected.features, strict=True):
        assert_near(value, wanted)


@pytest.mark.skipif(not fusion_works(torch.bfloat16), reason="no bfloat16 in oneDNN here")
def test_half_stages__whole_detections(shrink, lively, batch_of):
    model, batch = prepared("efficientnet-lite0-fpn", shrink, lively), batch_of((64, 96), (64, 64))
    for ours, expected in zip(model(batch, stages=half_stages(model, torch.bfloat16)), model(batch), strict=True):
        assert ours.boxes.dtype == ours.scores.dtype == torch.float32
        assert abs(len(ours.boxes) - len(expected.boxes)) <= 0.2 * len(expected.boxes) + 1
