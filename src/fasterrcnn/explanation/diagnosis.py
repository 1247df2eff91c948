"""Why was it missed? For every true object the step of the detector at which it was lost, and the numbers that show it.

Axes: g objects, d detections. Boxes are xyxy in pixels of the network input.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from fasterrcnn.explanation.evidence import Case, Evidence, Kind, best_boxes, gather, reason
from fasterrcnn.explanation.trace import Trace
from fasterrcnn.ops import boxes
from fasterrcnn.reporting.drawing import Edges
from fasterrcnn.structures import Target

_OBJECTS = 16

MEANINGS: dict[Kind, str] = {
    "found": "a detection of its class covers it",
    "no anchor": "no anchor has its size, shape and place: it was never looked at",
    "low objectness": "the region proposal network did not take it for an object, or not soon enough",
    "proposal NMS": "its proposals gave way to a likelier one that shows something else",
    "misclassified": "it was seen, and given another class",
    "low score": "it was seen, but its class did not get a high enough score",
    "badly localised": "it was seen, but no box fits it",
    "detection NMS": "its box gave way to a higher-scored one",
    "merged": "one detection covers it and another object, and counts for that one",
}

ADVICE: dict[Kind, str] = {
    "found": "",
    "no anchor": "fit anchors to your objects (data anchors), or use larger inputs for small objects",
    "low objectness": "keep more candidates and proposals; if its objectness is low, train on more objects like it",
    "proposal NMS": "raise the NMS threshold of the proposals: the object overlaps its neighbour",
    "misclassified": "look at the labels of both classes; train on more images that tell them apart",
    "low score": "lower the score threshold, or train on more objects like it",
    "badly localised": "train longer, with larger inputs, or check how tightly such objects are annotated",
    "detection NMS": "raise the NMS threshold of the detections, or use soft NMS",
    "merged": "the object overlaps its neighbour: larger inputs, a higher NMS threshold, soft NMS",
}


@dataclass(frozen=True)
class Verdict:
    """What became of one true object.

    Attributes:
        number: of the object, from 1, in the order in which they were given.
        label: its class.
        name: of its class.
        box: where it is, in pixels of the network input.
        kind: where it was lost, or "found".
        why: one sentence with the numbers that prove it.
        evidence: what each step had to offer.
        best: the best box of some steps, by their names, for an image.
    """

    number: int
    label: int
    name: str
    box: Edges
    kind: Kind
    why: str
    evidence: Evidence
    best: dict[str, Edges] = field(default_factory=dict)


def judge(trace: Trace, ground_truths: Target, *, min_iou: float = 0.5) -> list[Verdict]:
    """What became of every true object, in their order.

    The verdict names the last step that still had a box for an object: objects are looked for from the end, among the
    detections, the scored boxes, the proposals, the candidates and the anchors. A box has an object when they overlap
    by ``min_iou``; an anchor is near an object from the overlap on below which training calls it background.

    Args:
        trace: a run.
        ground_truths: what is true of the image, in the frame of the network input.
        min_iou: lowest overlap of a box that counts, 0..1.
    """
    taken = match_detections(trace, ground_truths, min_iou)
    anchors = torch.cat(trace.anchors)
    highest = _highest_overlaps(anchors, ground_truths)
    near_iou = trace.model.rpn_loss.assigner.negative_iou
    verdicts = []
    for number, label in enumerate(ground_truths.labels.tolist()):
        box = ground_truths.boxes[number : number + 1]
        mine = boxes.iou(anchors, box)[:, 0]
        case = Case(
            trace,
            number,
            label,
            ground_truths,
            min_iou,
            mine,
            _near(mine, highest, near_iou),
            boxes.iou(trace.candidates, box)[:, 0],
            boxes.iou(trace.proposals, box)[:, 0],
            boxes.iou(trace.scored.boxes, box)[:, 0],
            taken,
        )
        kind, why = reason(case)
        x1, y1, x2, y2 = box[0].tolist()
        verdicts.append(
            Verdict(number + 1, label, case.name, (x1, y1, x2, y2), kind, why, gather(case), best_boxes(case))
        )
    return verdicts


def _highest_overlaps(anchors: Float[Tensor, "a 4"], ground_truths: Target) -> Float[Tensor, " a"]:
    """Of each anchor with any object; a few objects at a time, for all of them may need gigabytes."""
    highest = anchors.new_zeros(len(anchors))
    for some in torch.split(ground_truths.boxes, _OBJECTS) if len(ground_truths.boxes) else ():
        highest = torch.maximum(highest, boxes.iou(anchors, some).amax(dim=1))
    return highest


def _near(mine: Float[Tensor, " a"], highest: Float[Tensor, " a"], near_iou: float) -> Bool[Tensor, " a"]:
    """Which anchors are near an object and no nearer to another; if all are nearer to others, those that are near."""
    near = mine >= near_iou
    own = near & (mine >= highest - 1e-6)
    return own if own.any() else near


def match_detections(trace: Trace, ground_truths: Target, min_iou: float) -> Int64[Tensor, " d"]:
    """The object that each detection counts for, or -1: by falling score, each takes the free object of its class that
    it overlaps most, as COCO's evaluation does (Lin et al. 2014).
    """
    taken = torch.full((len(trace.found.boxes),), -1)
    if not len(ground_truths.boxes):
        return taken
    overlap = boxes.iou(trace.found.boxes, ground_truths.boxes)
    overlap[trace.found.labels[:, None] != ground_truths.labels] = 0
    for number in range(len(taken)):
        best = int(overlap[number].argmax())
        if overlap[number, best] >= min_iou:
            taken[number] = best
            overlap[:, best] = 0
    return taken
