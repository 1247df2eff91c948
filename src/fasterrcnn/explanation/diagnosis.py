"""Why was it missed? For every annotated object the step of the detector at which it was lost, and the numbers.

Axes: g objects, a anchors, p proposals, n scored boxes, d detections. Boxes are xyxy in pixels of the network input.
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fasterrcnn.evaluation.matching import match_image
from fasterrcnn.explanation.evidence import Evidence, ObjectOverlaps, best_boxes, best_objectness, gather_evidence
from fasterrcnn.explanation.trace import Trace
from fasterrcnn.ops import boxes
from fasterrcnn.reporting.drawing import Colour, Edges
from fasterrcnn.structures import Target

_OBJECTS_AT_ONCE = 16

DiagnosisKind = Literal[
    "found",
    "no anchor",
    "low objectness",
    "proposal NMS",
    "misclassified",
    "low score",
    "badly localised",
    "detection NMS",
    "merged",
]


class KindInfo(NamedTuple):
    """What the page shows about a kind of diagnosis: its meaning, what helps, and its colour."""

    meaning: str
    advice: str
    colour: Colour


DIAGNOSIS_KINDS: dict[DiagnosisKind, KindInfo] = {
    "found": KindInfo("a detection of its class covers it", "", (40, 170, 70)),
    "no anchor": KindInfo(
        "no anchor has its size, shape and place, so the network never examined it",
        "fit anchors to your objects (data anchors), or use larger inputs for small objects",
        (20, 20, 20),
    ),
    "low objectness": KindInfo(
        "the region proposal network did not take it for an object, or not soon enough",
        "keep more candidates and proposals; if its objectness is low, train on more objects like it",
        (120, 60, 190),
    ),
    "proposal NMS": KindInfo(
        "its proposals were dropped for a likelier one that shows another object",
        "raise the NMS threshold of the proposals: the object overlaps its neighbour",
        (0, 120, 220),
    ),
    "misclassified": KindInfo(
        "a box covers it, with another class",
        "check the labels of both classes; train on more images that show the difference",
        (230, 0, 140),
    ),
    "low score": KindInfo(
        "a proposal covers it, but its class did not get a high enough score",
        "lower the score threshold, or train on more objects like it",
        (240, 150, 0),
    ),
    "badly localised": KindInfo(
        "its class was recognised, but no box fits it",
        "train longer, with larger inputs, or check how tightly such objects are annotated",
        (150, 90, 30),
    ),
    "detection NMS": KindInfo(
        "its box was dropped for a higher-scored one",
        "raise the NMS threshold of the detections, or use soft NMS",
        (220, 30, 30),
    ),
    "merged": KindInfo(
        "one detection covers it and another object, and counts for that one",
        "the object overlaps its neighbour: larger inputs, a higher NMS threshold, soft NMS",
        (0, 160, 160),
    ),
}

_Reason = tuple[DiagnosisKind, str]


@dataclass(frozen=True)
class ObjectDiagnosis:
    """What became of one annotated object."""

    number: int  # of the object, from 1, in the order in which they were given
    label: int  # its class
    name: str  # of its class
    box: Edges  # where it is, in pixels of the network input
    kind: DiagnosisKind  # where it was lost, or "found"
    why: str  # one sentence with the numbers that prove it
    evidence: Evidence  # the best that each step had for it
    best: dict[str, Edges] = field(default_factory=dict)  # the best box of some steps, by their names, for an image


def diagnose_objects(trace: Trace, ground_truth: Target, *, min_iou: float = 0.5) -> list[ObjectDiagnosis]:
    """What became of every annotated object, in their order.

    The kind names the last step that still had a box for an object: the search begins at the end, with the detections,
    and goes back to the scored boxes, the proposals, the candidates and the anchors. A box covers an object when they
    overlap by ``min_iou``; an anchor is near an object from the overlap on below which training calls it background.
    """
    detections = trace.input_detections
    matched = match_image(
        detections.boxes.numpy(),
        detections.labels.numpy(),
        ground_truth.boxes.numpy(),
        ground_truth.labels.numpy(),
        np.zeros(len(ground_truth.labels), np.bool_),
        min_iou=min_iou,
    )
    anchors = torch.cat(trace.anchors)
    highest = _highest_overlaps(anchors, ground_truth)
    near_iou = trace.model.rpn_loss.assigner.negative_iou
    diagnoses = []
    for number, label in enumerate(ground_truth.labels.tolist()):
        box = ground_truth.boxes[number : number + 1]
        anchor_iou = boxes.iou(anchors, box)[:, 0]
        near = anchor_iou >= near_iou
        nearest = near & (anchor_iou >= highest - 1e-6)
        overlaps = ObjectOverlaps(
            trace=trace,
            number=number,
            label=label,
            ground_truth=ground_truth,
            min_iou=min_iou,
            anchors=anchor_iou,
            near=nearest if nearest.any() else near,
            candidates=boxes.iou(trace.candidates, box)[:, 0],
            proposals=boxes.iou(trace.proposals, box)[:, 0],
            scored=boxes.iou(trace.scored.boxes, box)[:, 0],
            matches=torch.from_numpy(matched),
        )
        kind, why = (
            _among_detections(overlaps)
            or _among_scored(overlaps)
            or _among_regions(overlaps)
            or _among_candidates(overlaps)
            or _among_anchors(overlaps)
        )
        x1, y1, x2, y2 = box[0].tolist()
        evidence, best = gather_evidence(overlaps), best_boxes(overlaps)
        diagnoses.append(ObjectDiagnosis(number + 1, label, overlaps.name, (x1, y1, x2, y2), kind, why, evidence, best))
    return diagnoses


def _highest_overlaps(anchors: Float[Tensor, "a 4"], ground_truth: Target) -> Float[Tensor, " a"]:
    """Of each anchor with any object; a few objects at a time, for all of them may need gigabytes."""
    highest = anchors.new_zeros(len(anchors))
    for some in torch.split(ground_truth.boxes, _OBJECTS_AT_ONCE) if len(ground_truth.boxes) else ():
        highest = torch.maximum(highest, boxes.iou(anchors, some).amax(dim=1))
    return highest


def _among_detections(overlaps: ObjectOverlaps) -> _Reason | None:
    number = overlaps.detection
    if number is None:
        return None
    score = overlaps.trace.input_detections.scores[number]
    where = f"score {score:.2f}, IoU {overlaps.detection_iou:.2f}"
    return "found", f"Detection {number + 1} is a {overlaps.name} with {where}."


def _among_scored(overlaps: ObjectOverlaps) -> _Reason | None:
    """Boxes of its class that cover it, and are no detections of it."""
    trace = overlaps.trace
    covering = (trace.scored.labels == overlaps.label) & (overlaps.scored >= overlaps.min_iou)
    if not covering.any():
        return None
    dropped = covering.clone()
    dropped[trace.kept] = False
    if not dropped.any():
        best = _index_of_highest(overlaps.scored, covering)
        detection = int((trace.kept == best).nonzero()[0, 0])
        return "merged", (
            f"Detection {detection + 1} covers it with IoU {overlaps.scored[best]:.2f}, but counts for object "
            f"{int(overlaps.matches[detection]) + 1}, and no other {overlaps.name} was found here."
        )
    best = _index_of_highest(trace.scored.scores, dropped)
    box = f"A {overlaps.name} with score {trace.scored.scores[best]:.2f} covers it with IoU {overlaps.scored[best]:.2f}"
    stronger = trace.kept
    if trace.postprocess.nms != "agnostic":
        stronger = stronger[trace.scored.labels[stronger] == overlaps.label]
    stronger = stronger[trace.scored.scores[stronger] >= trace.scored.scores[best]]
    overlap = boxes.iou(trace.scored.boxes[stronger], trace.scored.boxes[best : best + 1])[:, 0]
    if trace.postprocess.nms.startswith("soft"):
        return "detection NMS", f"{box}, but {trace.postprocess.nms} NMS lowered its score to the threshold."
    if not len(overlap) or overlap.max() <= trace.postprocess.nms_threshold:
        limit = trace.postprocess.max_detections
        return "low score", f"{box}, but only the {limit} best detections are reported."
    winner = int(stronger[overlap.argmax()])
    other = f"{trace.classes[trace.scored.labels[winner]]} with score {trace.scored.scores[winner]:.2f}"
    return "detection NMS", (
        f"{box}, but NMS dropped it for a {other}, which overlaps that box with IoU {overlap.max():.2f} (above "
        f"{trace.postprocess.nms_threshold:g}) and the object itself with {overlaps.scored[winner]:.2f}."
    )


def _among_regions(overlaps: ObjectOverlaps) -> _Reason | None:
    """The head's probabilities for proposals that cover it, and boxes of other classes on it."""
    trace = overlaps.trace
    covering = overlaps.proposals >= overlaps.min_iou
    other = _unexplained_box(overlaps, covering)
    if not covering.any() and other is None:
        return None
    threshold = trace.postprocess.score_threshold
    of_its_class = trace.probabilities[:, overlaps.label].masked_fill(~covering, -1)
    score = float(of_its_class.max()) if len(of_its_class) else -1.0
    other_score = -1.0 if other is None else float(trace.scored.scores[other])
    if score > threshold and score >= other_score:
        decoded = covering[trace.scored_rows] & (trace.scored.labels == overlaps.label)
        best = float(overlaps.scored[decoded].max()) if decoded.any() else 0.0
        return "badly localised", (
            f"A proposal covers it with IoU {overlaps.proposals.max():.2f} and is a {overlaps.name} with score "
            f"{score:.2f}, but the corrected box overlaps it with {best:.2f} only ({overlaps.min_iou:g} is asked for)."
        )
    if other is not None:
        name = trace.classes[trace.scored.labels[other]]
        own_score = "" if score < 0 else f"; {overlaps.name} got {score:.2f}"
        return "misclassified", (
            f"A box that overlaps it with IoU {overlaps.scored[other]:.2f} is called {name} with score "
            f"{other_score:.2f}{own_score}."
        )
    row = int(of_its_class.argmax())
    background = float(trace.probabilities[row, -1])
    return "low score", (
        f"A proposal covers it with IoU {overlaps.proposals[row]:.2f}, but is a {overlaps.name} with score {score:.2f} "
        f"only ({threshold:g} is asked for), background with {background:.2f}."
    )


