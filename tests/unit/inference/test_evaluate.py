from dataclasses import replace

import numpy as np
import pytest

from fasterrcnn.data.records import AnnotatedData, Record
from fasterrcnn.errors import DataError, UsageError
from fasterrcnn.inference.detector import load
from fasterrcnn.inference.evaluate import evaluate


@pytest.fixture(scope="module")
def detector(checkpoint):
    return load(checkpoint, device="cpu")


def annotated(detector, tmp_path, photo, classes, size_hw=(64, 96)) -> AnnotatedData:
    """Two pictures whose truth is what the detector finds, under these labels; a third one without any."""
    records = []
    for number in range(3):
        path = tmp_path / f"{number}.png"
        photo(size_hw, number).save(path)
        found = detector.predict(path, max_detections=5)
        keep = [i for i, name in enumerate(found.names) if name in classes and number < 2]
        labels = np.array([classes.index(found.names[i]) for i in keep], np.int64)
        records.append(Record(path, number + 1, size_hw, found.boxes[keep], labels, np.zeros(len(keep), np.bool_)))
    return AnnotatedData(tmp_path, "test", classes, {"test": records})


@pytest.mark.parametrize("batch_size", [1, 2])
def test_evaluate__finds_what_it_finds(detector, tmp_path, photo, batch_size):
    data = annotated(detector, tmp_path, photo, ("cat", "dog", "owl"))
    report = evaluate(detector, data, batch_size=batch_size)
    assert report.ar100 == pytest.approx(1.0)
    assert (report.images, report.objects) == (3, 10)


def test_evaluate__classes_are_matched_by_name(detector, tmp_path, photo):
    data = annotated(detector, tmp_path, photo, ("bee", "owl", "dog", "cat"))
    report = evaluate(detector, data)
    assert report.ar100 == pytest.approx(1.0)
    assert report.per_class["bee"] == {"ap": None, "ap50": None}


def test_evaluate__checkpoint_and_detector_agree(detector, checkpoint, tmp_path, photo):
    data = annotated(detector, tmp_path, photo, ("cat", "dog", "owl"))
    assert evaluate(checkpoint, data) == evaluate(detector, data)


def test_evaluate__nothing_in_common(detector, tmp_path, photo):
    data = annotated(detector, tmp_path, photo, ("bee", "fly"))
    with pytest.raises(UsageError, match="no class in common: cat, dog, owl against bee, fly"):
        evaluate(detector, data)


def test_evaluate__unknown_split(detector, tmp_path, photo):
    data = annotated(detector, tmp_path, photo, ("cat", "dog", "owl"))
    with pytest.raises(UsageError, match="no split 'val'; there are: test"):
        evaluate(detector, data, split="val")


def test_evaluate__ids_of_the_categories_do_not_matter(detector, tmp_path, photo):
    data = annotated(detector, tmp_path, photo, ("cat", "dog", "owl"))
    other = evaluate(detector, replace(data, category_ids=(90, 7, 18)))
    assert other.ap == pytest.approx(evaluate(detector, data).ap)
    assert list(other.per_class) == ["dog", "owl", "cat"]  # in the order of their ids


def test_evaluate__list_of_dicts(detector, tmp_path, photo):
    data = annotated(detector, tmp_path, photo, ("cat", "dog", "owl"))
    rows = [
        {"image": r.path, "boxes": r.boxes, "labels": [data.classes[i] for i in r.labels], "split": "test"}
        for r in data.split("test")
    ]
    assert evaluate(detector, rows).ar100 == pytest.approx(1.0)


def test_evaluate__bad_boxes(detector, tmp_path, photo):
    data = annotated(detector, tmp_path, photo, ("cat", "dog", "owl"))
    whole = data.split("test")[0]
    boxes = whole.boxes.copy()
    boxes[0] = boxes[0][[2, 3, 0, 1]]
    data = replace(data, splits={"test": [replace(whole, boxes=boxes), *data.split("test")[1:]]})
    with pytest.raises(DataError, match=r"1 error in .*has its second corner before the first"):
        evaluate(detector, data)
    assert evaluate(detector, data, on_bad_box="fix").ar100 == pytest.approx(1.0)
    assert evaluate(detector, data, on_bad_box="drop").objects == 9
