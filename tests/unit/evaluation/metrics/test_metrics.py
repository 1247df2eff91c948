"""Confusions, calibration, curves, slices, Pascal VOC and proposals against cases by hand."""

from dataclasses import replace

import numpy as np
import pytest

from fasterrcnn.evaluation.matching import find_pairs, match_detections, overlap, same_class
from fasterrcnn.evaluation.metrics.average_precision import pascal_numbers
from fasterrcnn.evaluation.metrics.curves import best_point, measure_calibration
from fasterrcnn.evaluation.metrics.error_kinds import classify_errors, count_confusions
from fasterrcnn.evaluation.metrics.proposal_recall import measure_proposals
from fasterrcnn.evaluation.metrics.slices import slice_by_size

BOX, FAR = (10.0, 10.0, 20.0, 20.0), (60.0, 60.0, 20.0, 20.0)


def confusion(ground_truth, predictions, **options):
    return count_confusions(ground_truth, predictions, find_pairs(ground_truth, predictions), **options).matrix.tolist()


def test_confusion__by_hand(make_ground_truth, make_predictions):
    ground_truth = make_ground_truth((1, 1, *BOX), (1, 2, *FAR), (2, 1, *BOX))
    predictions = make_predictions(
        ground_truth, (1, 2, 0.9, *BOX), (1, 2, 0.8, *FAR), (1, 1, 0.7, *FAR), (2, 2, 0.6, *FAR)
    )
    # Cat 1 is taken for a dog, the dog is right, cat 2 is missed; two detections find nothing that is free.
    assert confusion(ground_truth, predictions) == [[0, 1, 1], [0, 1, 0], [1, 1, 0]]
    assert confusion(ground_truth, predictions, score=0.85) == [[0, 1, 1], [0, 0, 1], [0, 0, 0]]


def test_confusion__of_equal_overlaps_the_own_class(make_ground_truth, make_predictions):
    ground_truth = make_ground_truth((1, 1, *BOX), (1, 2, *BOX))
    assert confusion(ground_truth, make_predictions(ground_truth, (1, 1, 0.9, *BOX))) == [
        [1, 0, 0],
        [0, 0, 1],
        [0, 0, 0],
    ]
    assert confusion(ground_truth, make_predictions(ground_truth, (1, 2, 0.9, *BOX))) == [
        [0, 0, 1],
        [0, 1, 0],
        [0, 0, 0],
    ]


def test_confusion__crowds(make_ground_truth, make_predictions):
    ground_truth = make_ground_truth((1, 1, 0, 0, 50, 50, 1))
    # A cat in a crowd of cats is not counted; a dog there is a mistake.
    assert confusion(ground_truth, make_predictions(ground_truth, (1, 1, 0.9, *BOX), (1, 2, 0.8, *BOX))) == [
        [0, 0, 0],
        [0, 0, 0],
        [0, 1, 0],
    ]


@pytest.mark.parametrize("images", [0, 2])
def test_confusion__nothing(make_ground_truth, make_predictions, images):
    ground_truth = make_ground_truth(images=images)
    assert confusion(ground_truth, make_predictions(ground_truth)) == [[0] * 3] * 3


def calibration(ground_truth, predictions):
    return measure_calibration(
        ground_truth, predictions, classify_errors(ground_truth, predictions, find_pairs(ground_truth, predictions))
    )


def test_calibration__by_hand(make_ground_truth, make_predictions):
    ground_truth = make_ground_truth((1, 1, *BOX), (2, 1, *BOX))
    predictions = make_predictions(ground_truth, (1, 1, 1.0, *BOX), (2, 1, 0.95, *FAR), (2, 2, 0.25, *FAR))
    measured = calibration(ground_truth, predictions)
    # Last bin: mean score .975, half of them right; third: .25 and none.
    assert measured.ece == pytest.approx((2 * 0.475 + 0.25) / 3)
    assert measured.mce == pytest.approx(0.475)
    assert measured.per_class == pytest.approx({"cat": 0.475, "dog": 0.25})
    assert measured.counts.tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0, 2]


