"""The chain of reasons behind a verdict, from the detections back to the anchors.

Each function looks at one step. It gives the kind of verdict and a sentence, or None where the step had no box for the
object, so that the one before has to tell.
"""

from typing import Literal, get_args

import torch
from jaxtyping import Bool
from torch import Tensor

from fasterrcnn.explanation.case import Case, best_objectness
from fasterrcnn.ops import boxes

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
    best = _highest(trace.scored.scores, lost)
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
    best = _highest(case.scored, mine)
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
    explained = boxes.iou(trace.scored.boxes, case.truths.boxes) >= case.min_iou
    explained &= trace.scored.labels[:, None] == case.truths.labels
    wrong &= ~explained.any(dim=1)
    return _highest(trace.scored.scores, wrong) if wrong.any() else None


def _among_candidates(case: Case) -> Reason | None:
    """Candidates of the proposals generator that cover it, and did not become proposals."""
    trace, rules = case.trace, case.trace.model.proposals
    covering = case.candidates >= case.min_iou
    if not covering.any():
        return None
    best = _highest(trace.candidate_scores, covering & trace.good if (covering & trace.good).any() else covering)
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


def _highest(values: Tensor, where: Bool[Tensor, " n"]) -> int:
    """Index of the highest value among those that are meant."""
    index = where.nonzero()[:, 0]
    return int(index[values[index].argmax()])
