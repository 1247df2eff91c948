import numpy as np
import pytest

from fasterrcnn.evaluation.matching import find_pairs
from fasterrcnn.evaluation.metrics.curves import best_point, measure_calibration
from fasterrcnn.evaluation.metrics.error_kinds import classify_errors

BOX, FAR = (10.0, 10.0, 20.0, 20.0), (60.0, 60.0, 20.0, 20.0)


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
