from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage, group_by, group_rows, to_coco
from fasterrcnn.data.findings import Finding
from fasterrcnn.errors import UsageError


def annotated(number, boxes=(), labels=(), difficult=None, **more) -> AnnotatedImage:
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    difficult = [False] * len(boxes) if difficult is None else difficult
    return AnnotatedImage(
        Path(f"images/{number}.jpg"),
        number,
        (30, 40),
        boxes,
        np.array(labels, np.int64),
        np.array(difficult, np.bool_),
        **more,
    )


def data_of(splits, classes=("cat", "dog"), **more) -> AnnotatedData:
    return AnnotatedData(Path("cells"), "Pascal VOC", classes, splits, **more)


TWO = [[1, 2, 11, 22], [0, 0, 4, 5]]


def test_select__every_column():
    whole = annotated(
        1,
        TWO,
        [1, 0],
        [False, True],
        numbers=np.array([8, 9], np.int64),
        areas=np.array([1, 2], np.float32),
        source=Path("a.xml"),
    )
    part = whole.select(np.array([False, True]))
    assert part.boxes.tolist() == [[0, 0, 4, 5]]
    assert (part.labels.tolist(), part.difficult.tolist()) == ([0], [True])
    assert (part.numbers.tolist(), part.areas.tolist()) == ([9], [2])
    assert (part.path, part.image_id, part.size_hw, part.source) == (whole.path, 1, (30, 40), Path("a.xml"))
    assert len(whole.boxes) == 2


def test_select__nothing_and_no_columns():
    nothing = annotated(1, TWO, [1, 0]).select(np.array([False, False]))
    assert nothing.boxes.shape == (0, 4)
    assert nothing.labels.shape == nothing.difficult.shape == (0,)
    assert nothing.numbers is nothing.areas is None
    assert annotated(1).select(np.zeros(0, np.bool_)).boxes.shape == (0, 4)


def test_split():
    first = annotated(1)
    data = data_of({"train": [first], "val": [first, annotated(2)]})
    assert data.split("train")[0] is first
    with pytest.raises(UsageError, match="cells: no split 'tset'; there are: train, val"):
        data.split("tset")


def test_training_split():
    assert data_of({"val": [], "trainval": [], "train": []}).training_split == "train"
    assert data_of({"test": [], "trainval": []}).training_split == "trainval"
    assert data_of({"all": []}).training_split == "all"
    assert data_of({"test": [], "val": []}).training_split == "test"


def test_records__each_once():
    first, second = annotated(1), annotated(2)
    # Equal is not the same: an image in two places is two records.
    data = data_of({"train": [first, annotated(1)], "val": [first, second]})
    assert len(data.images) == 3
    assert [r.image_id for r in data.images] == [1, 1, 2]
    assert data_of({}).images == []


def test_category_ids__from_one_where_the_format_has_none():
    assert data_of({}).category_ids == (1, 2)
    assert data_of({}, category_ids=(17, 90)).category_ids == (17, 90)
    assert data_of({}, ()).category_ids == ()


def test_finding__names_the_annotation_and_its_box():
    given_numbers = annotated(1, [[5, 5.5, 5, 20], [0, 0, 1, 1]], [0, 1], numbers=np.array([17, 4], np.int64))
    data = data_of({"all": [given_numbers]})
    assert data.describe_box(given_numbers, 0) == "annotation 17 (cat)"
    finding = data.box_finding("flat-box", given_numbers, 0, "has no area")
    assert finding == Finding(
        "flat-box",
        Path("images/1.jpg"),
        "annotation 17 (cat): box 5,5.5,5,20 has no area",
        17,
        Path("images/1.jpg"),
    )
    counted = replace(given_numbers, numbers=None, source=Path("1.xml"))
    finding = data_of({"all": [counted]}, counted="object").box_finding("flat-box", counted, 1, "is odd")
    assert finding.what == "object 2 (dog): box 0,0,1,1 is odd"
    assert (finding.file, finding.annotation) == (Path("1.xml"), 2)


