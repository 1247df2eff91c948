import pytest

from fasterrcnn.evaluation.metrics.average_precision import pascal_numbers

BOX, FAR = (10.0, 10.0, 20.0, 20.0), (60.0, 60.0, 20.0, 20.0)


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
