"""One true object against everything that a detector made: what the verdict about it is drawn from.

Axes: a anchors, k candidates, p proposals, n scored boxes, d detections. Boxes are xyxy in pixels of the network input.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from fasterrcnn.drawing import Edges
from fasterrcnn.explanation.trace import Trace
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
        truths: all objects.
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
    truths: Target
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
