from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasterrcnn.evaluation.metrics.proposal_recall import measure_proposals
from fasterrcnn.evaluation.page import images
from fasterrcnn.evaluation.page.images import (
    choose_examples,
    classes_in_error,
    count_errors,
    make_cards,
    worst_images,
)


def test_make_cards__no_more_letters_than_allowed(five):
    all_cards = make_cards(five.analysis)
    sizes = [len(one) for one in all_cards.thumbnails]
    assert all_cards.left_out == 0
    few = make_cards(five.analysis, max_letters=sum(sizes[:3]))
    assert list(few.thumbnails) == list(all_cards.thumbnails[:3])
    assert few.left_out == len(sizes) - 3
    assert few.images == all_cards.images[:3]


def test_make_cards__a_box_of_any_size(make_ground_truth, make_predictions, report_of, shown):
    ground_truth = shown(make_ground_truth((1, 1, 0, 0, 50, 50)))
    predictions = make_predictions(ground_truth, (1, 1, 0.9, -1e9, 0, 1e9, 1e9), (1, 2, 0.8, 40, 40, 0, 0))
    cards = make_cards(report_of(ground_truth, predictions).analysis)
    assert not cards.unreadable
    assert [card.region for card in cards.galleries["background"]] == [(0, 0, 100, 100), (20, 20, 60, 60)]


def test_make_cards__objects_that_are_not_proposed(make_ground_truth, make_predictions, report_of, shown):
    ground_truth = shown(make_ground_truth((1, 1, 0, 0, 50, 50), (2, 2, 0, 0, 40, 30)))
    proposals = measure_proposals(ground_truth, [0, 1], [np.array([[0.0, 0, 50, 50]]), np.zeros((0, 4))])
    cards = make_cards(report_of(ground_truth, make_predictions(ground_truth), proposals=proposals).analysis)
    assert [card.lines for card in cards.galleries["out of reach"]] == [["dog", "40 x 30 pixels"]]


@pytest.mark.parametrize("name", ["", "a\0b.jpg", "x" * 5000, "/dev/zero", "/"])
def test_make_cards__files_that_are_none(make_ground_truth, make_predictions, report_of, name):
    ground_truth = make_ground_truth((1, 1, 0, 0, 50, 50), images=1)
    ground_truth = replace(
        ground_truth, images=replace(ground_truth.images, files=(type(ground_truth.images.files[0])(name),))
    )
    cards = make_cards(report_of(ground_truth, make_predictions(ground_truth)).analysis)
    assert len(cards.unreadable) == 1
    assert not cards.images


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
    monkeypatch.setattr(images, "FIRST_IMAGES", 2)
    objects = [(image, 1, 20 * n, 0, 10, 10) for image in (1, 2, 3) for n in range(4 - image + 1)]
    ground_truth = make_ground_truth(*objects, (4, 2, 0, 0, 10, 10), images=5)
    analysis = report_of(ground_truth, make_predictions(ground_truth)).analysis
    errors, every = count_errors(analysis), np.ones(5, bool)
    assert worst_images(analysis, errors, every) == [0, 1, 3]
    every[0] = False
    assert worst_images(analysis, errors, every) == [1, 2, 3]
    monkeypatch.setattr(images, "MAX_IMAGES", 2)
    assert worst_images(analysis, errors, every) == [1, 2]


def test_choose_examples__missing_images_have_none(five):
    galleries = choose_examples(five.analysis, np.zeros(5, bool))
    assert not any(galleries.values())


@given(st.lists(st.integers(0, 4), max_size=60))
def test_choose__the_first_and_some_of_each_class(labels):
    labels = np.array(labels, np.int64)
    ranked = np.arange(len(labels)) + 100
    chosen = images._choose(ranked, labels)
    assert chosen == sorted(chosen)
    assert chosen[: images.FIRST_EXAMPLES] == ranked[: images.FIRST_EXAMPLES].tolist()
    for label in set(labels.tolist()):
        of_class = ranked[labels == label][: images.EXAMPLES_OF_CLASS].tolist()
        assert set(of_class) <= set(chosen)
