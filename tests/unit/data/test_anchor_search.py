from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fasterrcnn.config import AnchorConfig, InputConfig
from fasterrcnn.data.anchors import input_boxes, input_labels, measure_recall
from fasterrcnn.data.annotations import AnnotatedImage
from fasterrcnn.errors import UsageError
from fasterrcnn.model.anchors import cell_anchors, grid_anchors
from fasterrcnn.ops.boxes import iou

SQUARES = AnchorConfig(sizes=((32.0,), (64.0,)), ratios=((1.0,), (1.0,)), rounded=False)


def annotated(boxes, difficult=None, size_hw=(100, 200), labels=None) -> AnnotatedImage:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return AnnotatedImage(
        Path("a.png"),
        1,
        size_hw,
        array,
        np.array(labels if labels is not None else [0] * len(array), np.int64),
        np.array(difficult if difficult is not None else [False] * len(array), np.bool_),
    )


def squares(sides, seed=0) -> np.ndarray:
    """Squares at random places of an image of 600 pixels."""
    sides = np.asarray(sides, np.float32)
    corner = np.random.default_rng(seed).uniform(0, 600 - sides[:, None], (len(sides), 2)).astype(np.float32)
    return np.concatenate([corner, corner + sides[:, None]], axis=1)


def test_input_boxes__in_the_frame_of_the_network():
    config = InputConfig(short_side=50, long_side=1000)
    boxes = input_boxes([annotated([(0, 0, 20, 40)]), annotated([(100, 10, 300, 90)], size_hw=(200, 400))], config)
    assert boxes.dtype == np.float32
    np.testing.assert_allclose(boxes, [(0, 0, 10, 20), (25, 2.5, 75, 22.5)])


def test_input_boxes__leaves_out_what_is_not_learned():
    config = InputConfig(short_side=100, long_side=200)
    nan, inf = float("nan"), float("inf")
    bad = [(5, 5, 5, 20), (9, 9, 3, 20), (0, 0, nan, 5), (0, 0, inf, 5), (-inf, 0, inf, 5)]
    given_record = annotated(
        [*bad, (1, 1, 9, 9), (2, 2, 8, 8)], difficult=[False] * 6 + [True], labels=[0, 0, 0, 0, 0, 3, 2]
    )
    np.testing.assert_allclose(input_boxes([given_record], config), [(1, 1, 9, 9)])
    assert input_labels([given_record]).tolist() == [3]


@pytest.mark.parametrize("records", [[], [annotated([])]])
def test_input_boxes__none(records):
    assert input_boxes(records, InputConfig()).shape == (0, 4)
    assert input_labels(records).shape == (0,)


def test_measure_recall__by_hand():
    # Around the grid points (32, 32) of stride 16 and (64, 64) of stride 32: an exact fit, one that is half as
    # wide as its anchor (IoU 1/2), and one far larger than any anchor.
    boxes = np.array([(16, 16, 48, 48), (48, 32, 80, 96), (0, 0, 512, 512)], np.float32)
    recall = measure_recall(boxes, SQUARES, (16, 32))
    assert recall.boxes == 3
    assert recall.at_50 == pytest.approx(2 / 3)
    assert recall.at_70 == pytest.approx(1 / 3)
    assert recall.mean_iou == pytest.approx((1 + 0.5 + 64**2 / 512**2) / 3)
    # 32 x 32 is medium already: the limit belongs to the larger bin.
    assert [part.boxes for part in recall.by_size.values()] == [0, 2, 1]
    assert recall.by_size["medium"].at_70 == 0.5
    assert recall.by_size["small"].at_50 is None


def test_measure_recall__shift_to_the_grid_counts():
    # The middle between two grid points of stride 32 lies 16 pixels off: 16 of 32 pixels overlap.
    box = np.array([(32, 16, 64, 48)], np.float32)
    one = AnchorConfig(sizes=((32.0,),), ratios=((1.0,),), rounded=False)
    assert measure_recall(box, one, (32,)).mean_iou == pytest.approx(1 / 3)
    assert measure_recall(box, one, (16,)).mean_iou == pytest.approx(1)


def brute_force(boxes, anchors: AnchorConfig, strides, side: int) -> np.ndarray:
    """Best IoU of every box with every anchor there is on maps that cover the image."""
    every = [
        grid_anchors(cell_anchors(s, r, rounded=anchors.rounded), (side // d + 2,) * 2, (d, d))
        for s, r, d in zip(anchors.sizes, anchors.ratios, strides, strict=True)
    ]
    return iou(torch.from_numpy(boxes), torch.cat(every)).amax(dim=1).numpy()


boxes_inside = st.lists(
    st.tuples(st.floats(0, 150), st.floats(0, 150), st.floats(1, 100), st.floats(1, 100)), min_size=1, max_size=8
)


@settings(max_examples=50, deadline=None)
@given(boxes_inside, st.booleans())
def test_measure_recall__as_the_real_anchors(numbers, rounded):
    boxes = np.array([(x, y, x + w, y + h) for x, y, w, h in numbers], np.float32)
    anchors = AnchorConfig(sizes=((11.3, 24.0), (50.0, 71.0)), ratios=((0.4, 1.0, 2.3),) * 2, rounded=rounded)
    expected = brute_force(boxes, anchors, (8, 16), 250)
    recall = measure_recall(boxes, anchors, (8, 16))
    assert recall.mean_iou == pytest.approx(expected.mean(), abs=1e-5)
    for one, best in zip(boxes, expected, strict=True):
        assert measure_recall(one[None], anchors, (8, 16)).mean_iou == pytest.approx(best, abs=1e-5)


def test_measure_recall__no_boxes():
    recall = measure_recall(np.zeros((0, 4), np.float32), SQUARES, (16, 32))
    assert (recall.boxes, recall.at_50, recall.at_70, recall.mean_iou) == (0, None, None, None)
    assert "n/a" in str(recall)


def test_measure_recall__levels_differ():
    with pytest.raises(UsageError, match=r"anchors of 2 levels \(ratios of 2\) for 1 strides"):
        measure_recall(squares([40]), SQUARES, (16,))
