import contextlib
import io
import json
import math

import numpy as np
import pytest

from fasterrcnn.errors import DataError
from fasterrcnn.evaluation.report import Report, score_detections

CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 5, "name": "dog"}]
NUMBERS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
RECALLS = ("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large")


def ground_truth(*boxes, images=(1, 2), crowds=()) -> dict:
    """COCO ground truth from (image, category, left, top, width, height)."""
    annotations = [
        {
            "id": number,
            "image_id": image,
            "category_id": category,
            "bbox": list(box),
            "area": box[2] * box[3],
            "iscrowd": int(number in crowds),
        }
        for number, (image, category, *box) in enumerate(boxes, start=1)
    ]
    return {
        "images": [{"id": i, "width": 640, "height": 480} for i in images],
        "annotations": annotations,
        "categories": CATEGORIES,
    }


def results(*rows) -> list[dict]:
    """COCO results from (image, category, left, top, width, height, score)."""
    return [{"image_id": i, "category_id": c, "bbox": list(box), "score": s} for i, c, *box, s in rows]


SMALL, LARGE = (10.0, 10.0, 20.0, 20.0), (100.0, 100.0, 200.0, 200.0)


@pytest.fixture(scope="module")
def official(shared_data):
    folder = shared_data / "coco_eval"
    annotations = json.loads((folder / "instances_val2014_100.json").read_text())
    predictions = json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text())
    return annotations, predictions


@pytest.fixture(scope="module")
def report(official) -> Report:
    return score_detections(*official)


def test_score__the_official_numbers(report):
    expected = (
        (0.5045806987, 0.6969727247, 0.5729816670, 0.5856257209, 0.5193996948, 0.5013978986),
        (0.3868127796, 0.5936795763, 0.5953529829, 0.6398109626, 0.5664205979, 0.5642905983),
    )
    for names, values in zip((NUMBERS, RECALLS), expected, strict=True):
        for name, value in zip(names, values, strict=True):
            assert getattr(report, name) == pytest.approx(value, abs=1e-9)
    assert (report.images, report.objects) == (100, 830)


