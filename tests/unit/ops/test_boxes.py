import math

import pytest
import torch
from torch.testing import assert_close

from fasterrcnn.ops import boxes

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