def test_calibration__scores_beyond_one_count_in_the_outer_bins(make_ground_truth, make_predictions):
    ground_truth = make_ground_truth((1, 1, *BOX))
    assert calibration(
        ground_truth, make_predictions(ground_truth, (1, 1, 7.5, *BOX), (1, 1, -3, *FAR))
    ).counts.tolist() == [
        1,
        *[0] * 8,
        1,
    ]


def test_best_point__equal_scores_are_not_parted():
    scores, right = np.array([0.9, 0.5, 0.5, 0.5]), np.array([True, True, False, False])
    # Two of .5 wrong: F1 at .5 is 2 * 2 / (4 + 3), at .9 it is 2 * 1 / (1 + 3).
    point = best_point(scores, right, 3)
    assert (point.score, point.f1, point.precision, point.recall) == pytest.approx((0.5, 4 / 7, 0.5, 2 / 3))


@pytest.mark.parametrize(("scores", "objects"), [([], 3), ([0.5], 0)])
def test_best_point__nothing(scores, objects):
    assert best_point(np.array(scores, np.float64), np.ones(len(scores), np.bool_), objects) is None


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


def test_slices__a_mistake_counts_where_it_belongs(make_ground_truth, make_predictions, report_of):
    ground_truth = make_ground_truth((1, 1, 0, 0, 20, 20), (2, 1, 0, 0, 50, 50), images=3)
    predictions = make_predictions(
        ground_truth, (3, 1, 0.95, 0, 0, 50, 50), (1, 1, 0.9, 0, 0, 20, 20), (2, 1, 0.8, 0, 0, 50, 50)
    )
    analysis = report_of(ground_truth, predictions).analysis
    by_size = {one.name: (one.objects, one.ap) for one in analysis.by_size}
    assert by_size == {"16 to 32 px": (1, pytest.approx(1.0)), "32 to 64 px": (1, pytest.approx(0.5))}
    # Image 3 has no object, so that its mistake belongs to no number of objects.
    assert [(one.name, one.images, one.ap) for one in analysis.by_count] == [("1 object", 2, pytest.approx(1.0))]
    assert [(one.name, one.objects) for one in analysis.by_aspect] == [("2:3 to 3:2", 2)]


def test_slices__an_object_of_another_slice_only_where_no_other_is_free(make_ground_truth, make_predictions):
    ground_truth = make_ground_truth((1, 1, 0, 0, 34, 34), (1, 1, 0, 0, 30, 30))
    predictions = make_predictions(ground_truth, *[(1, 1, score, 0, 0, 34, 34) for score in (0.9, 0.8, 0.7)])
    # The larger one is overlapped best by all; among the small ones it is not asked for: the first detection takes the
    # other one, with IoU 900/1156 = .78, and the second takes it. The third is no mistake, it is itself too large.
    small, large = slice_by_size(ground_truth, predictions)
    assert (small.ap50, small.ap, small.recall) == pytest.approx((1, 0.6, 0.6))
    assert (large.ap50, large.ap, large.recall) == pytest.approx((1, 1, 1))
    # For a detection that is itself small, matching nothing is a mistake.
    predictions = make_predictions(ground_truth, (1, 1, 0.9, 50, 50, 20, 20), (1, 1, 0.8, 0, 0, 30, 30))
    assert slice_by_size(ground_truth, predictions)[0].ap50 == pytest.approx(0.5)


def test_slices__coco_sizes_add_up(make_ground_truth, make_predictions, report_of):
    rng = np.random.default_rng(1)
    boxes = [(1 + i % 4, 1 + i % 2, *rng.uniform(0, 200, 2), *rng.uniform(10, 150, 2)) for i in range(60)]
    ground_truth = make_ground_truth(*boxes, images=4, size=(400, 400))
    predictions = make_predictions(
        ground_truth, *[(p, c, rng.uniform(), *np.add(b, rng.normal(0, 3, 4))) for p, c, *b in boxes]
    )
    report = report_of(ground_truth, predictions)
    counts = sum(one.objects for one in report.analysis.by_size)
    assert counts == sum(one.objects for one in report.analysis.by_aspect) == report.objects == 60


