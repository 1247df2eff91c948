"""One planted case for each kind of diagnosis: real components, whose RPN and head give what was set by hand.

Candidates are (row, column, objectness, box), regions (proposal, P(cat), P(dog), boxes by label).
"""

from typing import get_args

import pytest
import torch
from torch.testing import assert_close

from fasterrcnn.explanation.diagnosis import DIAGNOSIS_KINDS, DiagnosisKind, diagnose_objects
from fasterrcnn.explanation.trace import trace_image
from fasterrcnn.structures import Target

CAT, DOG = 0, 1
T = (32.0, 32.0, 64.0, 64.0)  # the anchor of row 3, column 3
FAR = (80.0, 80.0, 112.0, 112.0)  # that of row 6, column 6
NEAR_T = (42.0, 32.0, 74.0, 64.0)  # IoU with T: 22 / 42
OFF_T = (46.0, 32.0, 78.0, 64.0)  # IoU with T: 18 / 46; with NEAR_T: 28 / 36
ASIDE = (64.0, 32.0, 96.0, 64.0)  # touches T


def diagnose_all(detector, image, *objects, score=0.5, **selection):
    rows = [box for box, _ in objects]
    ground_truth = Target(
        torch.tensor(rows).reshape(-1, 4), torch.tensor([label for _, label in objects], dtype=torch.int64)
    )
    return diagnose_objects(trace_image(detector, image, score=score, **selection), ground_truth)


@pytest.fixture
def diagnose(image):
    def diagnose_first(detector, *objects, **selection):
        return diagnose_all(detector, image, *(objects or ((T, CAT),)), **selection)[0]

    return diagnose_first


def test_found(plant, diagnose):
    diagnosis = diagnose(plant([(3, 3, 0.9, T)], [(T, 0.8, 0.1, {CAT: T})]))
    assert diagnosis.kind == "found"
    assert diagnosis.why == "Detection 1 is a cat with score 0.80, IoU 1.00."
    evidence = diagnosis.evidence
    numbers = [
        *(evidence.anchor_iou, evidence.anchor_objectness, evidence.candidate_iou),
        *(evidence.proposal_iou, evidence.class_score),
    ]
    assert_close(numbers, [1.0, 0.9, 1.0, 1.0, 0.8], atol=1e-5, rtol=0)
    assert (evidence.anchor_rank, evidence.other_class, evidence.detection) == (1, "dog", 0)
    assert_close([evidence.other_score, evidence.box_iou, evidence.detection_score], [0.1, 1.0, 0.8], atol=1e-5, rtol=0)


def test_found__an_object_is_taken_once(plant, image):
    between = (38.0, 32.0, 70.0, 64.0)  # IoU with T: 26 / 38, with OFF_T: 24 / 40
    candidates = [(3, 3, 0.9, T), (3, 5, 0.8, ASIDE)]
    detector = plant(candidates, [(T, 0.9, 0.05, {CAT: T}), (ASIDE, 0.8, 0.1, {CAT: between})])
    first, second = diagnose_all(detector, image, (T, CAT), (OFF_T, CAT), nms_threshold=0.8)
    assert (first.kind, first.evidence.detection) == ("found", 0)
    assert (second.kind, second.evidence.detection) == ("found", 1)
    assert_close(second.evidence.detection_iou, 24 / 40, atol=1e-5, rtol=0)


def test_no_anchor(plant, diagnose):
    tiny = (46.0, 46.0, 50.0, 50.0)
    diagnosis = diagnose(plant([(6, 6, 0.9, FAR)], [(FAR, 0.1, 0.1)]), (tiny, CAT))
    assert diagnosis.kind == "no anchor"
    assert_close(diagnosis.evidence.anchor_iou, 16 / 1024)
    assert "IoU 0.02; below 0.3" in diagnosis.why
    assert (diagnosis.evidence.anchor_objectness, diagnosis.evidence.class_score) == (None, None)


def test_no_anchor__but_a_candidate_that_reaches_it_goes_on(plant, diagnose):
    tiny = (46.0, 46.0, 50.0, 50.0)
    diagnosis = diagnose(plant([(3, 3, 0.9, tiny)], [(tiny, 0.2, 0.1)]), (tiny, CAT))
    assert diagnosis.kind == "low score"


