import contextlib
import io
from dataclasses import replace

import numpy as np
import pytest

from fasterrcnn.evaluation.matching import find_pairs, match_detections, match_image, overlap, same_class

BOX, FAR = (10.0, 10.0, 20.0, 20.0), (60.0, 60.0, 20.0, 20.0)


def test_match__an_ignored_object_only_where_no_other_is_free(make_ground_truth, make_predictions):
    ground_truth = make_ground_truth((1, 1, *BOX), (1, 1, 10, 10, 20, 18))
    predictions = make_predictions(ground_truth, (1, 1, 0.9, *BOX), (1, 1, 0.8, *BOX), (1, 1, 0.7, *BOX))
    pairs = same_class(find_pairs(ground_truth, predictions), ground_truth, predictions)
    assert match_detections(pairs, ground_truth.crowd, 3, 0.5).tolist() == [0, 1, -1]
    # The first one overlaps best, but is a crowd.
    crowd = replace(ground_truth, crowd=np.array([True, False]))
    assert match_detections(pairs, crowd.crowd, 3, 0.5).tolist() == [1, 0, 0]


def test_match__crowds_are_never_taken_up(make_ground_truth, make_predictions):
    ground_truth = make_ground_truth((1, 1, 0, 0, 50, 50, 1))
    predictions = make_predictions(ground_truth, (1, 1, 0.9, *BOX), (1, 1, 0.8, *BOX))
    assert match_detections(find_pairs(ground_truth, predictions), ground_truth.crowd, 2, 0.95).tolist() == [0, 0]


def test_overlap__boxes_without_area():
    flat = np.array([[0.0, 0.0, 0.0, 5.0]])
    assert overlap(flat, flat, np.array([False])).tolist() == [0.0]


def test_pairs__many_images_in_chunks(make_ground_truth, make_predictions, monkeypatch):
    rng = np.random.default_rng(0)
    rows = [(rng.integers(1, 9), 1, *rng.uniform(0, 50, 2), *rng.uniform(10, 50, 2)) for _ in range(60)]
    ground_truth = make_ground_truth(*[(int(p), c, *b) for p, c, *b in rows[:25]], images=8)
    predictions = make_predictions(ground_truth, *[(int(p), c, 0.5, *b) for p, c, *b in rows[25:]])
    whole = find_pairs(ground_truth, predictions)
    monkeypatch.setattr("fasterrcnn.evaluation.matching._CHUNK", 7)
    parts = find_pairs(ground_truth, predictions)
    assert len(whole.objects) > 20
    for name in ("detections", "objects", "overlaps"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))


OBJECT = [10, 10, 30, 30]
HALF = [10, 10, 30, 20]  # IoU 0.5 with the object
LESS = [10, 10, 30, 19]
AWAY = [60, 60, 80, 80]


def match(predicted, ground_truth) -> list[int]:
    """Rows of (box, label) and of (box, label, difficult)."""
    found = match_image(
        np.array([box for box, _ in predicted], np.float32).reshape(-1, 4),
        np.array([label for _, label in predicted], np.int64),
        np.array([box for box, _, _ in ground_truth], np.float32).reshape(-1, 4),
        np.array([label for _, label, _ in ground_truth], np.int64),
        np.array([difficult for _, _, difficult in ground_truth], np.bool_),
    )
    return found.tolist()


@pytest.mark.parametrize(
    ("predicted", "ground_truth", "expected"),
    [
        ([], [], []),
        ([], [(OBJECT, 0, False)], []),
        ([(OBJECT, 0)], [], [-1]),
        ([(OBJECT, 0)], [(OBJECT, 0, False)], [0]),
        ([(OBJECT, 1)], [(OBJECT, 0, False)], [-1]),  # another class
        ([(AWAY, 0)], [(OBJECT, 0, False)], [-1]),
        ([(HALF, 0)], [(OBJECT, 0, False)], [0]),
        ([(LESS, 0)], [(OBJECT, 0, False)], [-1]),
        ([(HALF, 0), (OBJECT, 0)], [(OBJECT, 0, False)], [0, -1]),  # the better score comes first
        ([(OBJECT, 0), (AWAY, 0)], [(AWAY, 0, False), (OBJECT, 0, False)], [1, 0]),
        ([(OBJECT, 0)], [(HALF, 0, False), (OBJECT, 0, False)], [1]),  # the larger overlap
        ([(OBJECT, 0), (OBJECT, 0)], [(HALF, 0, False), (OBJECT, 0, False)], [1, 0]),  # then what is left
    ],
)
def test_match_image__greedy(predicted, ground_truth, expected):
    assert match(predicted, ground_truth) == expected


@pytest.mark.parametrize(
    ("predicted", "ground_truth", "expected"),
    [
        ([(OBJECT, 0), (OBJECT, 0)], [(OBJECT, 0, True)], [0, 0]),  # any number
        ([(OBJECT, 1)], [(OBJECT, 0, True)], [-1]),
        ([(OBJECT, 0)], [(HALF, 0, False), (OBJECT, 0, True)], [0]),  # an object that counts comes first
        ([(OBJECT, 0), (OBJECT, 0)], [(OBJECT, 0, True), (OBJECT, 0, False)], [1, 0]),
        ([(OBJECT, 0)], [([0, 0, 100, 100], 0, True)], [0]),  # one of a crowd
        ([(OBJECT, 0)], [(HALF, 0, True)], [0]),  # half of it is inside
        ([(OBJECT, 0)], [(LESS, 0, True)], [-1]),
    ],
)
def test_match_image__difficult(predicted, ground_truth, expected):
    assert match(predicted, ground_truth) == expected


def test_match_image__box_without_area():
    assert match([([10, 10, 10, 10], 0)], [([10, 10, 10, 10], 0, False), (OBJECT, 0, True)]) == [-1]


@pytest.mark.parametrize("seed", range(5))
def test_match_image__as_pycocotools(seed):
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    rng = np.random.default_rng(seed)
    ground_truth, predicted = (np.sort(rng.uniform(0, 40, (count, 2, 2)), axis=1).reshape(-1, 4) for count in (15, 40))
    labels, predicted_labels = rng.integers(0, 2, 15), rng.integers(0, 2, 40)
    difficult = rng.random(15) < 0.3
    rows = [
        {"id": i + 1, "image_id": 1, "category_id": label, "bbox": xywh(box), "iscrowd": crowd, "area": 1.0}
        for i, (box, label, crowd) in enumerate(
            zip(ground_truth, labels.tolist(), difficult.astype(int).tolist(), strict=True)
        )
    ]
    results = [
        {"image_id": 1, "category_id": label, "bbox": xywh(box), "score": 1 - i / 100}
        for i, (box, label) in enumerate(zip(predicted, predicted_labels.tolist(), strict=True))
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        data = coco.COCO()
        data.dataset = {"images": [{"id": 1}], "annotations": rows, "categories": [{"id": 0}, {"id": 1}]}
        data.createIndex()
        evaluation = cocoeval.COCOeval(data, data.loadRes(results), "bbox")
        evaluation.params.iouThrs = np.array([0.5])
        evaluation.params.areaRng = [[0, 1e10]]
        evaluation.evaluate()
    expected = np.full(40, -1)
    for image in evaluation.evalImgs:
        expected[np.array(image["dtIds"]) - 1] = image["dtMatches"][0] - 1
    boxes = (predicted.astype(np.float32), predicted_labels, ground_truth.astype(np.float32), labels, difficult)
    assert match_image(*boxes).tolist() == expected.tolist()
    assert (expected >= 0).any()


def xywh(box) -> list[float]:
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]
