"""TIDE's parts by hand: one case for each kind of error, and the two together. AP50 in 1/101. Confusions."""

import numpy as np
import pytest

from fasterrcnn.evaluation.matching import find_pairs
from fasterrcnn.evaluation.metrics.error_kinds import (
    ERROR_KINDS,
    ERRORS,
    classify_errors,
    count_confusions,
    price_errors,
)

BOX, FAR = (10.0, 10.0, 20.0, 20.0), (60.0, 60.0, 20.0, 20.0)
THIRD = (10.0, 10.0, 20.0, 7.0)  # IoU .35 with BOX
CAT, DOG = 1, 2
# Image 1 has a cat at BOX in each case, and image 2 one that is found with a low score: 101 for the cats.
RIGHT = (2, CAT, 0.1, *BOX)


def price(make_ground_truth, make_predictions, detections, objects=((1, CAT, *BOX),)):
    ground_truth = make_ground_truth(*objects, (2, CAT, *BOX), (2, DOG, *FAR))
    predictions = make_predictions(ground_truth, *detections, RIGHT, (2, DOG, 0.1, *FAR))
    error_kinds = classify_errors(ground_truth, predictions, find_pairs(ground_truth, predictions))
    costs = price_errors(ground_truth, predictions, error_kinds)
    return costs, [ERROR_KINDS[kind] for kind in error_kinds.kinds]


@pytest.mark.parametrize(
    ("kind", "detections", "objects", "before", "after"),
    [
        # The found cat stands behind the mistake: precision 1/2 up to recall .5 (51 levels).
        ("localisation", [(1, CAT, 0.9, *THIRD)], [(1, CAT, *BOX)], (51 / 2, 101), (101, 101)),
        # The dog detection stands before the right dog: 101/2. As a cat it is right: 101; dogs have 101 without it.
        ("classification", [(1, DOG, 0.9, *BOX)], [(1, CAT, *BOX)], (51, 101 / 2), (101, 101)),
        ("both", [(1, DOG, 0.9, *THIRD)], [(1, CAT, *BOX)], (51, 101 / 2), (51, 101)),
        # Right, duplicate, right: precision 1 up to .5, then 2/3 (50 levels).
        (
            "duplicate",
            [(1, CAT, 0.9, *BOX), (1, CAT, 0.8, *BOX)],
            [(1, CAT, *BOX)],
            (51 + 50 * 2 / 3, 101),
            (101, 101),
        ),
        ("background", [(1, CAT, 0.9, *FAR)], [(1, CAT, *BOX)], (51 / 2, 101), (51, 101)),
        ("missed", [], [(1, CAT, *BOX)], (51, 101), (101, 101)),
    ],
)
def test_costs__one_kind(make_ground_truth, make_predictions, kind, detections, objects, before, after):
    costs, kinds = price(make_ground_truth, make_predictions, detections, objects)
    assert costs.ap50 == pytest.approx(sum(before) / 202)
    assert costs.lost[kind] == pytest.approx((sum(after) - sum(before)) / 202)
    also_missed = kind in ("both", "background")  # nothing else would find the cat of image 1
    assert costs.counts == {k: int(k == kind) + int(k == "missed" and also_missed) for k in ERRORS}
    if kind != "missed":
        assert kinds.count(kind) == 1


def test_costs__classification_and_localisation_of_one_object(make_ground_truth, make_predictions):
    # The better claim (.9, localisation) is the one that can find the cat; the other only vanishes.
    costs, kinds = price(make_ground_truth, make_predictions, [(1, CAT, 0.9, *THIRD), (1, DOG, 0.8, *BOX)])
    assert kinds[:2] == ["localisation", "classification"]
    base = (51 / 2 + 101 / 2) / 202
    assert costs.ap50 == pytest.approx(base)
    assert costs.lost["localisation"] == pytest.approx((101 + 101 / 2) / 202 - base)
    assert costs.lost["classification"] == pytest.approx((51 / 2 + 101) / 202 - base)
    assert costs.counts["missed"] == 0
    assert costs.lost["missed"] == pytest.approx(0)


def test_costs__claims_of_found_objects_only_vanish(make_ground_truth, make_predictions):
    costs, kinds = price(
        make_ground_truth, make_predictions, [(1, CAT, 0.9, *BOX), (1, CAT, 0.8, *THIRD), (1, DOG, 0.7, *BOX)]
    )
    assert kinds[:3] == ["right", "localisation", "classification"]
    base = (51 + 50 * 2 / 3 + 101 / 2) / 202
    assert costs.lost["localisation"] == pytest.approx((101 + 101 / 2) / 202 - base)
    assert costs.lost["classification"] == pytest.approx((51 + 50 * 2 / 3 + 101) / 202 - base)


