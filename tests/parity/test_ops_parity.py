"""Anchors, box coding, matching, sampling, overlaps and losses give torchvision's numbers."""

import pytest
import torch
import torchvision
from torch import Tensor
from torchvision.models.detection import _utils as tv
from torchvision.models.detection import anchor_utils
from torchvision.models.detection.image_list import ImageList

from fasterrcnn.model.anchors import AnchorGenerator
from fasterrcnn.ops import boxes, losses
from fasterrcnn.ops.matching import IGNORED, NEGATIVE, match, sample_balanced

OCTAVES = (32.0, 64.0, 128.0, 256.0, 512.0)
RATIOS = (0.5, 1.0, 2.0)
RCNN_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def random_boxes(count: int, seed: int, *, side: float = 300.0, whole: bool = False) -> Tensor:
    """(count, 4) xyxy boxes within 0..2*side, with sides from 1 pixel on; on whole pixels they tie often."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * side
    size = 1 + torch.rand(count, 2, generator=generator) * (side - 1)
    if whole:
        corner, size = corner.round(), size.round()
    return torch.cat([corner, corner + size], dim=1)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def halved_often(padded_hw: tuple[int, int], levels: int) -> list[tuple[int, int]]:
    """Map sizes of a pyramid from stride 4 on, each half of the one before, rounded up as convolutions do."""
    sizes = [(padded_hw[0] // 4, padded_hw[1] // 4)]
    while len(sizes) < levels:
        sizes.append(tuple(-(-side // 2) for side in sizes[-1]))
    return sizes


# ---- anchors


@pytest.mark.parametrize(
    ("padded_hw", "map_sizes_hw"),
    [
        ((256, 256), halved_often((256, 256), 5)),
        ((800, 1344), halved_often((800, 1344), 5)),  # P6 is 13 x 21: 800 // 13 = 61 pixels, not 64
        ((96, 224), halved_often((96, 224), 5)),  # P6 is 2 x 4: 48 and 56 pixels
        ((32, 32), halved_often((32, 32), 5)),  # P5 and P6 have one cell each
        ((100, 170), [(25, 42), (13, 22), (7, 11), (3, 5), (1, 1)]),  # not padded to a multiple
    ],
)
def test_anchors__pyramid(padded_hw: tuple[int, int], map_sizes_hw: list[tuple[int, int]]) -> None:
    sizes, ratios = tuple((side,) for side in OCTAVES), (RATIOS,) * 5
    check_anchors(sizes, ratios, padded_hw, map_sizes_hw)


@pytest.mark.parametrize("levels", [1, 3])
def test_anchors__several_sizes_in_a_cell(levels: int) -> None:
    check_anchors((OCTAVES,) * levels, (RATIOS,) * levels, (352, 480), [(11, 15), (11, 15), (6, 8)][:levels])


def test_anchors__other_ratios() -> None:
    check_anchors(((24.0, 50.0),), ((0.3, 0.77, 1.0, 3.1),), (128, 96), [(8, 6)])


def check_anchors(
    sizes: tuple[tuple[float, ...], ...],
    ratios: tuple[tuple[float, ...], ...],
    padded_hw: tuple[int, int],
    map_sizes_hw: list[tuple[int, int]],
) -> None:
    images = ImageList(torch.zeros(1, 3, *padded_hw), [padded_hw])
    maps = [torch.zeros(1, 1, *map_hw) for map_hw in map_sizes_hw]
    expected = anchor_utils.AnchorGenerator(sizes, ratios)(images, maps)[0]
    actual = AnchorGenerator(sizes, ratios)(map_sizes_hw, padded_hw, torch.device("cpu"))
    torch.testing.assert_close(torch.cat(actual), expected, rtol=0, atol=0)


# ---- box coding


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), RCNN_WEIGHTS])
@pytest.mark.parametrize("count", [0, 1, 200])
def test_encode(weights: tuple[float, float, float, float], count: int) -> None:
    found, anchors = random_boxes(count, 0), random_boxes(count, 1)
    expected = tv.BoxCoder(weights).encode_single(found, anchors)
    torch.testing.assert_close(boxes.encode(found, anchors, weights), expected)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), RCNN_WEIGHTS])
@pytest.mark.parametrize("spread", [0.5, 30.0], ids=["calm", "clamped"])
def test_decode(weights: tuple[float, float, float, float], spread: float) -> None:
    anchors, deltas = random_boxes(200, 2), normal(200, 4, seed=3) * spread
    if spread > 1:
        assert (deltas[:, 2:] / torch.tensor(weights[2:]) > boxes.MAX_LOG_SCALE).any()
    expected = tv.BoxCoder(weights).decode_single(deltas, anchors)
    # Corners of clamped boxes are differences of large numbers: 1e-5 of the box's own size.
    torch.testing.assert_close(boxes.decode(deltas, anchors, weights), expected, rtol=1e-5, atol=1e-3)


# ---- matching


def matched_by_torchvision(anchors: Tensor, gt_boxes: Tensor, high: float, low: float, best: bool) -> Tensor:
    overlaps = torchvision.ops.box_iou(gt_boxes, anchors)
    return torch.as_tensor(tv.Matcher(high, low, allow_low_quality_matches=best)(overlaps))


@pytest.mark.parametrize(("high", "low", "best"), [(0.7, 0.3, True), (0.5, 0.5, False), (0.6, 0.2, False)])
@pytest.mark.parametrize("whole", [False, True], ids=["floats", "ties"])
def test_match(high: float, low: float, best: bool, whole: bool) -> None:
    gt_boxes = random_boxes(12, 4, side=60, whole=whole)
    near = gt_boxes.repeat(20, 1) + (normal(240, 4, seed=5) * 4).round()
    anchors = torch.cat([random_boxes(500, 6, side=60, whole=whole), near[boxes.at_least(near, 1.0)]])
    gt_boxes = torch.cat([gt_boxes, gt_boxes[:2]])  # an object twice: the first one gets the anchors
    expected = matched_by_torchvision(anchors, gt_boxes, high, low, best)
    actual = match(anchors, gt_boxes, positive_iou=high, negative_iou=low, best_for_each=best)
    assert (expected >= 0).any()
    assert (expected == NEGATIVE).any()
    assert (expected == IGNORED).any() == (high > low)
    torch.testing.assert_close(actual, expected)


def test_match__zero_overlap_reproduces_torchvision() -> None:
    anchors = random_boxes(50, 7)
    outside = torch.tensor([[900.0, 900.0, 950.0, 950.0]])
    gt_boxes = torch.cat([anchors[:1] + 1, outside])
    expected = matched_by_torchvision(anchors, gt_boxes, 0.7, 0.3, True)
    rules = {"positive_iou": 0.7, "negative_iou": 0.3, "best_for_each": True}
    torch.testing.assert_close(match(anchors, gt_boxes, **rules, zero_overlap=True), expected)
    assert (expected >= 0).all()  # every anchor ties for the object that none overlaps


def test_match__without_zero_overlap_unseen_objects_change_nothing() -> None:
    anchors = random_boxes(50, 7)
    seen = anchors[:1] + 1
    outside = torch.tensor([[900.0, 900.0, 950.0, 950.0]])
    rules = {"positive_iou": 0.7, "negative_iou": 0.3, "best_for_each": True}
    actual = match(anchors, torch.cat([seen, outside]), **rules)
    torch.testing.assert_close(actual, matched_by_torchvision(anchors, seen, 0.7, 0.3, True))
    assert (actual == NEGATIVE).any()


# ---- sampling


@pytest.mark.parametrize(("positives", "negatives"), [(0, 40), (7, 40), (30, 5), (40, 0), (0, 0)])
def test_sample_balanced__all_taken(positives: int, negatives: int) -> None:
    labels = torch.tensor([1.0] * positives + [0.0] * negatives + [-1.0] * 10)
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(8))]
    (positive,), (negative,) = tv.BalancedPositiveNegativeSampler(1000, 0.5)([labels])
    expected = (positive | negative).nonzero()[:, 0]
    actual = sample_balanced(labels >= 1, labels == 0, count=1000, positive_fraction=0.5).sorted()
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("count", [1, 8, 21, 64])
@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.3, 0.5, 1.0])
def test_sample_balanced__as_many_of_each(count: int, fraction: float) -> None:
    labels = torch.tensor([1.0] * 12 + [0.0] * 30 + [-1.0] * 5)
    (positive,), (negative,) = tv.BalancedPositiveNegativeSampler(count, fraction)([labels])
    chosen = labels[sample_balanced(labels >= 1, labels == 0, count=count, positive_fraction=fraction).sorted()]
    assert int((chosen == 1).sum()) == int(positive.sum())
    assert int((chosen == 0).sum()) == int(negative.sum())
    assert not (chosen == -1).any()


# ---- overlaps and losses


@pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0), (1, 1), (80, 50)])
def test_iou(n: int, m: int) -> None:
    a, b = random_boxes(n, 9), random_boxes(m, 10)
    torch.testing.assert_close(boxes.iou(a, b), torchvision.ops.box_iou(a, b))


def test_areas_and_clip() -> None:
    found = random_boxes(100, 11) - 100
    torch.testing.assert_close(boxes.areas(found), torchvision.ops.box_area(found))
    expected = torchvision.ops.clip_boxes_to_image(found, (120, 200))
    torch.testing.assert_close(boxes.clip(found, (120, 200)), expected, rtol=0, atol=0)


def test_at_least__as_remove_small_boxes() -> None:
    found = random_boxes(100, 12, side=20)
    expected = torchvision.ops.remove_small_boxes(found, 8.0)
    torch.testing.assert_close(boxes.at_least(found, 8.0).nonzero()[:, 0], expected)
    assert 0 < len(expected) < 100


@pytest.mark.parametrize("count", [0, 1, 60])
def test_giou(count: int) -> None:
    target = random_boxes(count, 13)
    ours, theirs = (random_boxes(count, 14).requires_grad_() for _ in range(2))
    actual = losses.giou(ours, target)
    expected = torchvision.ops.generalized_box_iou_loss(theirs, target, reduction="sum")
    torch.testing.assert_close(actual, expected)
    actual.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize(("kind", "beta"), [("smooth_l1", 1 / 9), ("smooth_l1", 1.0), ("l1", 0.0)])
def test_smooth_l1(kind: str, beta: float) -> None:
    anchors, found, deltas = random_boxes(60, 15), random_boxes(60, 16), normal(60, 4, seed=17)
    expected = tv._box_loss(kind, tv.BoxCoder(RCNN_WEIGHTS), anchors, found, deltas, {"beta": beta})
    wanted = boxes.encode(found, anchors, RCNN_WEIGHTS)
    torch.testing.assert_close(losses.smooth_l1(deltas, wanted, beta=beta), expected)