def test_pascal__inclusive_pixels(make_ground_truth, make_predictions):
    # 10 x 10 and 10 x 5 pixels, corners 0..9 and 0..4: IoU 50/100 = .5 with pixels, 36/81 = .44 without.
    ground_truth = make_ground_truth((1, 1, 0, 0, 9, 9))
    predictions = make_predictions(ground_truth, (1, 1, 0.9, 0, 0, 9, 4))
    assert pascal_numbers(ground_truth, predictions).ap == 0
    measured = pascal_numbers(ground_truth, predictions, inclusive=True)
    assert (measured.ap, measured.ap11) == (pytest.approx(1.0), pytest.approx(1.0))
    assert measured.per_class["dog"] == {"ap11": None, "ap": None}


def test_pascal__difficult_objects_and_duplicates(make_ground_truth, make_predictions):
    ground_truth = make_ground_truth((1, 1, *BOX), (1, 1, *FAR, 1))
    predictions = make_predictions(ground_truth, (1, 1, 0.9, *FAR), (1, 1, 0.8, *BOX), (1, 1, 0.7, *BOX))
    # The difficult one counts neither way; the duplicate is behind.
    assert pascal_numbers(ground_truth, predictions).ap == pytest.approx(1.0)
    predictions = make_predictions(ground_truth, (1, 1, 0.9, 10, 10, 20, 5), (1, 1, 0.8, *BOX))
    assert pascal_numbers(ground_truth, predictions).ap == pytest.approx(0.5)


def test_proposals__by_hand(make_ground_truth):
    ground_truth = make_ground_truth((1, 1, *BOX), (1, 2, *FAR), (2, 1, 0, 0, 50, 50, 1), (2, 2, *BOX))
    xyxy = np.array([[10.0, 10, 30, 30]])
    other = np.array([[60.0, 60, 80, 80]])
    noise = np.tile([[0.0, 80, 5, 85]], (150, 1))
    measured = measure_proposals(ground_truth, [0, 1], [np.concatenate([xyxy, noise, other]), xyxy[:0]])
    # The dog of image 1 needs proposal 152; that of image 2 is out of reach; the crowd is not asked for.
    assert measured.ar == pytest.approx((1 / 3, 2 / 3, 2 / 3))
    assert measured.recall50 == pytest.approx((1 / 3, 2 / 3, 2 / 3))
    assert measured.per_class == pytest.approx({"cat": 1.0, "dog": 0.5})
    assert measured.per_size == {"small": pytest.approx(2 / 3), "medium": None, "large": None}
    assert measured.unreached.tolist() == [3]
    assert measure_proposals(ground_truth, [0], [xyxy]).ar == pytest.approx((0.5, 0.5, 0.5))


def test_proposals__one_reaches_one_object(make_ground_truth):
    ground_truth = make_ground_truth((1, 1, *BOX), (1, 1, *BOX))
    measured = measure_proposals(ground_truth, [0], [np.array([[10.0, 10, 30, 30]])])
    assert measured.ar[0] == pytest.approx(0.5)
    assert measured.unreached.size == 0


def test_proposals__nothing(make_ground_truth):
    assert measure_proposals(make_ground_truth(), [], []).ar == (None, None, None)


def test_report__with_other_scores_only_the_order_counts(make_ground_truth, make_predictions, report_of):
    ground_truth = make_ground_truth((1, 1, *BOX), (2, 2, *FAR))
    predictions = make_predictions(ground_truth, (1, 1, 5.0, *BOX), (2, 2, 3.0, *BOX))
    report = report_of(ground_truth, predictions)
    same = report_of(ground_truth, replace(predictions, scores=predictions.scores / 10))
    assert report.numbers == same.numbers
