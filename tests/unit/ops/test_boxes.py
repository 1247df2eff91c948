import math

import pytest
import torch
from torch.testing import assert_close

from fasterrcnn.ops import boxes
from fasterrcnn.ops.boxes import best_after_nms, best_of_each, nms, soft_nms

SQUARE = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
OTHERS = torch.tensor([[2.0, 2.0, 6.0, 6.0], [0.0, 0.0, 4.0, 2.0], [4.0, 0.0, 8.0, 4.0], [0.0, 0.0, 4.0, 4.0]])
NONE = torch.zeros(0, 4)


def test_intersections__by_hand():
    assert_close(boxes.intersections(SQUARE, OTHERS), torch.tensor([[4.0, 8.0, 0.0, 16.0]]))


def test_iou__by_hand():
    assert_close(boxes.iou(SQUARE, OTHERS), torch.tensor([[4 / 28, 0.5, 0.0, 1.0]]))


def test_iou__boxes_without_area():
    point = torch.tensor([[1.0, 1.0, 1.0, 1.0]])
    assert_close(boxes.iou(point, torch.cat([point, SQUARE])), torch.zeros(1, 2))


@pytest.mark.parametrize("function", [boxes.iou, boxes.intersections, boxes.intersection_over_area])
@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 3), (3, 0)])
def test_pairs__empty(function, n, m):
    assert function(torch.zeros(n, 4), torch.zeros(m, 4)).shape == (n, m)


def test_intersection_over_area__by_hand():
    shares = boxes.intersection_over_area(OTHERS, SQUARE)
    assert_close(shares, torch.tensor([[0.25], [1.0], [0.0], [1.0]]))
    assert_close(boxes.intersection_over_area(torch.tensor([[1.0, 1.0, 1.0, 3.0]]), SQUARE), torch.zeros(1, 1))


def test_areas():
    assert_close(boxes.areas(torch.tensor([[1.0, 2.0, 4.0, 8.0], [1.0, 1.0, 1.0, 5.0]])), torch.tensor([18.0, 0.0]))
    assert boxes.areas(NONE).shape == (0,)


def test_clip__height_and_width_are_not_mixed_up():
    wild = torch.tensor([[-5.0, -6.0, 50.0, 60.0], [1.0, 2.0, 3.0, 4.0], [40.0, 40.0, 50.0, 50.0]])
    expected = torch.tensor([[0.0, 0.0, 30.0, 20.0], [1.0, 2.0, 3.0, 4.0], [30.0, 20.0, 30.0, 20.0]])
    assert_close(boxes.clip(wild, (20, 30)), expected)


def test_clip__leading_axes_and_empty():
    wild = torch.tensor([-5.0, -6.0, 50.0, 60.0]).expand(2, 3, 4)
    assert_close(boxes.clip(wild, (20, 30)), torch.tensor([0.0, 0.0, 30.0, 20.0]).expand(2, 3, 4))
    assert boxes.clip(NONE, (20, 30)).shape == (0, 4)


def test_at_least__both_sides():
    candidates = torch.tensor([[0.0, 0.0, 5.0, 5.0], [0.0, 0.0, 5.0, 4.9], [0.0, 0.0, 4.9, 5.0], [5.0, 5.0, 0.0, 0.0]])
    assert boxes.at_least(candidates, 5.0).tolist() == [True, False, False, False]
    assert boxes.at_least(NONE, 5.0).shape == (0,)


def test_scale__height_and_width_are_not_mixed_up():
    found = boxes.scale(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), (10, 20), (30, 10))
    assert_close(found, torch.tensor([[0.5, 6.0, 1.5, 12.0]]))
    assert boxes.scale(NONE, (10, 20), (30, 10)).shape == (0, 4)


def test_scale__there_and_back():
    start = torch.tensor([[1.0, 2.0, 333.0, 470.0]])
    assert_close(boxes.scale(boxes.scale(start, (480, 640), (799, 1065)), (799, 1065), (480, 640)), start)


def test_flip_horizontal__by_hand_and_twice():
    start = torch.tensor([[1.0, 2.0, 4.0, 8.0], [0.0, 0.0, 10.0, 10.0]])
    flipped = boxes.flip_horizontal(start, 10)
    assert_close(flipped, torch.tensor([[6.0, 2.0, 9.0, 8.0], [0.0, 0.0, 10.0, 10.0]]))
    assert_close(boxes.flip_horizontal(flipped, 10), start)
    assert boxes.flip_horizontal(NONE, 10).shape == (0, 4)