def _unexplained_box(overlaps: ObjectOverlaps, covering: Bool[Tensor, " p"]) -> int | None:
    """The highest-scored box of another class on the object that no annotated object of that class explains."""
    trace, ground_truth = overlaps.trace, overlaps.ground_truth
    on_it = (overlaps.scored >= overlaps.min_iou) | covering[trace.scored_rows]
    explained = boxes.iou(trace.scored.boxes, ground_truth.boxes) >= overlaps.min_iou
    explained &= trace.scored.labels[:, None] == ground_truth.labels
    wrong = on_it & (trace.scored.labels != overlaps.label) & ~explained.any(dim=1)
    return _index_of_highest(trace.scored.scores, wrong) if wrong.any() else None


def _among_candidates(overlaps: ObjectOverlaps) -> _Reason | None:
    """Candidates of the proposals generator that cover it, and did not become proposals."""
    trace, generator = overlaps.trace, overlaps.trace.model.proposals
    covering = overlaps.candidates >= overlaps.min_iou
    if not covering.any():
        return None
    eligible = covering & trace.good
    best = _index_of_highest(trace.candidate_scores, eligible if eligible.any() else covering)
    score = float(trace.candidate_scores[best])
    candidate = f"A candidate with objectness {score:.2f} covers it with IoU {overlaps.candidates[best]:.2f}"
    if not trace.good[best]:
        return "low objectness", f"{candidate}, but {generator.min_score:g} is the least that a proposal needs."
    places = covering[trace.survivors].nonzero()[:, 0]
    if len(places):
        score = float(trace.candidate_scores[trace.survivors[places[0]]])
        return "low objectness", (
            f"A candidate with objectness {score:.2f} covers it and was left by NMS, but stands in place "
            f"{int(places[0]) + 1}, and only the best {generator.proposals} become proposals."
        )
    levels = trace.candidate_levels
    stronger = trace.survivors[levels[trace.survivors] == levels[best]]
    stronger = stronger[trace.candidate_scores[stronger] >= score]
    overlap = boxes.iou(trace.candidates[stronger], trace.candidates[best : best + 1])[:, 0]
    winner = int(stronger[overlap.argmax()])
    return "proposal NMS", (
        f"{candidate}, but NMS dropped it for one with {trace.candidate_scores[winner]:.2f}, which overlaps that "
        f"candidate with IoU {overlap.max():.2f} (above {generator.nms_threshold:g}) and the object itself with "
        f"{overlaps.candidates[winner]:.2f} only."
    )


