import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fasterrcnn.data.formats import read_dicts
from fasterrcnn.data.formats.shapes import box_to_xyxy
from fasterrcnn.errors import DataError, UsageError


def boxes_of(data):
    return [
        [box, data.classes[label]] for r in data.images for box, label in zip(r.boxes.tolist(), r.labels, strict=True)
    ]


@pytest.fixture
def image(write_files):
    return write_files({"a.png": None}) / "a.png"


def test_read__by_hand(write_files):
    root = write_files({"a.png": None, "b.png": None})
    rows = [
        {"image": str(root / "a.png"), "boxes": [[1, 2, 3, 4], (5, 6, 7.5, 8)], "labels": ["owl", "cat"]},
        {"image": root / "b.png", "boxes": [], "split": "valid"},
        {"image": root / "b.png", "boxes": np.zeros((0, 4)), "labels": [], "split": "train"},
    ]
    data = read_dicts(rows)
    assert data.format == "list"
    assert data.classes == ("owl", "cat")
    assert {name: [r.path.name for r in records] for name, records in data.splits.items()} == {
        "train": ["b.png"],
        "val": ["b.png"],
        "all": ["a.png"],
    }
    (annotated,) = data.split("all")
    np.testing.assert_array_equal(annotated.boxes, np.array([[1, 2, 3, 4], [5, 6, 7.5, 8]], np.float32))
    assert annotated.size_hw == (30, 40)
    assert data.describe_box(annotated, 1) == "box 2 (cat)"
    assert data.split("val")[0].boxes.shape == (0, 4)


@pytest.mark.parametrize("make", [list, np.array, torch.tensor])
def test_read__indices_and_arrays(image, make):
    row = {"image": image, "boxes": make([[10, 20, 4, 6]]), "labels": make([1]), "difficult": make([True])}
    data = read_dicts([row], classes=("cat", "dog"), box_format="xywh")
    assert boxes_of(data) == [[[10, 20, 14, 26], "dog"]]
    assert data.images[0].difficult.tolist() == [True]


def test_read__findings(tmp_path, image):
    broken = tmp_path / "broken.png"
    broken.write_text("none")
    rows = [
        {"image": image, "boxes": [[1, 2, 3, 4]] * 3, "labels": ["cat", "owl", 2]},
        {"image": tmp_path / "none.png", "boxes": []},
        {"image": broken, "boxes": []},
    ]
    data = read_dicts(rows, classes=("cat", "dog"))
    assert boxes_of(data) == [[[1, 2, 3, 4], "cat"]]
    assert [(f.kind, f.file, f.annotation) for f in data.findings] == [
        ("unknown-class", image, 1),
        ("unknown-class", image, 1),
        ("missing-image", tmp_path / "none.png", 2),
        ("unreadable-image", broken, None),
    ]
    assert [f.what for f in data.findings[:3]] == [
        "row 1, box 2: 'owl' is none of the classes cat, dog",
        "row 1, box 3: 'index 2' is none of the classes cat, dog",
        "row 2: there is no such image",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": None}, "image must be a path, not None"),
        ({"bbox": 1}, "unknown key 'bbox'; there are: image, boxes, labels, split, difficult"),
        ({"boxes": [1, 2, 3, 4]}, r"boxes must be n x 4 numbers, not \[1, 2, 3, 4\]"),
        ({"boxes": [[1, 2, 3, 4], [1]]}, "boxes must be n x 4 numbers, not"),
        ({"boxes": [["a", 2, 3, 4]]}, "boxes must be n x 4 numbers, not"),
        ({"boxes": None}, "boxes must be n x 4 numbers, not None"),
        ({"boxes": np.zeros((9, 5))}, r"boxes must be n x 4 numbers, not array\(\[\[0\."),
        ({"labels": []}, r"1 boxes need as many labels, not \[\]"),
        ({"labels": "c"}, "1 boxes need as many labels, not 'c'"),
        ({"difficult": [True, False]}, r"1 boxes need as many difficult, not \[True, False\]"),
        ({"labels": [0]}, "labels must be names, or indices where classes are given, not 0"),
        ({"labels": [" "]}, "labels must be names, .*, not ' '"),
    ],
)
def test_read__row_that_is_refused(image, change, message):
    good = {"image": image, "boxes": [[1, 2, 3, 4]], "labels": ["cat"]}
    with pytest.raises(DataError, match=f"^row 2: {message}") as caught:
        read_dicts([good, good | change])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("row", [{}, {"boxes": []}, {"image": "a.png"}])
def test_read__not_a_row(row):
    with pytest.raises(DataError, match="row 1: a dict with image, boxes and labels is expected, not "):
        read_dicts([row])


def test_read__empty():
    with pytest.raises(DataError, match=r"list .*: no image that could be used$"):
        read_dicts([])


numbers = st.floats(-1000, 1000, width=32)


@given(boxes=st.lists(st.tuples(numbers, numbers, numbers, numbers), max_size=5))
def test_read__formats_agree(tmp_path_factory, boxes):
    path = tmp_path_factory.getbasetemp() / "format.png"
    if not path.exists():
        Image.new("RGB", (4, 3)).save(path)
    corners = np.array(boxes).reshape(-1, 4)
    sizes = corners[:, 2:] - corners[:, :2]
    written = {
        "xyxy": corners,
        "xywh": np.hstack([corners[:, :2], sizes]),
        "cxcywh": np.hstack([corners[:, :2] + sizes / 2, sizes]),
    }
    for box_format, values in written.items():
        row = {"image": path, "boxes": values, "labels": ["x"] * len(values)}
        (annotated,) = read_dicts([row], box_format=box_format).images
        np.testing.assert_allclose(annotated.boxes, corners, rtol=1e-5, atol=1e-3)


def test_read__unknown_format(image):
    unchecked = getattr(box_to_xyxy, "__wrapped__", box_to_xyxy)
    with pytest.raises(UsageError, match="no box format 'xyhw'; there are: xyxy, xywh, cxcywh"):
        unchecked([1, 2, 3, 4], "xyhw")
