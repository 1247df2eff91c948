import numpy as np
import pytest

from fasterrcnn.evaluation.metrics.proposal_recall import measure_proposals

BOX, FAR = (10.0, 10.0, 20.0, 20.0), (60.0, 60.0, 20.0, 20.0)


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