def _among_anchors(overlaps: ObjectOverlaps) -> _Reason:
    trace = overlaps.trace
    near_iou = trace.model.rpn_loss.assigner.negative_iou
    highest = float(overlaps.anchors.max()) if len(overlaps.anchors) else 0.0
    if highest < near_iou:
        return "no anchor", (
            f"The anchor that fits best overlaps it with IoU {highest:.2f}; below {near_iou:g}, training takes an "
            "anchor for background."
        )
    objectness, rank = best_objectness(overlaps)
    is_candidate = torch.zeros_like(overlaps.near)
    is_candidate[trace.candidate_index] = True
    if not (is_candidate & overlaps.near).any() and objectness is not None:
        return "low objectness", (
            f"{int(overlaps.near.sum())} anchors are near it, the best with IoU {highest:.2f}, but the highest "
            f"objectness among them is {objectness:.3f}, place {rank} of its level, and only the best "
            f"{trace.model.proposals.candidates} of a level become candidates."
        )
    best = float(overlaps.candidates.max()) if len(overlaps.candidates) else 0.0
    return "badly localised", (
        f"Anchors near it became candidates, but the corrected boxes overlap it with IoU {best:.2f} at most "
        f"({overlaps.min_iou:g} is asked for)."
    )


def _index_of_highest(values: Tensor, where: Bool[Tensor, " n"]) -> int:
    """Index of the highest value among the marked ones."""
    index = where.nonzero()[:, 0]
    return int(index[values[index].argmax()])