@pytest.mark.parametrize(
    ("overlap", "kind"),
    [(0.5, "right"), (0.49, "localisation"), (0.1, "localisation"), (0.09, "background"), (0.0, "background")],
)
def test_costs__edges_of_the_kinds(make_ground_truth, make_predictions, overlap, kind):
    _, kinds = price(
        make_ground_truth, make_predictions, [(1, CAT, 0.9, 0.0, 0.0, 50.0, 100 * overlap)], [(1, CAT, 0, 0, 50, 100)]
    )
    assert kinds[0] == kind


def test_costs__crowds_are_no_errors(make_ground_truth, make_predictions):
    costs, kinds = price(make_ground_truth, make_predictions, [(1, CAT, 0.9, *FAR)], [(1, CAT, 50, 50, 50, 50, 1)])
    assert kinds[0] == "ignored"
    assert set(costs.counts.values()) == {0}
    assert costs.ap50 == pytest.approx(1)


def test_costs__a_class_that_loses_all_its_objects(make_ground_truth, make_predictions):
    # Dogs are all missed. Without detections they leave the mean: 51 of one class instead of (51 + 0) / 2.
    ground_truth = make_ground_truth((1, CAT, *BOX), (2, CAT, *BOX), (1, DOG, *FAR))
    predictions = make_predictions(ground_truth, (1, CAT, 0.9, *BOX), (2, CAT, 0.8, *BOX))
    costs = price_errors(
        ground_truth, predictions, classify_errors(ground_truth, predictions, find_pairs(ground_truth, predictions))
    )
    assert (costs.ap50, costs.lost["missed"]) == pytest.approx((0.5, 0.5))


def test_costs__of_each_class(make_ground_truth, make_predictions):
    """The example of docs/evaluation.md, AP50 in 1/101: cats have 34 and dogs 56; rows are `ERRORS`."""
    objects = [(1, CAT), (2, CAT), (2, DOG), (3, DOG), (4, CAT), (4, CAT), (3, DOG)]
    boxes = ["10 10 40 40", "10 10 40 40", "60 60 30 30", "10 10 40 40", "0 0 50 50", "50 50 50 50", "60 60 40 40"]
    rows = [(*row, *map(float, box.split())) for row, box in zip(objects, boxes, strict=True)]
    ground_truth = make_ground_truth(*rows, images=5, classes=("cat", "dog", "eel"))
    predictions = make_predictions(
        ground_truth,
        (5, CAT, 0.95, 30, 30, 20, 20),  # background: without it, cats have 51
        (1, CAT, 0.90, 10, 10, 40, 40),
        (3, DOG, 0.85, 10, 10, 40, 40),
        (2, CAT, 0.80, 10, 10, 40, 33),
        (3, DOG, 0.75, 10, 10, 40, 40),  # duplicate: without it, dogs have 67
        (3, DOG, 0.70, 60, 60, 40, 40),
        (4, CAT, 0.60, 0, 0, 50, 20),  # localisation: in its place, cats have 57
        (4, DOG, 0.50, 50, 50, 50, 50),  # classification: as a cat, cats have 49; dogs lose nothing by it
    )
    pairs = find_pairs(ground_truth, predictions)
    costs = price_errors(ground_truth, predictions, classify_errors(ground_truth, predictions, pairs))
    # The dog of image 2 is missed: if it were not asked for, dogs would have 51 levels with 1 and 50 with 2/3.
    expected = {
        "classification": ((49 - 34, 0), (0, 1)),
        "localisation": ((57 - 34, 0), (1, 0)),
        "both": ((0, 0), (0, 0)),
        "duplicate": ((0, 67 - 56), (0, 1)),
        "background": ((51 - 34, 0), (1, 0)),
        "missed": ((0, 51 + 50 * 2 / 3 - 56), (0, 1)),
    }
    for kind, lost, counts in zip(ERRORS, costs.lost_per_class, costs.counts_per_class, strict=True):
        assert lost[:2] * 101 == pytest.approx(expected[kind][0], abs=1e-9), kind
        assert np.isnan(lost[2])  # there are no eels
        assert counts.tolist() == [*expected[kind][1], 0], kind
        assert costs.lost[kind] == pytest.approx(np.nanmean(lost)), kind


@pytest.mark.parametrize("images", [0, 1])
def test_costs__nothing(make_ground_truth, make_predictions, images):
    ground_truth = make_ground_truth(images=images)
    costs = price_errors(
        ground_truth,
        make_predictions(ground_truth),
        classify_errors(
            ground_truth, make_predictions(ground_truth), find_pairs(ground_truth, make_predictions(ground_truth))
        ),
    )
    assert costs.ap50 is None
    assert set(costs.lost.values()) == {None}


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
