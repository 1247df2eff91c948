"""One true object against everything that a detector made: what the verdict about it is drawn from.

Axes: a anchors, k candidates, p proposals, n scored boxes, d detections. Boxes are xyxy in pixels of the network input.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from fasterrcnn.explanation.trace import Trace
from fasterrcnn.ops import boxes
from fasterrcnn.reporting.drawing import Edges
from fasterrcnn.structures import Target


@dataclass(frozen=True)
class Evidence:
    """What each step had to offer for an object; None where it had nothing.

    Attributes:
        anchor_iou: overlap with the anchor that fits best.
        anchor_objectness: highest objectness, 0..1, among the anchors near it.
        anchor_rank: place of that anchor among those of its level, from 1.
        candidate_iou: overlap with the best box among the candidates of the proposals generator.
        proposal_iou: overlap with the best proposal.
        class_score: highest probability of its class among the proposals that cover it.
        other_class: the likeliest other class among these.
        other_score: its probability.
        box_iou: overlap with the best box of its class above the score threshold, before NMS.
        detection: number of the detection that it was matched with, from 0.
        detection_score: its score.
        detection_iou: its overlap.
    """

    anchor_iou: float
    anchor_objectness: float | None = None
    anchor_rank: int | None = None
    candidate_iou: float | None = None
    proposal_iou: float | None = None
    class_score: float | None = None
    other_class: str | None = None
    other_score: float | None = None
    box_iou: float | None = None
    detection: int | None = None
    detection_score: float | None = None
    detection_iou: float | None = None


@dataclass(frozen=True)
class Case:
    """One object, with its overlaps with everything that the detector made.

    Attributes:
        trace: the run.
        number: of the object, from 0.
        label: its class.
        ground_truths: all objects.
        min_iou: from which overlap a box covers an object.
        anchors: (all) IoU with the anchors.
        near: which anchors are near it, and no nearer to another object where there are such.
        candidates: IoU with the candidates.
        proposals: IoU with the proposals.
        scored: IoU with the scored boxes.
        taken: for each detection the object that it was matched with, or -1.
    """

    trace: Trace
    number: int
    label: int
    ground_truths: Target
    min_iou: float
    anchors: Float[Tensor, " a"]
    near: Bool[Tensor, " a"]
    candidates: Float[Tensor, " k"]
    proposals: Float[Tensor, " p"]
    scored: Float[Tensor, " n"]
    taken: Int64[Tensor, " d"]

    @property
    def name(self) -> str:
        """Of its class."""
        return self.trace.classes[self.label]


def gather(case: Case) -> Evidence:
    """The best that each step had for an object."""
    trace, label = case.trace, case.label
    covering = case.proposals >= case.min_iou
    said = trace.probabilities[covering]
    others = said[:, :-1].clone()
    others[:, label] = -1
    rival = int(others.amax(dim=0).argmax()) if others.numel() and len(trace.classes) > 1 else None
    objectness, rank = best_objectness(case)
    detected = (case.taken == case.number).nonzero()[:, 0].tolist()
    best = detected[0] if detected else None
    return Evidence(
        anchor_iou=_highest(case.anchors) or 0.0,
        anchor_objectness=objectness,
        anchor_rank=rank,
        candidate_iou=_highest(case.candidates),
        proposal_iou=_highest(case.proposals),
        class_score=_highest(said[:, label]),
        other_class=None if rival is None else trace.classes[rival],
        other_score=None if rival is None else float(others[:, rival].max()),
        box_iou=_highest(case.scored[trace.scored.labels == label]),
        detection=best,
        detection_score=None if best is None else float(trace.found.scores[best]),
        detection_iou=None if best is None else float(case.scored[trace.kept[best]]),
    )


def best_objectness(case: Case) -> tuple[float | None, int | None]:
    """The highest objectness of the anchors near an object, and that anchor's place among those of its level."""
    logits = torch.cat(case.trace.logits)
    near = case.near.nonzero()[:, 0]
    if not len(near):
        return None, None
    best = int(near[logits[near].argmax()])
    start = 0
    for level in case.trace.logits:
        if best < start + len(level):
            return float(logits[best].sigmoid()), 1 + int((level > logits[best]).sum())
        start += len(level)
    raise AssertionError("an anchor of no level")


