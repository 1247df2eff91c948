from dataclasses import replace

import numpy as np
import pytest

from fasterrcnn.evaluation.metrics.proposal_recall import measure_proposals
from fasterrcnn.evaluation.page.cards import make_cards


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
