"""Planted mistakes are named."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fasterrcnn.errors import DataError
from fasterrcnn.evaluation.diagnoses import NAMES
from fasterrcnn.evaluation.ground_truth import read_results

CLASSES = ("cat", "dog", "owl", "bee")


@pytest.fixture(scope="module")
def planted(make_ground_truth, make_predictions):
    """Twelve images of 640 x 480 with five objects each, and a detector that is a few pixels off."""
    rng = np.random.default_rng(0)
    objects = [
        (image, 1 + (image + i) % 4, *rng.uniform(0, [560, 400]), *rng.uniform(40, 80, 2))
        for image in range(1, 13)
        for i in range(5)
    ]
    ground_truth = make_ground_truth(*objects, images=13, classes=CLASSES, size=(480, 640))
    predictions = [(p, c, rng.uniform(0.5, 1), *(np.array(box) + rng.normal(0, 2, 4))) for p, c, *box in objects]
    predictions += [(p, c, 0.3, *rng.uniform(0, 400, 2), 50, 50) for p, c, *_ in objects[:20]]
    return ground_truth, make_predictions(ground_truth, *predictions)


def named(report, *, mistakes: bool = True) -> dict[str, str]:
    return {d.name: d.text for d in report.analysis.diagnoses if d.is_mistake or not mistakes}


def test_diagnoses__a_good_detector_has_none(planted, report_of):
    assert named(report_of(*planted)) == {}


def corners(x):
    return np.concatenate([x[:, :2], x[:, :2] + x[:, 2:]], axis=1)


@pytest.mark.parametrize(
    ("name", "message", "change"),
    [
        ("boxes-xyxy-for-xywh", "are xyxy", corners),
        ("boxes-xywh-for-xyxy", "as if they were xyxy", lambda x: np.concatenate([x[:, :2], x[:, 2:] - x[:, :2]], 1)),
        ("boxes-by-centre", "centres", lambda x: np.concatenate([x[:, :2] + x[:, 2:] / 2, x[:, 2:]], axis=1)),
        ("boxes-axes-swapped", "exchanged", lambda x: x[:, [1, 0, 3, 2]]),
        ("boxes-normalised", "shares", lambda x: x / [640, 480, 640, 480]),
        ("boxes-at-network-scale", r"divided by 0\.66[67]\.", lambda x: x * 320 / 480),
        ("boxes-at-network-scale", r"divided by 1\.6[67]\.", lambda x: x * 800 / 480),
        ("boxes-at-network-scale", "square of 51[123] pixels", lambda x: x * np.array([512 / 640, 512 / 480] * 2)),
    ],
)
def test_diagnoses__boxes(planted, report_of, name, message, change):
    ground_truth, predictions = planted
    report = report_of(ground_truth, replace(predictions, xywh=change(predictions.xywh)))
    assert report.ap50 < 0.3
    ((logged, text),) = named(report).items()
    assert logged == name
    assert re.search(message, text)
    assert "of the objects would then be found" in text


def test_diagnoses__network_scale_of_images_of_different_sizes(planted, report_of):
    ground_truth, predictions = planted
    sizes = ground_truth.images.sizes_hw.copy()
    sizes[::2] = (960, 720)
    ground_truth = replace(ground_truth, images=replace(ground_truth.images, sizes_hw=sizes))
    factor = 320 / sizes.min(axis=1)[predictions.owners]
    text = named(report_of(ground_truth, replace(predictions, xywh=predictions.xywh * factor[:, None])))[
        "boxes-at-network-scale"
    ]
    assert re.search(r"short side of 3(19|20|21) pixels", text)


def test_diagnoses__permuted_classes(planted, report_of):
    ground_truth, predictions = planted
    report = report_of(ground_truth, replace(predictions, labels=np.array([2, 0, 1, 3])[predictions.labels]))
    ((logged, text),) = named(report).items()
    assert logged == "classes-permuted"
    assert "cat means dog, dog means owl, owl means cat" in text


def test_diagnoses__category_ids_off_by_one_that_all_exist(planted, report_of):
    ground_truth, predictions = planted
    shifted = replace(predictions, labels=predictions.labels + 1).take(predictions.labels < 3)
    text = named(report_of(ground_truth, shifted))["ids-off-by-one"]
    assert "category ids" in text
    assert "1 has to be subtracted" in text


def test_diagnoses__image_ids_off_by_one_that_all_exist(planted, report_of):
    ground_truth, predictions = planted
    text = named(report_of(ground_truth, replace(predictions, owners=predictions.owners + 1)))["ids-off-by-one"]
    assert "image ids" in text
    assert "1 has to be subtracted" in text


@pytest.mark.parametrize(
    ("image", "category", "message"),
    [
        (1, 0, "ids seem off by one; add 1 to each category_id"),
        (0, 1, "ids seem off by one; add 1 to each image_id"),
        (14, 1, "ids seem off by one; subtract 1 from each image_id"),
        (1, 90, "they have none in common"),
    ],
)
def test_reading__ids_that_do_not_exist(planted, image, category, message):
    with pytest.raises(DataError, match=message):
        read_results(planted[0], [{"image_id": image, "category_id": category, "bbox": [0, 0, 1, 1], "score": 1}])


def test_diagnoses__notes(make_ground_truth, make_predictions, report_of):
    ground_truth = make_ground_truth((1, 1, 10, 10, 20, 20), (1, 2, 60, 60, 20, 20), classes=("cat", "dog", "owl"))
    notes = named(
        report_of(ground_truth, make_predictions(ground_truth, (1, 1, 0.2, 10, 10, 20, 20)), max_dets=1), mistakes=False
    )
    assert "the highest is 0.2" in notes["scores-under-threshold"]
    assert "No detection of dog" in notes["class-never-detected"]
    assert "No object of owl" in notes["class-without-objects"]
    assert "1 image holds more objects than the 1 detections" in notes["more-objects-than-detections"]
    assert "No object is large" in notes["no-ground-truth-of-size"]


def test_diagnoses__equal_scores(make_ground_truth, make_predictions, report_of):
    ground_truth = make_ground_truth((1, 1, 10, 10, 20, 20))
    predictions = make_predictions(ground_truth, (1, 1, 0.7, 10, 10, 20, 20), (2, 1, 0.7, 10, 10, 20, 20))
    assert "scores-all-equal" in named(report_of(ground_truth, predictions), mistakes=False)


@pytest.mark.parametrize(("threshold", "name"), [(None, "no-detections"), (0.05, "scores-under-threshold")])
def test_diagnoses__no_detections(make_ground_truth, make_predictions, report_of, threshold, name):
    ground_truth = make_ground_truth((1, 1, 10, 10, 20, 20))
    assert name in named(report_of(ground_truth, make_predictions(ground_truth), score_threshold=threshold))


def test_diagnoses__no_objects(make_ground_truth, make_predictions, report_of):
    ground_truth = make_ground_truth((1, 1, 10, 10, 20, 20, 1))
    assert set(named(report_of(ground_truth, make_predictions(ground_truth, (1, 1, 0.5, 60, 60, 20, 20))))) == {
        "no-objects"
    }


def test_diagnoses__are_all_explained_in_the_docs():
    text = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"`{name}`" not in text] == []