def test_low_objectness__not_among_the_candidates(plant, diagnose):
    candidates = [(6, 6, 0.9, FAR), (3, 3, 0.2, T)]
    diagnosis = diagnose(plant(candidates, [(FAR, 0.1, 0.1)], candidates=1))
    assert diagnosis.kind == "low objectness"
    assert diagnosis.evidence.anchor_rank == 2
    assert_close(diagnosis.evidence.anchor_objectness, 0.2)
    assert "0.200, place 2 of its level, and only the best 1 of a level" in diagnosis.why


def test_low_objectness__under_the_least_that_is_asked_for(plant, diagnose):
    candidates = [(6, 6, 0.9, FAR), (3, 3, 0.2, T)]
    diagnosis = diagnose(plant(candidates, [(FAR, 0.1, 0.1)], min_score=0.3))
    assert diagnosis.kind == "low objectness"
    assert "objectness 0.20 covers it with IoU 1.00, but 0.3 is the least" in diagnosis.why


def test_low_objectness__beyond_the_number_of_proposals(plant, diagnose):
    candidates = [(6, 6, 0.9, FAR), (3, 3, 0.2, T)]
    diagnosis = diagnose(plant(candidates, [(FAR, 0.1, 0.1)], proposals=1))
    assert diagnosis.kind == "low objectness"
    assert "stands in place 2, and only the best 1 become proposals" in diagnosis.why


def test_low_objectness__though_its_anchors_are_nearer_to_another_object(plant, image):
    inside = (38.0, 38.0, 58.0, 58.0)  # IoU with the anchor of T: 400 / 1024; with all others less than 0.3
    candidates = [(6, 6, 0.9, FAR), (3, 3, 0.2, T)]
    detector = plant(candidates, [(FAR, 0.1, 0.1)], candidates=1)
    kinds = [diagnosis.kind for diagnosis in diagnose_all(detector, image, (T, CAT), (inside, CAT))]
    assert kinds == ["low objectness", "low objectness"]


def test_proposal_nms(plant, diagnose):
    candidates = [(3, 4, 0.9, OFF_T), (3, 3, 0.8, NEAR_T)]
    diagnosis = diagnose(plant(candidates, [(OFF_T, 0.1, 0.1)]))
    assert diagnosis.kind == "proposal NMS"
    assert "objectness 0.80 covers it with IoU 0.52, but NMS dropped it for one with 0.90" in diagnosis.why
    assert "with IoU 0.78 (above 0.7) and the object itself with 0.39 only" in diagnosis.why
    assert_close(diagnosis.evidence.candidate_iou, 22 / 42, atol=1e-5, rtol=0)
    assert_close(diagnosis.evidence.proposal_iou, 18 / 46, atol=1e-5, rtol=0)


def test_misclassified(plant, diagnose):
    diagnosis = diagnose(plant([(3, 3, 0.9, T)], [(T, 0.2, 0.7, {DOG: T})]))
    assert diagnosis.kind == "misclassified"
    assert diagnosis.why == "A box that overlaps it with IoU 1.00 is called dog with score 0.70; cat got 0.20."
    assert diagnosis.evidence.other_class == "dog"


def test_misclassified__not_when_the_other_object_is_really_there(plant, diagnose):
    detector = plant([(3, 3, 0.9, T)], [(T, 0.2, 0.7, {DOG: T})])
    assert diagnose(detector, (T, CAT), (T, DOG)).kind == "low score"


def test_low_score(plant, diagnose):
    detector = plant([(3, 3, 0.9, T)], [(T, 0.3, 0.1, {CAT: T})])
    diagnosis = diagnose(detector)
    assert diagnosis.kind == "low score"
    assert "is a cat with score 0.30 only (0.5 is asked for), background with 0.60" in diagnosis.why
    assert diagnose(detector, score=0.2).kind == "found"


def test_low_score__beyond_the_number_of_detections(plant, diagnose):
    candidates = [(6, 6, 0.9, FAR), (3, 3, 0.8, T)]
    detector = plant(candidates, [(FAR, 0.9, 0.05, {CAT: FAR}), (T, 0.8, 0.1, {CAT: T})])
    diagnosis = diagnose(detector, max_detections=1)
    assert diagnosis.kind == "low score"
    assert "only the 1 best detections are reported" in diagnosis.why
    assert diagnose(detector).kind == "found"