def test_map__a_record_in_two_splits_is_changed_once():
    first, second = annotated(1, TWO, [0, 1]), annotated(2)
    data = data_of({"train": [first, second], "val": [first]}, findings=[Finding("leak", Path("x"), "y")])
    seen = []

    def change(one):
        seen.append(one.image_id)
        return None if one is second else one.select(np.array([True, False]))

    mapped = data.map(change)
    assert seen == [1, 2]
    assert len(mapped.split("train")) == 1
    assert mapped.split("train")[0] is mapped.split("val")[0]
    assert len(mapped.images[0].boxes) == 1
    assert (mapped.classes, mapped.findings, mapped.root) == (data.classes, data.findings, data.root)
    assert data.split("train") == [first, second]


@pytest.mark.parametrize(
    ("splits", "classes", "expected"),
    [
        ({}, (), "0 images, 0 classes (), splits "),
        ({"all": [1]}, ("cat",), "1 image, 1 without boxes, 1 class (cat), no splits"),
        (
            {"train": [1], "val": [1, 2]},
            ("a", "b"),
            "2 images, 2 without boxes, 2 classes (a, b), splits train 1 / val 2",
        ),
        ({"train": [3], "val": [4], "trainval": [3, 4]}, ("a",), "2 images, 1 class (a), splits train 1 / val 1"),
        ({"trainval": [3]}, ("a",), "1 image, 1 class (a), splits trainval 1"),
        ({"all": [3]}, tuple("abcdefghijk"), "1 image, 11 classes (a, b, c, d, e, f, g, h, i, j, ...), no splits"),
    ],
)
def test_summary(splits, classes, expected):
    made = {1: annotated(1), 2: annotated(2), 3: annotated(3, TWO, [0, 0]), 4: annotated(4, TWO, [0, 0])}
    data = data_of({name: [made[number] for number in numbers] for name, numbers in splits.items()}, classes)
    assert data.summary() == f"Pascal VOC, {expected}"


def test_group_by__keys_and_items_in_their_order():
    groups = group_by(["bb", "a", "cc", "d"], len)
    assert list(groups.items()) == [(2, ["bb", "cc"]), (1, ["a", "d"])]
    assert group_by([], len) == {}


def test_arrange__by_hand():
    owners = np.array([2, 0, 2, 0], np.int64)
    parts = group_rows(owners, 4, np.array([10, 11, 12, 13]), np.array([[1], [2], [3], [4]]))
    assert [(a.tolist(), b.tolist()) for a, b in parts] == [
        ([11, 13], [[2], [4]]),
        ([], []),
        ([10, 12], [[1], [3]]),
        ([], []),
    ]


def test_arrange__nothing():
    nothing = np.zeros(0, np.int64)
    assert list(group_rows(nothing, 0, nothing)) == []
    ((part,),) = group_rows(nothing, 1, np.zeros((0, 4), np.float32))
    assert (part.shape, part.dtype) == ((0, 4), np.float32)


@given(st.lists(st.integers(0, 6), max_size=40))
def test_arrange__as_a_search_for_every_owner(owners):
    owners = np.array(owners, np.int64)
    rows = np.arange(len(owners))
    parts = [part.tolist() for (part,) in group_rows(owners, 7, rows)]
    assert parts == [rows[owners == owner].tolist() for owner in range(7)]


def test_to_coco__by_hand():
    records = [annotated(3, TWO, [1, 0], [False, True]), annotated(7)]
    assert to_coco(data_of({"all": records}), records) == {
        "images": [
            {"id": 3, "file_name": "3.jpg", "height": 30, "width": 40},
            {"id": 7, "file_name": "7.jpg", "height": 30, "width": 40},
        ],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 2, "bbox": [1.0, 2.0, 10.0, 20.0], "area": 200.0, "iscrowd": 0},
            {"id": 2, "image_id": 3, "category_id": 1, "bbox": [0.0, 0.0, 4.0, 5.0], "area": 20.0, "iscrowd": 1},
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


def test_to_coco__areas_and_category_ids_of_the_original():
    one = annotated(0, TWO, [1, 0], areas=np.array([1.5, 2], np.float32), numbers=np.array([0, 40], np.int64))
    written = to_coco(data_of({"all": [one]}, category_ids=(90, 0)), [one])
    assert [(row["id"], row["category_id"], row["area"]) for row in written["annotations"]] == [
        (1, 0, 1.5),
        (2, 90, 2.0),
    ]
    assert written["categories"] == [{"id": 90, "name": "cat"}, {"id": 0, "name": "dog"}]


def test_to_coco__nothing():
    assert to_coco(data_of({}, ()), []) == {"images": [], "annotations": [], "categories": []}
