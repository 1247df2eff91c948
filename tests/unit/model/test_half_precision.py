import pytest
import torch
from torch.testing import assert_close

from fasterrcnn import presets
from fasterrcnn.model.roi_pooling import RoIPooling
from fasterrcnn.ops.roi_align import roi_align
from fasterrcnn.structures import ImageBatch, Target

ROIS = torch.tensor([[0.0, 301.3, 10.0, 517.2, 90.0]])


@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_roi_align__half_precision_moves_no_region(sampling_ratio):
    # The map counts its columns, in steps that bfloat16 holds: a moved region would show.
    features = torch.arange(128.0).expand(1, 8, 32, 128).contiguous(memory_format=torch.channels_last)
    options = {"output_size": 2, "spatial_scale": 0.25, "sampling_ratio": sampling_ratio, "aligned": True}
    exact = roi_align(features, ROIS, **options)
    half = roi_align(features.bfloat16(), ROIS, **options)
    assert half.dtype == torch.bfloat16
    assert_close(half.float(), exact, atol=0.5, rtol=0)  # half of bfloat16's step at 128


def test_roi_pool__half_precision():
    features = torch.arange(128.0).expand(1, 4, 32, 128).contiguous()
    pooling = RoIPooling(2, (4,), method="pool")
    assert_close(pooling([features.bfloat16()], ROIS).float(), pooling([features], ROIS), atol=0.5, rtol=0)


def test_roi_pooling__strides_that_skip_a_level():
    with pytest.raises(ValueError, match="strides double from level to level"):
        RoIPooling(7, (8, 32))


@pytest.mark.parametrize("preset", [pytest.param("resnet50-fpn", marks=pytest.mark.slow), "timm:test_efficientnet"])
def test_autocast__coordinates_scores_and_losses_stay_in_float32(shrink, lively, preset):
    network = lively(shrink(presets.get(preset, ["a", "b"])))
    batch = ImageBatch(torch.rand(1, 3, 320, 640), [(320, 640)])
    observed = {}
    with torch.autocast("cpu", torch.bfloat16):
        (detections,) = network(batch, observe=lambda step, **values: observed.update({step: values}))
        target = Target(torch.tensor([[301.3, 10.0, 517.2, 90.0]]), torch.tensor([1]))
        losses = network.losses(batch, [target], generator=torch.Generator().manual_seed(0))
    assert observed["head"]["logits"].dtype == torch.bfloat16  # the network itself was not in float32
    coordinates = [observed["candidates"]["boxes"], observed["pooled"]["rois"], observed["scored"]["boxes"]]
    numbers = [*coordinates, observed["scored"]["scores"], detections.boxes, detections.scores]
    assert {tensor.dtype for tensor in [*numbers, *(value for _, value in losses)]} == {torch.float32}
    for boxes in coordinates:
        assert len(boxes)
        assert not torch.equal(boxes, boxes.bfloat16().float())


def test_roi_align__gradient_in_bfloat16():
    # Every region reads the same cells: a sum in bfloat16 would stop to grow.
    features = torch.ones(1, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    rois = torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]]).repeat(3000, 1)
    options = {"output_size": 2, "spatial_scale": 1.0, "sampling_ratio": 2, "aligned": True}
    gradients = []
    for maps in (features, features.bfloat16()):
        maps.requires_grad_()
        roi_align(maps, rois, **options).sum().backward()
        gradients.append(maps.grad.float())
    assert_close(gradients[1], gradients[0], rtol=0.01, atol=0)
