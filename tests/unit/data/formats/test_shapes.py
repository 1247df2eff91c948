import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasterrcnn.data.formats.shapes import box_of_segmentation
from fasterrcnn.errors import DataError


def runs_of(mask):
    """The counts of an RLE, of a mask of zeros and ones, by one pixel after the other."""
    counts, value = [0], 0
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


@pytest.mark.parametrize(
    ("counts", "bounds"),
    [
        ([0, 1, 11], (0, 0, 1, 1)),  # the first pixel
        ([11, 1], (3, 2, 4, 3)),  # the last
        ([4, 2, 6], (1, 1, 2, 3)),
        ([5, 2, 5], (1, 0, 3, 3)),  # goes on in the next column
        ([1, 1, 2, 0, 2, 1, 5], (0, 0, 3, 2)),  # a run without pixels does not count
    ],
)
def test_box_of_segmentation__runs_of_three_rows_and_four_columns(counts, bounds):
    assert box_of_segmentation({"size": [3, 4], "counts": counts}) == list(bounds)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**20))
def test_box_of_segmentation__those_of_the_mask(height, width, seed):
    mask = (np.random.default_rng(seed).random((height, width)) < 0.2).astype(int)
    rle = {"size": [height, width], "counts": runs_of(mask)}
    if not mask.any():
        with pytest.raises(DataError, match="it is empty"):
            box_of_segmentation(rle)
        return
    rows, columns = np.nonzero(mask)
    assert box_of_segmentation(rle) == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_box_of_segmentation__text_against_pycocotools():
    mask_tools = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for size in (1, 3, 40, 700):
        mask = np.zeros((size, size + 5), np.uint8)
        for _ in range(3):
            y, x = rng.integers(0, size, 2)
            mask[y : y + size // 3 + 1, x : x + size // 4 + 1] = 1
        rle = mask_tools.encode(np.asfortranarray(mask))
        left, top, width, height = mask_tools.toBbox(rle).tolist()
        text = {"size": rle["size"], "counts": rle["counts"].decode()}
        assert box_of_segmentation(text) == [left, top, left + width, top + height]


@pytest.mark.parametrize(
    "counts", ["", "P", "\x00", "é", "_" * 50, [1, -1, 12], [12], [10**30], None, [[1, 11]], [None], [1e300]]
)
def test_box_of_segmentation__runs_that_are_none(counts):
    with pytest.raises(DataError, match="segmentation must be polygons or an RLE, not "):
        box_of_segmentation({"size": [3, 4], "counts": counts})


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(["size", "counts"]), inner, max_size=2),
    max_leaves=8,
)


@settings(deadline=None, max_examples=200)
@given(VALUE)
def test_box_of_segmentation__whatever_a_file_holds(value):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            bounds = box_of_segmentation(value)
        except DataError as error:
            bounds = str(error)[:4]
    assert len(bounds) == 4
