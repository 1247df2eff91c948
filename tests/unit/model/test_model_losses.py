import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from fasterrcnn.model.losses import RegionLoss, RPNLoss
from fasterrcnn.model.targets import Assigner, RegionSample
from fasterrcnn.structures import Target, no_boxes

RPN = RPNLoss(Assigner(0.7, 0.3, 16, 0.5, best_for_each=True), beta=1.0)
REGIONS = Assigner(0.5, 0.5, 16, 0.25)
ANCHORS = torch.tensor([[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]])
OBJECT = Target(ANCHORS[:1], torch.tensor([0]))
EMPTY = Target(no_boxes(), torch.zeros(0, dtype=torch.int64))


def test_rpn_loss__by_hand():
    deltas = torch.zeros(1, 2, 4)
    deltas[0, 0] = torch.tensor([1.0, 0.0, 3.0, 0.0])  # 1/2 and 3 - 1/2; the target is 0
    deltas[0, 1] = 100.0  # a negative's box does not matter
    objectness, boxes, drawn = RPN(torch.tensor([[0.0, math.log(3)]]), deltas, ANCHORS, [OBJECT])
    assert_close(objectness, torch.tensor((math.log(2) + math.log(4)) / 2))
    assert_close(boxes, torch.tensor(3.0 / 2))
    assert drawn == 2


def test_rpn_loss__mean_over_all_drawn_anchors_of_the_batch():
    logits = torch.zeros(2, 2)
    deltas = torch.ones(2, 2, 4)
    objectness, boxes, drawn = RPN(logits, deltas, ANCHORS, [OBJECT, EMPTY])
    assert_close(objectness, torch.tensor(math.log(2)))
    assert_close(boxes, torch.tensor(4 * 0.5 / 4))
    assert drawn == 4


def test_rpn_loss__without_objects_there_is_a_gradient():
    logits = torch.zeros(1, 2, requires_grad=True)
    deltas = torch.zeros(1, 2, 4, requires_grad=True)
    objectness, boxes, drawn = RPN(logits, deltas, ANCHORS, [EMPTY])
    (objectness + boxes).backward()
    assert_close(boxes, torch.tensor(0.0))
    assert_close(logits.grad, torch.full((1, 2), 0.25))
    assert_close(deltas.grad, torch.zeros(1, 2, 4))
    assert drawn == 2


def test_rpn_loss__everything_ignored():
    crowd = Target(no_boxes(), torch.zeros(0, dtype=torch.int64), torch.tensor([[0.0, 0.0, 100.0, 100.0]]))
    objectness, boxes, drawn = RPN(torch.ones(1, 2), torch.ones(1, 2, 4), ANCHORS, [crowd])
    assert_close(objectness, torch.tensor(0.0))
    assert_close(boxes, torch.tensor(0.0))
    assert drawn == 0


def test_rpn_loss__every_image_has_its_own_draws():
    """One of two anchors is drawn of each image; its logit shows which."""
    loss = RPNLoss(Assigner(0.7, 0.3, 1, 0.5, best_for_each=True))
    logits, nothing = torch.tensor([[0.0, 9.0]]), torch.zeros(1, 2, 4)

    def drawn(*seeds):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        several = logits.expand(len(seeds), 2), nothing.expand(len(seeds), 2, 4)
        return loss(*several, ANCHORS, [EMPTY] * len(seeds), generators)[0]

    alone = {seed: drawn(seed) for seed in range(8)}
    assert len({float(value) for value in alone.values()}) == 2
    for first in range(7):
        assert_close(drawn(first, first + 1), (alone[first] + alone[first + 1]) / 2)


def two_regions() -> RegionSample:
    """A region of class 1, one unit of delta x left of its object, and background (K = 2)."""
    regions = torch.tensor([[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]])
    targets = torch.tensor([[10.0, 0.0, 20.0, 10.0], [50.0, 50.0, 60.0, 60.0]])
    return RegionSample(regions, torch.tensor([1, 2]), targets)


def deltas_of_class_1(dx: float) -> torch.Tensor:
    deltas = torch.full((2, 2, 4), 9.0)  # other classes and background: whatever
    deltas[0, 1] = torch.tensor([dx, 0.0, 0.0, 0.0])
    return deltas


def test_region_loss__by_hand():
    loss = RegionLoss(REGIONS, beta=1.0)
    classes, boxes, weight = loss(torch.zeros(2, 3), deltas_of_class_1(10.0), two_regions())
    assert_close(classes, torch.tensor(math.log(3)))
    assert weight == 2
    assert_close(boxes, torch.tensor(0.0))  # the weight of dx is 10
    _, boxes, _ = loss(torch.zeros(2, 3), deltas_of_class_1(7.0), two_regions())
    assert_close(boxes, torch.tensor((3 - 0.5) / 2))


@pytest.mark.parametrize(
    ("kind", "dx", "expected"),
    [("l1", 7.0, 3 / 2), ("l1", 10.0, 0.0), ("giou", 10.0, 0.0), ("giou", 0.0, 1 / 2), ("giou", 5.0, (1 - 1 / 3) / 2)],
)
def test_region_loss__kinds_of_box_loss(kind, dx, expected):
    # giou: the decoded box beside its object has GIoU 0, the one half a width off has 1/3.
    _, boxes, _ = RegionLoss(REGIONS, box_loss=kind)(torch.zeros(2, 3), deltas_of_class_1(dx), two_regions())
    assert_close(boxes, torch.tensor(expected))


def test_region_loss__class_options_arrive():
    logits = torch.tensor([[1.0, 0.0, -1.0], [0.0, 2.0, 0.5]])
    loss = RegionLoss(REGIONS, class_weights=(1.0, 5.0, 0.5), label_smoothing=0.1)
    classes, _, weight = loss(logits, torch.zeros(2, 2, 4), two_regions())
    weights = torch.tensor([1.0, 5.0, 0.5])
    assert_close(classes, F.cross_entropy(logits, torch.tensor([1, 2]), weight=weights, label_smoothing=0.1))
    assert weight == 5.5
    p = logits.softmax(1)[[0, 1], [1, 2]]
    classes, _, weight = RegionLoss(REGIONS, focal_gamma=2.0)(logits, torch.zeros(2, 2, 4), two_regions())
    assert_close(classes, (-((1 - p) ** 2) * p.log()).mean())
    assert weight == 2


@pytest.mark.parametrize("kind", ["smooth_l1", "l1", "giou"])
def test_region_loss__no_regions(kind):
    nothing = RegionSample(no_boxes(), torch.zeros(0, dtype=torch.int64), no_boxes())
    logits = torch.zeros(0, 3, requires_grad=True)
    deltas = torch.zeros(0, 2, 4, requires_grad=True)
    classes, boxes, weight = RegionLoss(REGIONS, box_loss=kind)(logits, deltas, nothing)
    assert_close(classes + boxes, torch.tensor(0.0))
    assert weight == 0
    (classes + boxes).backward()