def best_boxes(case: Case) -> dict[str, Edges]:
    """The best box of some steps for an object; steps that had none that touches it are left out."""
    trace = case.trace
    own = torch.where(trace.scored.labels == case.label, case.scored, 0.0)
    steps: Sequence[tuple[str, Tensor, Tensor]] = (
        ("anchor", case.anchors, torch.cat(trace.anchors)),
        ("candidate", case.candidates, trace.candidates),
        ("proposal", case.proposals, trace.proposals),
        ("scored box", own, trace.scored.boxes),
    )
    return {
        name: tuple(xyxy[int(overlap.argmax())].tolist())
        for name, overlap, xyxy in steps
        if len(overlap) and overlap.max() > 0
    }


def _highest(values: Tensor) -> float | None:
    return float(values.max()) if len(values) else None


Kind = Literal[
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
KINDS: tuple[Kind, ...] = get_args(Kind)
Reason = tuple[Kind, str]


def reason(case: Case) -> Reason:
    """Where an object was lost, or that it was found."""
    return (
        _among_detections(case)
        or _among_scored(case)
        or _among_regions(case)
        or _among_candidates(case)
        or _among_anchors(case)
    )


def _among_detections(case: Case) -> Reason | None:
    mine = (case.taken == case.number).nonzero()[:, 0].tolist()
    if not mine:
        return None
    found, overlap = case.trace.found, float(case.scored[case.trace.kept[mine[0]]])
    return (
        "found",
        f"Detection {mine[0] + 1} is a {case.name} with score {found.scores[mine[0]]:.2f}, IoU {overlap:.2f}.",
    )


def _among_scored(case: Case) -> Reason | None:
    """Boxes of its class that cover it, and are no detections of it."""
    trace = case.trace
    mine = (trace.scored.labels == case.label) & (case.scored >= case.min_iou)
    if not mine.any():
        return None
    lost = mine.clone()
    lost[trace.kept] = False
    if not lost.any():
        return "merged", _merged(case, mine)
    best = _index_of_highest(trace.scored.scores, lost)
    said = f"A {case.name} with score {trace.scored.scores[best]:.2f} covers it with IoU {case.scored[best]:.2f}"
    rivals = trace.kept
    if trace.rules.nms != "agnostic":
        rivals = rivals[trace.scored.labels[rivals] == case.label]
    rivals = rivals[trace.scored.scores[rivals] >= trace.scored.scores[best]]
    overlap = boxes.iou(trace.scored.boxes[rivals], trace.scored.boxes[best : best + 1])[:, 0]
    if trace.rules.nms.startswith("soft"):
        return "detection NMS", f"{said}, but {trace.rules.nms} NMS lowered its score to the threshold."
    if not len(overlap) or overlap.max() <= trace.rules.nms_threshold:
        limit = trace.rules.max_detections
        return "low score", f"{said}, but only the {limit} best detections are reported."
    winner = int(rivals[overlap.argmax()])
    rival = f"{trace.classes[trace.scored.labels[winner]]} with score {trace.scored.scores[winner]:.2f}"
    return "detection NMS", (
        f"{said}, but NMS dropped it for a {rival}, which overlaps that box with IoU {overlap.max():.2f} (above "
        f"{trace.rules.nms_threshold:g}) and the object itself with {case.scored[winner]:.2f}."
    )


def _merged(case: Case, mine: Bool[Tensor, " n"]) -> str:
    trace = case.trace
    best = _index_of_highest(case.scored, mine)
    detection = int((trace.kept == best).nonzero()[0, 0])
    return (
        f"Detection {detection + 1} covers it with IoU {case.scored[best]:.2f}, but counts for object "
        f"{int(case.taken[detection]) + 1}, and no other {case.name} was found here."
    )


def _among_regions(case: Case) -> Reason | None:
    """What the head said about proposals that cover it, and boxes of other classes on it."""
    trace = case.trace
    covering = case.proposals >= case.min_iou
    rival = _rival(case, covering)
    if not covering.any() and rival is None:
        return None
    threshold = trace.rules.score_threshold
    own = trace.probabilities[:, case.label].masked_fill(~covering, -1)
    score = float(own.max()) if len(own) else -1.0
    rival_score = -1.0 if rival is None else float(trace.scored.scores[rival])
    if score > threshold and score >= rival_score:
        decoded = covering[trace.scored_rows] & (trace.scored.labels == case.label)
        best = float(case.scored[decoded].max()) if decoded.any() else 0.0
        return "badly localised", (
            f"A proposal covers it with IoU {case.proposals.max():.2f} and is a {case.name} with score {score:.2f}, "
            f"but the corrected box overlaps it with {best:.2f} only ({case.min_iou:g} is asked for)."
        )
    if rival is not None:
        name = trace.classes[trace.scored.labels[rival]]
        own_score = "" if score < 0 else f"; {case.name} got {score:.2f}"
        return "misclassified", (
            f"A box that overlaps it with IoU {case.scored[rival]:.2f} is called {name} with score {rival_score:.2f}"
            f"{own_score}."
        )
    row = int(own.argmax())
    background = float(trace.probabilities[row, -1])
    return "low score", (
        f"A proposal covers it with IoU {case.proposals[row]:.2f}, but is a {case.name} with score {score:.2f} only "
        f"({threshold:g} is asked for), background with {background:.2f}."
    )


def _rival(case: Case, covering: Bool[Tensor, " p"]) -> int | None:
    """The highest-scored box of another class on the object that no true object of that class explains."""
    trace = case.trace
    on_it = (case.scored >= case.min_iou) | covering[trace.scored_rows]
    wrong = on_it & (trace.scored.labels != case.label)
    explained = boxes.iou(trace.scored.boxes, case.ground_truths.boxes) >= case.min_iou
    explained &= trace.scored.labels[:, None] == case.ground_truths.labels
    wrong &= ~explained.any(dim=1)
    return _index_of_highest(trace.scored.scores, wrong) if wrong.any() else None


def _among_candidates(case: Case) -> Reason | None:
    """Candidates of the proposals generator that cover it, and did not become proposals."""
    trace, rules = case.trace, case.trace.model.proposals
    covering = case.candidates >= case.min_iou
    if not covering.any():
        return None
    best = _index_of_highest(
        trace.candidate_scores, covering & trace.good if (covering & trace.good).any() else covering
    )
    score = float(trace.candidate_scores[best])
    said = f"A candidate with objectness {score:.2f} covers it with IoU {case.candidates[best]:.2f}"
    if not trace.good[best]:
        return "low objectness", f"{said}, but {rules.min_score:g} is the least that a proposal needs."
    places = covering[trace.survivors].nonzero()[:, 0]
    if len(places):
        score = float(trace.candidate_scores[trace.survivors[places[0]]])
        return "low objectness", (
            f"A candidate with objectness {score:.2f} covers it and was left by NMS, but stands in place "
            f"{int(places[0]) + 1}, and only the best {rules.proposals} become proposals."
        )
    levels = trace.candidate_levels
    rivals = trace.survivors[levels[trace.survivors] == levels[best]]
    rivals = rivals[trace.candidate_scores[rivals] >= score]
    overlap = boxes.iou(trace.candidates[rivals], trace.candidates[best : best + 1])[:, 0]
    winner = int(rivals[overlap.argmax()])
    return "proposal NMS", (
        f"{said}, but NMS dropped it for one with {trace.candidate_scores[winner]:.2f}, which overlaps that candidate "
        f"with IoU {overlap.max():.2f} (above {rules.nms_threshold:g}) and the object itself with "
        f"{case.candidates[winner]:.2f} only."
    )


def _among_anchors(case: Case) -> Reason:
    trace = case.trace
    near_iou = trace.model.rpn_loss.assigner.negative_iou
    highest = float(case.anchors.max()) if len(case.anchors) else 0.0
    if highest < near_iou:
        return "no anchor", (
            f"The anchor that fits best overlaps it with IoU {highest:.2f}; below {near_iou:g}, training takes an "
            "anchor for background."
        )
    objectness, rank = best_objectness(case)
    chosen = torch.zeros_like(case.near)
    chosen[trace.candidate_index] = True
    if not (chosen & case.near).any() and objectness is not None:
        return "low objectness", (
            f"{int(case.near.sum())} anchors are near it, the best with IoU {highest:.2f}, but the highest objectness "
            f"among them is {objectness:.3f}, place {rank} of its level, and only the best "
            f"{trace.model.proposals.candidates} of a level become candidates."
        )
    best = float(case.candidates.max()) if len(case.candidates) else 0.0
    return "badly localised", (
        f"Anchors near it became candidates, but the corrected boxes overlap it with IoU {best:.2f} at most "
        f"({case.min_iou:g} is asked for)."
    )


def _index_of_highest(values: Tensor, where: Bool[Tensor, " n"]) -> int:
    """Index of the highest value among those that are meant."""
    index = where.nonzero()[:, 0]
    return int(index[values[index].argmax()])
