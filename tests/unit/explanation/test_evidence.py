"""The best that each step had for an object, of planted detectors (see `test_diagnosis`)."""

import pytest
import torch

from fasterrcnn.explanation.diagnosis import diagnose_objects
from fasterrcnn.explanation.trace import trace_image
from fasterrcnn.structures import Target

CAT, DOG = 0, 1
T = (32.0, 32.0, 64.0, 64.0)  # the anchor of row 3, column 3
FAR = (80.0, 80.0, 112.0, 112.0)  # that of row 6, column 6
NEAR_T = (42.0, 32.0, 74.0, 64.0)  # IoU with T: 22 / 42
OFF_T = (46.0, 32.0, 78.0, 64.0)  # IoU with T: 18 / 46


@pytest.fixture
def diagnose(image):
    def one_object(detector, box=T, label=CAT, score=0.5):
        ground_truth = Target(torch.tensor([box]), torch.tensor([label]))
        (diagnosis,) = diagnose_objects(trace_image(detector, image, score=score), ground_truth)
        return diagnosis

    return one_object


def test_evidence__each_step_has_its_own_best(plant, diagnose):
    """The anchor is the object's own; the candidate and the proposal are moved; the corrected box is farther off."""
    evidence = diagnose(plant([(3, 3, 0.9, NEAR_T)], [(NEAR_T, 0.7, 0.2, {CAT: OFF_T})])).evidence
    assert evidence.anchor_iou == pytest.approx(1)
    assert (evidence.anchor_objectness, evidence.anchor_rank) == (pytest.approx(0.9), 1)
    assert (evidence.candidate_iou, evidence.proposal_iou) == pytest.approx((22 / 42, 22 / 42), abs=1e-5)
    assert (evidence.class_score, evidence.other_class, evidence.other_score) == (
        pytest.approx(0.7),
        "dog",
        pytest.approx(0.2),
    )
    assert evidence.box_iou == pytest.approx(18 / 46, abs=1e-5)
    assert (evidence.detection, evidence.detection_score, evidence.detection_iou) == (None, None, None)


def test_evidence__the_rank_counts_all_anchors_of_the_level(plant, diagnose):
    candidates = [(6, 6, 0.9, FAR), (1, 1, 0.8, (0.0, 0.0, 32.0, 32.0)), (3, 3, 0.2, T)]
    regions = [(FAR, 0.1, 0.1), ((0.0, 0.0, 32.0, 32.0), 0.1, 0.1), (T, 0.1, 0.1)]
    assert diagnose(plant(candidates, regions)).evidence.anchor_rank == 3


def test_evidence__no_proposal_covers_it(plant, diagnose):
    """Probabilities are those of the proposals that cover it; without any there are none."""
    diagnosis = diagnose(plant([(6, 6, 0.9, FAR)], [(FAR, 0.8, 0.1, {CAT: FAR})]))
    evidence = diagnosis.evidence
    assert (evidence.class_score, evidence.other_class, evidence.other_score) == (None, None, None)
    assert (evidence.proposal_iou, evidence.box_iou) == (0, 0)
    assert set(diagnosis.best) == {"anchor"}  # nothing else touches it


def test_best_boxes__of_its_class_only(plant, diagnose):
    detector = plant([(3, 3, 0.9, NEAR_T)], [(NEAR_T, 0.45, 0.5, {CAT: OFF_T, DOG: T})])
    best = diagnose(detector, score=0.4).best
    assert best["anchor"] == pytest.approx(T)
    assert best["candidate"] == pytest.approx(NEAR_T, abs=1e-3)
    assert best["proposal"] == pytest.approx(NEAR_T, abs=1e-3)
    assert best["scored box"] == pytest.approx(OFF_T, abs=1e-3)
    assert diagnose(detector, label=DOG, score=0.4).best["scored box"] == pytest.approx(T, abs=1e-3)
