import numpy as np
import pytest

from fasterrcnn.data.records import AnnotatedData, Record
from fasterrcnn.errors import UsageError
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
    return AnnotatedData(tmp_path, "test", classes, {"test": records}, [])


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
