import numpy as np
import pytest

from fasterrcnn.errors import UsageError
from fasterrcnn.evaluation.matching import find_pairs, same_class
from fasterrcnn.evaluation.metrics.average_precision import rank_matches
from fasterrcnn.evaluation.metrics.bootstrap import compare_paired, draw, estimate

BOX, FAR = (10.0, 10.0, 20.0, 20.0), (60.0, 60.0, 20.0, 20.0)


def ranking(ground_truth, predictions):
    return rank_matches(
        ground_truth, predictions, same_class(find_pairs(ground_truth, predictions), ground_truth, predictions)
    )


@pytest.fixture(scope="module")
def half(make_ground_truth, make_predictions):
    """Forty images with a cat each, of which every second is found."""
    ground_truth = make_ground_truth(*[(i, 1, *BOX) for i in range(1, 41)], images=40)
    return ground_truth, make_predictions(ground_truth, *[(i, 1, 0.9, *BOX) for i in range(1, 41, 2)])


def test_bootstrap__holds_the_number_and_knows_the_spread(half):
    ground_truth, predictions = half
    drawn = draw(ranking(ground_truth, predictions), 40, 400, seed=0)
    measured = estimate(drawn, ground_truth.classes)
    ap = measured.numbers["ap"]
    assert ap.value == pytest.approx(51 / 101)
    assert ap.low < ap.value < ap.high
    # A share of 40 draws at .5 has a standard deviation of .079; AP follows it.
    assert drawn[1:, 0].std() == pytest.approx(0.079, abs=0.015)
    assert ap.high - ap.low == pytest.approx(2 * 1.96 * 0.079, abs=0.06)
    assert set(measured.per_class) == {"cat"}  # there is no dog
    assert measured.samples == 400


def test_bootstrap__equal_seeds_draw_equal_images(half):
    one, two, other = (draw(ranking(*half), 40, 5, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


def test_bootstrap__paired_difference_is_sharper_than_two_intervals(half, make_predictions):
    ground_truth, predictions = half
    # The other one misses a single image that this one finds.
    other = predictions.take(np.arange(len(predictions)) != 3)
    ours, theirs = (draw(ranking(ground_truth, f), 40, 300, 0) for f in (predictions, other))
    comparison = compare_paired("other", ours, theirs, ({"ap": None}, {"cat": {}, "dog": {}}))
    difference = comparison.better["ap"]
    assert difference.value == pytest.approx(51 / 101 - 48 / 101)  # 19 of 40: 48 recalls up to .475
    assert 0 <= difference.low <= difference.value <= difference.high < 0.12
    single = estimate(ours, ground_truth.classes).numbers["ap"]
    assert difference.high - difference.low < (single.high - single.low) / 2
    assert compare_paired("x", ours, theirs, ({}, {"cat": {}, "dog": {}}), is_variant=True).better["ap"].value < 0


def test_bootstrap__the_same_detections_differ_by_nothing(half):
    drawn = draw(ranking(*half), 40, 20, 0)
    same = compare_paired("same", drawn, drawn, ({}, {"cat": {}, "dog": {}})).better["ap"]
    assert (same.value, same.low, same.high) == (0, 0, 0)


@pytest.mark.parametrize("images", [0, 2])
def test_bootstrap__nothing(make_ground_truth, make_predictions, images):
    ground_truth = make_ground_truth(images=images)
    measured = estimate(draw(ranking(ground_truth, make_predictions(ground_truth)), images, 3, 0), ground_truth.classes)
    assert (measured.numbers, measured.per_class) == ({}, {})


def test_bootstrap__fewer_than_no_samples(half):
    with pytest.raises(UsageError, match="cannot draw -1 samples"):
        draw(ranking(*half), 40, -1, 0)
