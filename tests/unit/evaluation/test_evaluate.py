import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fasterrcnn
from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage
from fasterrcnn.errors import DataError, UsageError
from fasterrcnn.evaluation.evaluate import evaluate
from fasterrcnn.evaluation.ground_truth import common_classes
from fasterrcnn.evaluation.report import results_of
from fasterrcnn.inference.detector import load


@pytest.fixture(scope="module")
def detector(checkpoint):
    return load(checkpoint, device="cpu")


def annotated(detector, tmp_path, photo, classes, size_hw=(64, 96)) -> AnnotatedData:
    """Two images whose ground truth is what the detector finds, under these labels; a third one without any."""
    records = []
    for number in range(3):
        path = tmp_path / f"{number}.png"
        photo(size_hw, number).save(path)
        found = detector.predict(path, max_detections=5)
        keep = [i for i, name in enumerate(found.names) if name in classes and number < 2]
        labels = np.array([classes.index(found.names[i]) for i in keep], np.int64)
        records.append(
            AnnotatedImage(path, number + 1, size_hw, found.boxes[keep], labels, np.zeros(len(keep), np.bool_))
        )
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


def test_evaluate__names_that_differ_in_spelling_are_matched_and_listed(detector, tmp_path, photo):
    data = annotated(detector, tmp_path, photo, ("cat", "dog", "owl"))
    report = evaluate(detector, replace(data, classes=("Cat", "dog", "_OWL")))
    assert report.ap == evaluate(detector, data).ap
    assert "Spelled otherwise in the data set, and taken for the same: cat as Cat, owl as _OWL." in str(report)


def test_evaluate__classes_without_a_partner_are_listed(detector, tmp_path, photo):
    report = str(evaluate(detector, annotated(detector, tmp_path, photo, ("bee", "owl", "dog"))))
    assert "The detector does not have bee of the data set, and cannot find them." in report
    assert "The data set does not have cat of the detector: they are not counted." in report
    assert "Spelled otherwise" not in report


def test_evaluate__checkpoint_and_detector_agree(detector, checkpoint, tmp_path, photo):
    data = annotated(detector, tmp_path, photo, ("cat", "dog", "owl"))
    assert evaluate(checkpoint, data) == evaluate(detector, data)


def test_evaluate__nothing_in_common(detector, tmp_path, photo):
    data = annotated(detector, tmp_path, photo, ("bee", "fly"))
    with pytest.raises(UsageError, match="no class in common: cat, dog, owl against bee, fly"):
        evaluate(detector, data)


def test_common_classes__accents_written_in_two_ways():
    assert common_classes(["caf\u00e9"], ["dog", "cafe\u0301"]) == {"caf\u00e9": "cafe\u0301"}


def test_common_classes__invisible_characters():
    with pytest.raises(UsageError, match=r"no class in common: cat against .*; the names differ in characters"):
        common_classes(["cat"], ["dog", "cat\u200b"])


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
    with pytest.raises(DataError, match=r"(?s)1 error in .*has its second corner before the first"):
        evaluate(detector, data)
    assert evaluate(detector, data, on_bad_box="fix").ar100 == pytest.approx(1.0)
    assert evaluate(detector, data, on_bad_box="drop").objects == 9


def test_evaluate__variants_stand_beside_the_plain_number(detector, tmp_path, photo):
    data = annotated(detector, tmp_path, photo, ("cat", "dog", "owl"))
    plain = evaluate(detector, data, bootstrap=0, proposals=False)
    report = evaluate(detector, data, flip=True, scales=[0.75, 1.5], soft_nms=True, bootstrap=3)
    assert report.numbers == plain.numbers
    variants = {one.name: one for one in report.analysis.comparisons}
    assert list(variants) == ["flip", "scales 0.75 1.5", "flip and scales 0.75 1.5", "soft-NMS"]
    for one in variants.values():
        assert one.is_variant
        assert one.better["ap"].value == pytest.approx(one.numbers["ap"] - report.ap)
    assert variants["flip"].numbers != variants["scales 0.75 1.5"].numbers
    assert "gains with soft-NMS: AP" in str(report)
    assert "--flip --scales 0.75 1.5 --soft-nms --bootstrap 3" in report.analysis.origin.command


def test_evaluate__proposals_hold_what_is_found(detector, tmp_path, photo):
    data = annotated(detector, tmp_path, photo, ("cat", "dog", "owl"))
    recall = evaluate(detector, data, bootstrap=0).analysis.proposals
    assert recall.images == 3
    assert list(recall.ar) == sorted(recall.ar)
    assert 0 < recall.recall50[-1] <= 1
    assert evaluate(detector, data, bootstrap=0, proposals=False).analysis.proposals is None


def test_evaluate__results_of_a_report_give_the_same_numbers(detector, tmp_path, photo):
    data = annotated(detector, tmp_path, photo, ("cat", "dog", "owl"))
    report = evaluate(detector, data, bootstrap=0)
    rows = results_of(report.analysis)
    (tmp_path / "results.json").write_text(json.dumps(rows))
    again = evaluate(None, data, results=tmp_path / "results.json", against=tmp_path / "results.json", bootstrap=2)
    assert again == report
    (difference,) = again.analysis.comparisons
    assert difference.better["ap"].value == 0
    assert "is ahead of" in str(again)
    assert report.analysis.ground_truth.images.files[0] == tmp_path / "0.png"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"results": None}, "give weights, or the results of a detector"),
        ({"results": "r.json", "flip": True}, "flip, scales and soft_nms need weights"),
        ({"results": "r.json", "max_dets": 0}, "max_dets must be at least 1"),
        ({"results": "r.json", "bootstrap": -1}, "bootstrap must be 0 or more"),
        ({"results": "r.json", "scales": [0.01]}, r"a scale must lie in 0.1..10, not 0.01"),
        ({"results": "r.json", "flipp": True}, "no option is called 'flipp'"),
    ],
)
def test_evaluate__options_that_cannot_be(given, message):
    with pytest.raises(UsageError, match=message):
        evaluate(None, [], **given)


def test_evaluate__results_need_no_torch():
    code = "import sys; import fasterrcnn.evaluation.evaluate; sys.exit('torch' in sys.modules)"
    source = Path(fasterrcnn.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(source)}, check=False)
    assert done.returncode == 0


def test_evaluate__ids_as_the_data_set_writes_them(detector, tmp_path, photo):
    data = annotated(detector, tmp_path, photo, ("cat", "dog", "owl"))
    data = data.map(lambda image: replace(image, original_id=f"image {image.image_id}"))
    report = evaluate(detector, data)
    assert report.ar100 == pytest.approx(1.0)
    report.save(tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {row["image_id"] for row in rows} == {"image 1", "image 2", "image 3"}
    assert evaluate(None, data, results=tmp_path / "out").ar100 == pytest.approx(1.0)