def test_score__per_class_as_pycocotools(official, report):
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    annotations, predictions = official
    with contextlib.redirect_stdout(io.StringIO()):
        oracle = coco.COCO()
        oracle.dataset = annotations
        oracle.createIndex()
        evaluation = cocoeval.COCOeval(oracle, oracle.loadRes(predictions), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"]
    names = {category["id"]: category["name"] for category in annotations["categories"]}
    assert set(report.per_class) == set(names.values())
    for k, category in enumerate(evaluation.params.catIds):
        for key, values in (("ap", precision[:, :, k, 0, -1]), ("ap50", precision[0, :, k, 0, -1])):
            valid = values[values > -1]
            expected = float(np.mean(valid)) if valid.size else None
            assert report.per_class[names[category]][key] == pytest.approx(expected, abs=1e-12)


def test_score__perfect_detector():
    wanted = ground_truth((1, 1, *SMALL), (2, 5, *LARGE))
    report = score_detections(wanted, results((1, 1, *SMALL, 0.9), (2, 5, *LARGE, 0.5)))
    assert (report.ap, report.ap50, report.ap75, report.ap_small, report.ap_large) == pytest.approx((1.0,) * 5)
    assert report.ap_medium is None
    assert report.ar_medium is None
    assert report.per_class["dog"] == pytest.approx({"ap": 1.0, "ap50": 1.0})


def test_score__half_by_hand():
    # One of two cats is found, with no mistake: precision 1 up to recall 0.5, which is 51 of 101 points.
    report = score_detections(ground_truth((1, 1, *LARGE), (2, 1, *LARGE)), results((1, 1, *LARGE, 0.9)))
    assert report.ap == pytest.approx(51 / 101)
    assert report.ar100 == pytest.approx(0.5)
    assert report.per_class["dog"] == {"ap": None, "ap50": None}


def test_score__iou_thresholds_by_hand():
    # Shifted by a tenth of the width: IoU 180 / 220 = 0.818 is good for 7 of 10 thresholds.
    shifted = (120.0, 100.0, 200.0, 200.0)
    report = score_detections(ground_truth((1, 1, *LARGE)), results((1, 1, *shifted, 0.9)))
    assert report.ap == pytest.approx(0.7)
    assert (report.ap50, report.ap75) == pytest.approx((1.0, 1.0))


def test_score__crowds_count_neither_way():
    wanted = ground_truth((1, 1, *LARGE), (2, 1, *LARGE), crowds=(2,))
    report = score_detections(wanted, results((1, 1, *LARGE, 0.9), (2, 1, *LARGE, 0.95)))
    assert report.ap == pytest.approx(1.0)
    assert report.objects == 1


def test_score__no_results():
    report = score_detections(ground_truth((1, 1, *SMALL)), [])
    assert (report.ap, report.ap50, report.ap_small, report.ar100) == (0.0, 0.0, 0.0, 0.0)
    assert report.ap_large is None
    assert report.objects == 1


def test_score__images_without_annotations():
    wanted = ground_truth((1, 1, *LARGE), images=(1, 2, 3))
    right = results((1, 1, *LARGE, 0.5))
    assert score_detections(wanted, right).ap == pytest.approx(1.0)
    # A mistake with a higher score on an empty image: precision 1/2 everywhere.
    assert score_detections(wanted, [*right, *results((3, 1, *LARGE, 0.9))]).ap == pytest.approx(0.5)


@pytest.mark.parametrize("predictions", [[], results((1, 1, *LARGE, 0.5))])
def test_score__nothing_to_find(predictions):
    report = score_detections(ground_truth(), predictions)
    assert all(getattr(report, name) is None for name in (*NUMBERS, *RECALLS))
    assert report.objects == 0
    assert "n/a" in str(report)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((9, 1, *LARGE, 0.5), "result 0: image_id 9 is not in the data set"),
        ((1, 2, *LARGE, 0.5), "result 0: category_id 2 is not in the data set"),
        (
            (1, 1, math.nan, 1.0, 2.0, 3.0, 0.5),
            r"result 0 of image 1 is not finite, or beyond any image: \[nan, 1.0, 2.0, 3.0\], 0.5",
        ),
        ((1, 1, 1.0, 1.0, math.inf, 3.0, 0.5), "result 0 of image 1 is not finite"),
        ((1, 1, *LARGE, math.nan), "result 0 of image 1 is not finite"),
    ],
)
def test_score__results_that_cannot_be(row, message):
    with pytest.raises(DataError, match=message):
        score_detections(ground_truth((1, 1, *LARGE)), results(row))


def test_score__leaves_its_input_alone_and_is_silent(capfd):
    wanted, predictions = ground_truth((1, 1, *LARGE)), results((1, 1, *LARGE, 0.9))
    before = json.dumps([wanted, predictions])
    score_detections(wanted, predictions)
    assert json.dumps([wanted, predictions]) == before
    assert capfd.readouterr() == ("", "")


def test_report__text():
    text = str(score_detections(ground_truth((1, 1, *SMALL)), results((1, 1, *SMALL, 0.9))))
    lines = text.splitlines()
    assert lines[0] == "2 images, 1 objects"
    assert lines[1].split()[-1] == "1.000"
    assert any(line.startswith("AP  large") and line.rstrip().endswith("n/a") for line in lines)
    assert [line.split() for line in lines[-2:]] == [["cat", "1.000", "1.000"], ["dog", "n/a", "n/a"]]
    assert len(lines) == 1 + 12 + 1 + 2


def test_report__save(tmp_path):
    report = score_detections(ground_truth((1, 1, *SMALL)), [])
    report.save(tmp_path / "report.json")
    saved = json.loads((tmp_path / "report.json").read_text())
    assert saved == report.to_dict()
    assert saved["ap_large"] is None
    assert saved["per_class"]["dog"] == {"ap": None, "ap50": None}
