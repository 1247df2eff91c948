"""One annotated object against everything that a detector made: the numbers that its diagnosis is based on.

Axes: a anchors, k candidates, p proposals, n scored boxes, d detections. Boxes are xyxy in pixels of the network input.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from fasterrcnn.explanation.trace import Trace
from fasterrcnn.reporting.drawing import Edges
from fasterrcnn.structures import Target


@dataclass(frozen=True)
class Evidence:
    """The best that each step had for an object; None where it had nothing."""

    anchor_iou: float  # overlap with the anchor that fits best
    anchor_objectness: float | None = None  # highest objectness, 0..1, among the anchors near it
    anchor_rank: int | None = None  # place of that anchor among those of its level, from 1
    candidate_iou: float | None = None  # overlap with the best box among the candidates of the proposals generator
    proposal_iou: float | None = None  # overlap with the best proposal
    class_score: float | None = None  # highest probability of its class among the proposals that cover it
    other_class: str | None = None  # the likeliest other class among these
    other_score: float | None = None  # its probability
    box_iou: float | None = None  # overlap with the best box of its class above the score threshold, before NMS
    detection: int | None = None  # number of the detection that it was matched with, from 0
    detection_score: float | None = None  # its score
    detection_iou: float | None = None  # its overlap


@dataclass(frozen=True)
class ObjectOverlaps:
    """One object, with its overlaps with everything that the detector made."""

    trace: Trace  # the run
    number: int  # of the object, from 0
    label: int  # its class
    ground_truth: Target  # all objects
    min_iou: float  # from which overlap a box covers an object
    anchors: Float[Tensor, " a"]  # (all) IoU with the anchors
    near: Bool[Tensor, " a"]  # which anchors are near it, and no nearer to another object where there are such
    candidates: Float[Tensor, " k"]  # IoU with the candidates
    proposals: Float[Tensor, " p"]  # IoU with the proposals
    scored: Float[Tensor, " n"]  # IoU with the scored boxes
    matches: Int64[Tensor, " d"]  # for each detection the object that it was matched with, or -1

    @property
    def name(self) -> str:
        """Of its class."""
        return self.trace.classes[self.label]

    @property
    def detection(self) -> int | None:
        """Number of the detection that it was matched with, from 0."""
        matched = (self.matches == self.number).nonzero()[:, 0].tolist()
        return matched[0] if matched else None

    @property
    def detection_iou(self) -> float:
        """Its overlap with that detection."""
        return float(self.scored[self.trace.kept[self.detection]])


def gather_evidence(overlaps: ObjectOverlaps) -> Evidence:
    """The best that each step had for an object."""
    trace, label = overlaps.trace, overlaps.label
    probabilities = trace.probabilities[overlaps.proposals >= overlaps.min_iou]
    others = probabilities[:, :-1].clone()
    others[:, label] = -1
    other = int(others.amax(dim=0).argmax()) if others.numel() and len(trace.classes) > 1 else None
    objectness, rank = best_objectness(overlaps)
    detection = overlaps.detection
    return Evidence(
        anchor_iou=_highest(overlaps.anchors) or 0.0,
        anchor_objectness=objectness,
        anchor_rank=rank,
        candidate_iou=_highest(overlaps.candidates),
        proposal_iou=_highest(overlaps.proposals),
        class_score=_highest(probabilities[:, label]),
        other_class=None if other is None else trace.classes[other],
        other_score=None if other is None else float(others[:, other].max()),
        box_iou=_highest(overlaps.scored[trace.scored.labels == label]),
        detection=detection,
        detection_score=None if detection is None else float(trace.input_detections.scores[detection]),
        detection_iou=None if detection is None else overlaps.detection_iou,
    )


def best_objectness(overlaps: ObjectOverlaps) -> tuple[float | None, int | None]:
    """The highest objectness of the anchors near an object, and that anchor's place among those of its level."""
    logits = torch.cat(overlaps.trace.logits)
    near = overlaps.near.nonzero()[:, 0]
    if not len(near):
        return None, None
    best = int(near[logits[near].argmax()])
    start = 0
    for level in overlaps.trace.logits:
        if best < start + len(level):
            return float(logits[best].sigmoid()), 1 + int((level > logits[best]).sum())
        start += len(level)
    raise AssertionError("an anchor of no level")


def best_boxes(overlaps: ObjectOverlaps) -> dict[str, Edges]:
    """The best box of some steps for an object; steps that had none that touches it are left out."""
    trace = overlaps.trace
    of_its_class = torch.where(trace.scored.labels == overlaps.label, overlaps.scored, 0.0)
    steps: Sequence[tuple[str, Tensor, Tensor]] = (
        ("anchor", overlaps.anchors, torch.cat(trace.anchors)),
        ("candidate", overlaps.candidates, trace.candidates),
        ("proposal", overlaps.proposals, trace.proposals),
        ("scored box", of_its_class, trace.scored.boxes),
    )
    return {name: tuple(xyxy[int(iou.argmax())].tolist()) for name, iou, xyxy in steps if len(iou) and iou.max() > 0}


def _highest(values: Tensor) -> float | None:
    return float(values.max()) if len(values) else None