def test_encode__by_hand():
    anchors = torch.tensor([[0.0, 0.0, 10.0, 20.0]])  # centre 5, 10
    target = torch.tensor([[5.0, 5.0, 25.0, 25.0]])  # centre 15, 15; 20 x 20
    expected = torch.tensor([[1.0, 0.25, math.log(2), 0.0]])
    assert_close(boxes.encode(target, anchors), expected)
    weighted = boxes.encode(target, anchors, (10.0, 10.0, 5.0, 5.0))
    assert_close(weighted, expected * torch.tensor([10.0, 10.0, 5.0, 5.0]))


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])
def test_decode__inverts_encode(weights):
    anchors = torch.tensor([[0.0, 0.0, 10.0, 20.0], [-3.0, 5.0, 50.0, 6.0]])
    targets = torch.tensor([[5.0, 5.0, 25.0, 25.0], [100.0, 2.0, 103.0, 44.0]])
    assert_close(boxes.decode(boxes.encode(targets, anchors, weights), anchors, weights), targets, rtol=1e-4, atol=1e-3)


def test_decode__zero_deltas_give_the_anchors():
    assert_close(boxes.decode(torch.zeros(4, 4), OTHERS), OTHERS)


def test_decode__wild_deltas_stay_finite():
    decoded = boxes.decode(torch.tensor([[0.0, 0.0, 1e4, 1e4]]), torch.tensor([[0.0, 0.0, 16.0, 16.0]]))
    assert_close(decoded[0, 2:] - decoded[0, :2], torch.tensor([1000.0, 1000.0]))


def test_decode__half_precision_deltas_give_float32():
    decoded = boxes.decode(torch.zeros(4, 4, dtype=torch.bfloat16), OTHERS)
    assert_close(decoded, OTHERS)


def test_encode_decode__empty():
    assert boxes.encode(NONE, NONE).shape == boxes.decode(NONE, NONE).shape == (0, 4)
    assert boxes.decode(torch.zeros(2, 0, 4), torch.zeros(2, 0, 4)).shape == (2, 0, 4)


# Squares of side 10. Overlaps: 0-1 is 80/120, 0-2 is 40/160, 1-2 is 60/140, 3-4 is 90/110, the rest is 0.
BOXES = torch.tensor(
    [
        [0.0, 0.0, 10.0, 10.0],
        [2.0, 0.0, 12.0, 10.0],
        [6.0, 0.0, 16.0, 10.0],
        [50.0, 50.0, 60.0, 60.0],
        [51.0, 50.0, 61.0, 60.0],
    ]
)
SCORES = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.95])
ONE_GROUP = torch.zeros(5, dtype=torch.int64)
NOTHING = torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64)


def test_nms__by_hand():
    assert nms(BOXES, SCORES, ONE_GROUP, 0.5).tolist() == [4, 0, 2]


@pytest.mark.parametrize(
    ("threshold", "kept"), [(0.9, [4, 0, 1, 2, 3]), (0.7, [4, 0, 1, 2]), (0.3, [4, 0, 2]), (0.2, [4, 0])]
)
def test_nms__thresholds(threshold, kept):
    assert nms(BOXES, SCORES, ONE_GROUP, threshold).tolist() == kept


def test_nms__groups_do_not_suppress_each_other():
    assert nms(BOXES, SCORES, torch.tensor([0, 1, 0, 0, 0]), 0.5).tolist() == [4, 0, 1, 2]
    assert nms(BOXES, SCORES, torch.arange(5), 0.5).tolist() == [4, 0, 1, 2, 3]


def test_nms__empty_and_one():
    assert nms(*NOTHING, 0.5).shape == (0,)
    assert nms(BOXES[:1], SCORES[:1], ONE_GROUP[:1], 0.0).tolist() == [0]


def test_best_of_each__as_one_by_one(threads):
    images = [
        (BOXES, SCORES, ONE_GROUP),
        NOTHING,
        (BOXES, SCORES.flip(0), torch.tensor([0, 1, 0, 0, 0])),
        (BOXES[:1], SCORES[:1], ONE_GROUP[:1]),
    ]
    found = best_of_each([(*image, torch.ones(len(image[0]), dtype=torch.bool)) for image in images], 0.5, 2)
    assert [kept.tolist() for kept in found] == [nms(*image, 0.5)[:2].tolist() for image in images]
    assert best_of_each([], 0.5, 2) == []


