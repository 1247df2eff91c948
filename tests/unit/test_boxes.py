import numpy as np
import pytest
import torch

from fasterrcnn.boxes import box_areas, box_intersections, box_iou, box_nms
from fasterrcnn.ops import boxes as torch_boxes
from fasterrcnn.ops.boxes import nms

A = np.array([[0.0, 0, 4, 4], [2, 2, 4, 3], [5, 5, 5, 9]])
B = np.array([[2.0, 0, 6, 4], [2, 2, 4, 3], [5, 5, 5, 9]])


def random_boxes(count, seed):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 50, (count, 2))
    return np.hstack([corners, corners + rng.uniform(0, 40, (count, 2))])


def test_box_iou__row_by_row():
    assert box_areas(A).tolist() == [16, 2, 0]
    assert box_intersections(A, B).tolist() == [8, 2, 0]
    assert box_iou(A, B).tolist() == [8 / 24, 1, 0]
    assert box_iou(A[:0], B[:0]).shape == (0,)


def test_box_iou__every_pair():
    a, b = random_boxes(20, 0), random_boxes(30, 1)
    expected = torch_boxes.iou(torch.from_numpy(a).float(), torch.from_numpy(b).float())
    np.testing.assert_allclose(box_iou(a[:, None], b), expected, atol=1e-5)
    assert box_iou(a[:, None], b[:0]).shape == (20, 0)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
def test_box_nms__as_with_tensors(threshold):
    boxes, scores = random_boxes(200, 2).astype(np.float32), np.random.default_rng(3).permutation(200) / 200
    groups = np.arange(200) % 3
    keep = box_nms(boxes, scores, groups, threshold)
    expected = nms(torch.from_numpy(boxes), torch.from_numpy(scores).float(), torch.from_numpy(groups), threshold)
    assert np.flatnonzero(keep).tolist() == sorted(expected.tolist())


def test_box_nms__first_of_equal_scores():
    assert box_nms(A[[0, 0, 1]], np.ones(3), np.zeros(3, int), 0.5).tolist() == [True, False, True]
    assert box_nms(A[:0], np.ones(0), np.zeros(0, int), 0.5).tolist() == []
