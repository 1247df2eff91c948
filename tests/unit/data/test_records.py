from pathlib import Path

import numpy as np
import pytest

from fasterrcnn.data.records import AnnotatedData, Problem, Record, to_coco
from fasterrcnn.errors import UsageError


def record(number, boxes=(), labels=(), difficult=None) -> Record:
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    difficult = [False] * len(boxes) if difficult is None else difficult
    return Record(
        Path(f"pictures/{number}.jpg"),
        number,
        (30, 40),
        boxes,
        np.array(labels, np.int64),
        np.array(difficult, np.bool_),
    )


def test_to_coco__by_hand():
    records = [record(3, [[1, 2, 11, 22], [0, 0, 4, 5]], [1, 0], [False, True]), record(7)]
    assert to_coco(records, ["cat", "dog"]) == {
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


def test_to_coco__nothing():
    assert to_coco([], []) == {"images": [], "annotations": [], "categories": []}


def test_annotated_data__split():
    first = record(1)
    data = AnnotatedData(Path("cells"), "Pascal VOC", ("cat",), {"train": [first], "val": [first, record(2)]}, [])
    assert data.split("train") == [first]
    with pytest.raises(UsageError, match="cells: no split 'tset'; there are: train, val"):
        data.split("tset")
    assert data.summary() == "Pascal VOC, 2 images, 1 classes (cat), train 1 / val 2"


def test_problem__names_its_file():
    assert str(Problem(Path("a/b.xml"), "object 1 has no name")) == "a/b.xml: object 1 has no name"
