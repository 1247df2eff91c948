import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasterrcnn.evaluation.page import mistakes
from fasterrcnn.evaluation.page.mistakes import choose_examples, classes_in_error, count_errors, worst_images


def test_count_errors__by_hand(five):
    """At .70: image 5 has a false positive of .95, 3 a duplicate of .75; 2 misses a dog, 4 both cats."""
    errors = count_errors(five.analysis)
    assert errors.score == pytest.approx(0.7)
    np.testing.assert_allclose(errors.cost, [0, 1, 0.75, 2, 0.95])
    assert errors.false_positives.tolist() == [0, 0, 1, 0, 1]
    assert errors.misses.tolist() == [0, 1, 0, 2, 0]
    assert errors.confusions.tolist() == [0, 0, 0, 0, 0]
    assert classes_in_error(five.analysis, errors) == {1: [1], 2: [1], 3: [0], 4: [0]}


def test_count_errors__a_confused_object_is_not_missed_as_well(make_ground_truth, make_predictions, report_of):
    ground_truth = make_ground_truth((1, 1, 0, 0, 50, 50), (1, 1, 60, 60, 30, 30))
    predictions = make_predictions(ground_truth, (1, 2, 0.9, 0, 0, 50, 50), (1, 1, 0.9, 60, 60, 30, 30))
    errors = count_errors(report_of(ground_truth, predictions).analysis)
    assert (errors.confusions[0], errors.misses[0], errors.false_positives[0]) == (1, 0, 0)
    assert errors.cost[0] == pytest.approx(1.9)


def test_worst_images__every_class_has_one(make_ground_truth, make_predictions, report_of, monkeypatch):
    """Class 2 has its only error in the cheapest image, which would not be among the first two."""
    monkeypatch.setattr(mistakes, "FIRST_IMAGES", 2)
    objects = [(image, 1, 20 * n, 0, 10, 10) for image in (1, 2, 3) for n in range(4 - image + 1)]
    ground_truth = make_ground_truth(*objects, (4, 2, 0, 0, 10, 10), images=5)
    analysis = report_of(ground_truth, make_predictions(ground_truth)).analysis
    errors, every = count_errors(analysis), np.ones(5, bool)
    assert worst_images(analysis, errors, every) == [0, 1, 3]
    every[0] = False
    assert worst_images(analysis, errors, every) == [1, 2, 3]
    monkeypatch.setattr(mistakes, "MAX_IMAGES", 2)
    assert worst_images(analysis, errors, every) == [1, 2]


def test_choose_examples__missing_images_have_none(five):
    galleries = choose_examples(five.analysis, np.zeros(5, bool))
    assert not any(galleries.values())


@given(st.lists(st.integers(0, 4), max_size=60))
def test_choose__the_first_and_some_of_each_class(labels):
    labels = np.array(labels, np.int64)
    ranked = np.arange(len(labels)) + 100
    chosen = mistakes._choose(ranked, labels)
    assert chosen == sorted(chosen)
    assert chosen[: mistakes.FIRST_EXAMPLES] == ranked[: mistakes.FIRST_EXAMPLES].tolist()
    for label in set(labels.tolist()):
        of_class = ranked[labels == label][: mistakes.EXAMPLES_OF_CLASS].tolist()
        assert set(of_class) <= set(chosen)
