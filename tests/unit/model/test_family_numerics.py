"""What families compute otherwise, each rule on a case by hand where it makes the difference."""

import math

import pytest
import torch
from torch.testing import assert_close

from fasterrcnn.model.backbones.resnet import Shape
from fasterrcnn.model.postprocess import PostProcess
from fasterrcnn.model.proposals import ProposalGenerator
from fasterrcnn.model.roi_pooling import RoIPooling

ANCHORS = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60], [20, 20, 30, 20], [80, 0, 90, 10]])


def propose(logits, **options):
    generator = ProposalGenerator(candidates=10, proposals=2, **options)
    levels = [torch.tensor([row]) for row in logits]
    anchors = list(ANCHORS.split([len(row) for row in logits]))
    deltas = [torch.zeros(1, len(row), 4) for row in logits]
    (found,) = generator(levels, deltas, anchors, [(100, 100)])
    return found


def test_proposals__logits_rank_candidates_of_equal_score():
    logits = [[20.0, 30.0], [0.0, 40.0]]
    assert float(torch.tensor(20.0).sigmoid()) == 1.0
    assert_close(propose(logits, ranked_by="score").boxes, ANCHORS[[0, 1]].flip(0))  # best of the first level first
    assert_close(propose(logits, ranked_by="logit").boxes, ANCHORS[[3, 1]])
    assert_close(propose(logits, ranked_by="logit").scores, torch.ones(2))


def test_proposals__smallest_side():
    logits = [[1.0, 2.0], [3.0, 0.0]]  # the third anchor has no height
    assert_close(propose(logits, min_side=0.0).boxes, ANCHORS[[1, 0]])
    assert len(propose(logits, min_side=11.0).boxes) == 0


def detect(min_side: float):
    """Three regions of one class; the best has been clipped to nothing, the second is thin."""
    regions = torch.tensor([[200.0, 10, 220, 30], [10, 10, 10.005, 30], [40, 40, 60, 60]])
    logits = torch.tensor([[4.0, 0.0], [3.0, 0.0], [2.0, 0.0]])
    rules = PostProcess(min_side=min_side, max_detections=2)
    return rules([logits], [torch.zeros(3, 1, 4)], [regions], [(100, 100)], (10.0, 10.0, 5.0, 5.0))[0]


def test_postprocess__boxes_without_area_count_among_the_best_before_they_go():
    assert_close(detect(0.0).boxes, torch.tensor([[10.0, 10, 10.005, 30]]))
    assert_close(detect(0.01).boxes, torch.tensor([[40.0, 40, 60, 60]]))


@pytest.mark.parametrize(
    ("rule", "side", "level"),
    [
        # A hair below 112, between the first two maps: only a small number outside the logarithm lifts it.
        ("torchvision", 112 * (1 - 3e-7), 1),
        ("detectron2", 112 * (1 - 3e-7), 0),
        ("mmdetection", 112 * (1 - 3e-7), 1),
        # Further below: 1e-6 outside is too little, 1e-6 of 56 pixels inside, too.
        ("torchvision", 112 * (1 - 2e-6), 0),
        ("mmdetection", 112 * (1 - 2e-6), 0),
        *((rule, 112.001, 1) for rule in ("torchvision", "detectron2", "mmdetection")),
        *((rule, 1e-3, 0) for rule in ("torchvision", "detectron2", "mmdetection")),
        *((rule, 2000.0, 3) for rule in ("torchvision", "detectron2", "mmdetection")),
        *((rule, 300.0, 2) for rule in ("torchvision", "detectron2", "mmdetection")),
        *((rule, 0.0, 0) for rule in ("torchvision", "detectron2", "mmdetection")),
    ],
)
def test_levels(rule, side, level):
    pooling = RoIPooling(7, (4, 8, 16, 32), levels_of=rule)
    assert pooling.levels(torch.tensor([[0.0, 0, 0, side, side]])).tolist() == [level]


def test_levels__no_regions():
    assert RoIPooling(7, (4, 8, 16, 32), levels_of="detectron2").levels(torch.zeros(0, 5)).shape == (0,)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("resnet50", Shape(50)),
        ("resnet152", Shape(152)),
        ("resnext101-32x8d", Shape(101, 32, 8)),
        ("resnet51", None),
        ("resnext101", None),
        ("resnet", None),
        ("mobilenetv3-large", None),
    ],
)
def test_shape__by_name(name, shape):
    assert Shape.of(name) == shape
    assert shape is None or str(shape) == name


def test_levels__rules_agree_but_near_borders():
    sides = torch.linspace(1, 1000, 997)
    sides = sides[(torch.log2(sides / 224) - torch.log2(sides / 224).round()).abs() > 1e-4]
    rois = torch.stack([torch.zeros(len(sides))] * 3 + [sides] * 2, dim=1)
    found = [RoIPooling(7, (4, 8, 16, 32), levels_of=rule).levels(rois) for rule in ("torchvision", "detectron2")]
    assert torch.equal(*found)
    expected = [min(3, max(0, math.floor(4 + math.log2(float(side) / 224)) - 2)) for side in sides]
    assert found[0].tolist() == expected
