"""Every number of a preset that has torchvision's name is torchvision's number."""

import pytest
import torch
from torch import nn
from torchvision.models import detection

from fasterrcnn import presets
from fasterrcnn.model.backbones.norms import FrozenBatchNorm2d
from fasterrcnn.ops import boxes

BUILDERS = {
    "resnet50-fpn": detection.fasterrcnn_resnet50_fpn,
    "resnet50-fpn-v2": detection.fasterrcnn_resnet50_fpn_v2,
    "mobilenetv3-large-fpn": detection.fasterrcnn_mobilenet_v3_large_fpn,
    "mobilenetv3-large-320-fpn": detection.fasterrcnn_mobilenet_v3_large_320_fpn,
}


@pytest.fixture(scope="module", params=list(BUILDERS))
def preset(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def theirs(preset: str) -> nn.Module:
    with torch.device("meta"):
        return BUILDERS[preset](weights=None, weights_backbone=None)


def test_input(preset: str, theirs: nn.Module) -> None:
    ours, transform = presets.get(preset).input, theirs.transform
    assert ((ours.short_side,), ours.long_side) == (transform.min_size, transform.max_size)
    assert [list(ours.mean), list(ours.std)] == [transform.image_mean, transform.image_std]
    assert ours.size_divisor == transform.size_divisible
    assert not ours.antialias


def test_anchors(preset: str, theirs: nn.Module) -> None:
    ours, generator = presets.get(preset).anchors, theirs.rpn.anchor_generator
    assert ours.sizes == tuple(tuple(float(size) for size in level) for level in generator.sizes)
    assert ours.ratios == tuple(generator.aspect_ratios)
    assert ours.strides is None
    assert ours.rounded


def test_proposals(preset: str, theirs: nn.Module) -> None:
    ours, rpn = presets.get(preset).proposals, theirs.rpn
    assert {"testing": ours.candidates, "training": ours.training_candidates} == rpn._pre_nms_top_n
    assert {"testing": ours.proposals, "training": ours.training_proposals} == rpn._post_nms_top_n
    assert (ours.nms_threshold, ours.min_score) == (rpn.nms_thresh, rpn.score_thresh)


@pytest.mark.parametrize("stage", ["rpn", "regions"])
def test_assignment(preset: str, theirs: nn.Module, stage: str) -> None:
    ours = getattr(presets.get(preset), stage).assign
    part = theirs.rpn if stage == "rpn" else theirs.roi_heads
    matcher, sampler = part.proposal_matcher, part.fg_bg_sampler
    assert (ours.positive_iou, ours.negative_iou) == (matcher.high_threshold, matcher.low_threshold)
    assert (ours.count, ours.positive_fraction) == (sampler.batch_size_per_image, sampler.positive_fraction)


def test_regions(preset: str, theirs: nn.Module) -> None:
    ours, heads = presets.get(preset).regions, theirs.roi_heads
    pooler = heads.box_roi_pool
    assert ((ours.output_size,) * 2, ours.sampling_ratio) == (pooler.output_size, pooler.sampling_ratio)
    assert not ours.aligned
    assert ours.delta_weights == heads.box_coder.weights
    assert heads.box_coder.bbox_xform_clip == boxes.MAX_LOG_SCALE
    assert (ours.beta, ours.box_loss) == (1 / 9, "smooth_l1")  # written in fastrcnn_loss


def test_postprocess(preset: str, theirs: nn.Module) -> None:
    ours, heads = presets.get(preset).postprocess, theirs.roi_heads
    assert (ours.score_threshold, ours.nms_threshold) == (heads.score_thresh, heads.nms_thresh)
    assert ours.max_detections == heads.detections_per_img
    assert ours.nms == "class"


def test_norm_eps(preset: str, theirs: nn.Module) -> None:
    expected = {layer.eps for layer in theirs.modules() if isinstance(layer, nn.BatchNorm2d)}
    assert {presets.get(preset).backbone.norm_eps} == expected
    assert FrozenBatchNorm2d(1).eps == detection.backbone_utils.misc_nn_ops.FrozenBatchNorm2d(1).eps