def test_best_of_each__not_usable():
    usable = torch.tensor([False, True, True, False, True])
    members = usable.nonzero()[:, 0]
    expected = members[nms(BOXES[members], SCORES[members], ONE_GROUP[members], 0.5)]
    (kept,) = best_of_each([(BOXES, SCORES, ONE_GROUP, usable)], 0.5, 5)
    assert kept.tolist() == expected.tolist()


@pytest.mark.parametrize("limit", [1, 400, 600, 1500, 9000])
@pytest.mark.parametrize("spread", [30.0, 3000.0])
def test_best_after_nms__first_of_all(spread, limit):
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(6000, 2, generator=generator) * spread
    boxes = torch.cat([corners, corners + 5 + 20 * torch.rand(6000, 2, generator=generator)], dim=1)
    scores = torch.rand(6000, generator=generator).mul(500).round()  # many are equal
    groups = torch.arange(6000) % 3
    expected = nms(boxes, scores, groups, 0.7)
    assert len(expected) < 5000 if spread < 100 else len(expected) > 5000
    assert torch.equal(best_after_nms(boxes, scores, groups, 0.7, limit), expected[:limit])


def test_soft_nms__linear_by_hand():
    index, scores = soft_nms(BOXES, SCORES, ONE_GROUP, method="linear", threshold=0.3, limit=10)
    assert index.tolist() == [4, 0, 2, 1, 3]
    # Box 1 is lowered by box 0 and then by box 2; box 2 overlaps box 0 by less than the threshold.
    expected = [0.95, 0.9, 0.7, 0.8 * (1 - 80 / 120) * (1 - 60 / 140), 0.6 * (1 - 90 / 110)]
    assert_close(scores, torch.tensor(expected))


def test_soft_nms__gaussian_by_hand():
    index, scores = soft_nms(BOXES, SCORES, ONE_GROUP, method="gaussian", sigma=0.5, limit=10)
    fade = {
        pair: math.exp(-(iou**2) / 0.5) for pair, iou in {"01": 2 / 3, "02": 0.25, "12": 3 / 7, "34": 9 / 11}.items()
    }
    expected = [0.95, 0.9, 0.7 * fade["02"], 0.8 * fade["01"] * fade["12"], 0.6 * fade["34"]]
    assert index.tolist() == [4, 0, 2, 1, 3]
    assert_close(scores, torch.tensor(expected))


def test_soft_nms__groups_do_not_lower_each_other():
    index, scores = soft_nms(BOXES, SCORES, torch.arange(5), method="gaussian", limit=10)
    assert index.tolist() == [4, 0, 1, 2, 3]
    assert_close(scores, SCORES[index])


def test_soft_nms__min_score_and_limit():
    options = {"method": "linear", "threshold": 0.3}
    index, scores = soft_nms(BOXES, SCORES, ONE_GROUP, **options, min_score=0.5, limit=10)
    assert index.tolist() == [4, 0, 2]
    assert_close(scores, torch.tensor([0.95, 0.9, 0.7]))
    assert soft_nms(BOXES, SCORES, ONE_GROUP, **options, limit=2)[0].tolist() == [4, 0]


def test_soft_nms__leaves_its_input_alone():
    scores = SCORES.clone()
    soft_nms(BOXES, scores, ONE_GROUP, method="linear", limit=10)
    assert_close(scores, SCORES)


@pytest.mark.parametrize("method", ["linear", "gaussian"])
def test_soft_nms__empty_and_one(method):
    index, scores = soft_nms(*NOTHING, method=method, limit=10)
    assert index.shape == scores.shape == (0,)
    index, scores = soft_nms(BOXES[:1], SCORES[:1], ONE_GROUP[:1], method=method, limit=10)
    assert index.tolist() == [0]
    assert_close(scores, SCORES[:1])


@pytest.mark.parametrize("method", ["linear", "gaussian"])
def test_soft_nms__very_many_boxes_box_by_box(method, monkeypatch):
    at_once = soft_nms(BOXES, SCORES, ONE_GROUP, method=method, limit=10)
    monkeypatch.setattr("fasterrcnn.ops.boxes._AT_ONCE", 0)
    one_by_one = soft_nms(BOXES, SCORES, ONE_GROUP, method=method, limit=10)
    assert torch.equal(at_once[0], one_by_one[0])
    assert_close(at_once[1], one_by_one[1])


def test_soft_nms__no_gradient_flows():
    index, scores = soft_nms(
        BOXES.clone().requires_grad_(), SCORES.clone().requires_grad_(), ONE_GROUP, method="linear", limit=3
    )
    assert len(index) == 3
    assert not scores.requires_grad