def test_badly_localised__by_the_head(plant, diagnose):
    diagnosis = diagnose(plant([(3, 3, 0.9, T)], [(T, 0.8, 0.1, {CAT: OFF_T})]))
    assert diagnosis.kind == "badly localised"
    assert "is a cat with score 0.80, but the corrected box overlaps it with 0.39 only" in diagnosis.why
    assert_close(diagnosis.evidence.box_iou, 18 / 46, atol=1e-5, rtol=0)


def test_badly_localised__by_the_rpn(plant, diagnose):
    diagnosis = diagnose(plant([(3, 3, 0.9, ASIDE)], [(ASIDE, 0.1, 0.1)]))
    assert diagnosis.kind == "badly localised"
    assert "became candidates, but the corrected boxes overlap it with IoU 0.00 at most" in diagnosis.why


def two_on_one(plant):
    """A box of 0.8 on the object, and one of 0.9 beside it that NMS prefers."""
    candidates = [(3, 3, 0.9, T), (3, 5, 0.8, ASIDE)]
    return plant(candidates, [(T, 0.8, 0.1, {CAT: NEAR_T}), (ASIDE, 0.9, 0.05, {CAT: OFF_T})])


def test_detection_nms(plant, diagnose):
    diagnosis = diagnose(two_on_one(plant))
    assert diagnosis.kind == "detection NMS"
    assert (
        "A cat with score 0.80 covers it with IoU 0.52, but NMS dropped it for a cat with score 0.90" in diagnosis.why
    )
    assert "with IoU 0.78 (above 0.5) and the object itself with 0.39" in diagnosis.why
    assert diagnose(two_on_one(plant), nms_threshold=0.8).kind == "found"


def test_detection_nms__of_another_class(plant, diagnose):
    candidates = [(3, 3, 0.9, T), (3, 5, 0.8, ASIDE)]
    detector = plant(candidates, [(T, 0.8, 0.1, {CAT: NEAR_T}), (ASIDE, 0.05, 0.9, {DOG: OFF_T})])
    assert diagnose(detector).kind == "found"
    diagnosis = diagnose(detector, nms="agnostic")
    assert diagnosis.kind == "detection NMS"
    assert "for a dog with score 0.90" in diagnosis.why


def test_detection_nms__soft(plant, diagnose):
    # 0.8 x exp(-(28/36)² / 0.5) is 0.24.
    diagnosis = diagnose(two_on_one(plant), nms="soft-gaussian")
    assert diagnosis.kind == "detection NMS"
    assert "soft-gaussian NMS lowered its score" in diagnosis.why


def test_merged(plant, image):
    neighbour = (38.0, 32.0, 70.0, 64.0)  # IoU with T: 26 / 38
    detector = plant([(3, 3, 0.9, T)], [(T, 0.8, 0.1, {CAT: T})])
    first, second = diagnose_all(detector, image, (neighbour, CAT), (T, CAT))
    assert (first.kind, second.kind) == ("merged", "found")
    assert first.why == "Detection 1 covers it with IoU 0.68, but counts for object 2, and no other cat was found here."


def test_min_iou__decides_what_is_found(plant, image):
    detector = plant([(3, 3, 0.9, T)], [(T, 0.8, 0.1, {CAT: NEAR_T})])
    target = Target(torch.tensor([T]), torch.tensor([CAT]))
    trace = trace_image(detector, image)
    assert diagnose_objects(trace, target)[0].kind == "found"
    assert diagnose_objects(trace, target, min_iou=0.6)[0].kind == "badly localised"


def test_diagnose_objects__of_no_objects_and_without_any_proposal(plant, image, diagnose):
    assert diagnose_all(plant([(3, 3, 0.9, T)], [(T, 0.8, 0.1)]), image) == []
    nothing = plant([(3, 3, 0.2, T)], [], min_score=0.5)
    assert diagnose(nothing).kind == "low objectness"


def test_kinds__all_have_words_and_colours():
    assert set(DIAGNOSIS_KINDS) == set(get_args(DiagnosisKind))
    assert all(info.meaning and bool(info.advice) == (kind != "found") for kind, info in DIAGNOSIS_KINDS.items())
    assert len({info.colour for info in DIAGNOSIS_KINDS.values()}) == len(DIAGNOSIS_KINDS)
    planted = [name.removeprefix("test_").split("__")[0] for name in globals() if name.startswith("test_")]
    assert {kind.lower().replace(" ", "_") for kind in DIAGNOSIS_KINDS} <= set(planted)
