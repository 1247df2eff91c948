"""One set of detections from several looks at an image.

Axes: n m boxes. Boxes are xyxy in pixels of the original image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from fasterrcnn.model.postprocess import PostProcess
from fasterrcnn.ops import boxes as box_ops
from fasterrcnn.ops.nms import nms, soft_nms
from fasterrcnn.structures import RawDetections

MergeKind = Literal["nms", "soft", "ios"]
"""What happens to two boxes of one class from different tiles: the weaker goes where their intersection over union is
too large, its score is lowered, or it goes where their intersection over the smaller of them is too large."""

_INSIDE = 0.5
"""Share of a cut box inside another one from which it is taken for a piece of the same object."""

_SAME_EXTENT = 0.5
"""Two pieces belong together where their extents along the cut overlap at least so much."""

LEFT, TOP, RIGHT, BOTTOM = range(4)


@dataclass(frozen=True)
class Pieces:
    """Boxes from several tiles of one image.

    Attributes:
        boxes: xyxy.
        scores: 0..1.
        labels: 0..K-1.
        tiles: number of the tile that each comes from.
        cut: which sides (left, top, right, bottom) lie on an edge of the tile inside the image.
    """

    boxes: Float[Tensor, "n 4"]
    scores: Float[Tensor, " n"]
    labels: Int64[Tensor, " n"]
    tiles: Int64[Tensor, " n"]
    cut: Bool[Tensor, "n 4"]

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: Tensor) -> "Pieces":
        return Pieces(*(getattr(self, part.name)[index] for part in fields(self)))

    def __add__(self, other: "Pieces") -> "Pieces":
        return Pieces(*(torch.cat([getattr(p, part.name) for p in (self, other)]) for part in fields(self)))


def pieces_of(found: Sequence[RawDetections], cut: Sequence[Bool[Tensor, "_ 4"]]) -> Pieces:
    """What was found in the tiles of one image, one after the other."""
    return Pieces(
        torch.cat([one.boxes for one in found]),
        torch.cat([one.scores for one in found]),
        torch.cat([one.labels for one in found]),
        torch.cat([torch.full_like(one.labels, number) for number, one in enumerate(found)]),
        torch.cat(list(cut)),
    )


def vote(found: Sequence[RawDetections], rules: PostProcess) -> RawDetections:
    """What several looks at the same region agree on.

    Boxes of a class that overlap are one object. Its box is their mean, weighted by score; its score the sum of the
    best score of each look, divided by the number of looks (Solovyev et al. 2019, weighted boxes fusion).

    Args:
        found: detections of each look, in one frame.
        rules: threshold and kind of NMS; an object needs a higher mean score than their threshold.
    """
    every = pieces_of(found, [torch.zeros_like(one.boxes, dtype=torch.bool) for one in found])
    groups = _groups(every.labels, rules)
    leaders = nms(every.boxes, every.scores, groups, rules.nms_threshold)
    overlap = box_ops.iou(every.boxes, every.boxes[leaders])
    overlap = overlap * (groups[:, None] == groups[leaders])
    best, owner = overlap.max(dim=1) if len(leaders) else (every.scores, every.labels)
    owner[leaders] = torch.arange(len(leaders), device=owner.device)
    best[leaders] = 1.0
    member = best > rules.nms_threshold
    weights = torch.zeros(len(every), len(leaders), device=best.device)
    weights[member, owner[member]] = every.scores[member]
    xyxy = weights.T @ every.boxes / weights.sum(dim=0)[:, None]
    best_of_look = [weights[every.tiles == look].amax(dim=0) for look in torch.unique(every.tiles)]
    scores = torch.stack(best_of_look).sum(dim=0) / len(found) if best_of_look else every.scores
    return _best(RawDetections(xyxy, scores, every.labels[leaders]), rules.score_threshold, rules.max_detections)


def join(pieces: Pieces, rules: PostProcess, merge: MergeKind, *, limit: int | None = None) -> RawDetections:
    """One set of detections from those of overlapping tiles.

    A box that its tile has cut yields to any box that holds it; pieces of an object that no tile has seen whole are
    put together. What is then still found twice is dealt with as ``merge`` says.

    Args:
        pieces: detections of all tiles.
        rules: the overlap from which two boxes are one object, and whether classes matter.
        merge: see `MergeKind`.
        limit: most detections; None keeps all.
    """
    groups = _groups(pieces.labels, rules)
    pieces = pieces[_survivors(pieces, groups, rules.nms_threshold, smaller=merge == "ios", same=merge != "soft")]
    pieces = _put_together(pieces, rules)
    if merge == "soft":
        count = len(pieces) if limit is None else limit
        keep, scores = soft_nms(
            pieces.boxes,
            pieces.scores,
            _groups(pieces.labels, rules),
            method="gaussian",
            sigma=rules.soft_sigma,
            min_score=rules.score_threshold,
            limit=max(1, count),
        )
        return RawDetections(pieces.boxes[keep], scores, pieces.labels[keep])
    groups = _groups(pieces.labels, rules)
    keep = _survivors(pieces, groups, rules.nms_threshold, smaller=merge == "ios", same=True)
    found = RawDetections(pieces.boxes[keep], pieces.scores[keep], pieces.labels[keep])
    return _best(found, rules.score_threshold, limit)


def _survivors(
    pieces: Pieces, groups: Int64[Tensor, " n"], threshold: float, *, smaller: bool, same: bool
) -> Int64[Tensor, " m"]:
    """Indices of the boxes that no better one from another tile stands for: whole ones first, then by score."""
    areas, is_cut = box_ops.areas(pieces.boxes), pieces.cut.any(dim=1)
    waiting = torch.ones(len(pieces), dtype=torch.bool, device=areas.device)
    keep = []
    for best in (pieces.scores - is_cut.float()).argsort(descending=True, stable=True).tolist():
        if not waiting[best]:
            continue
        keep.append(best)
        shared = box_ops.intersections(pieces.boxes, pieces.boxes[best : best + 1])[:, 0]
        gone = is_cut & (shared > _INSIDE * areas)
        if same:
            gone |= shared > threshold * (areas + areas[best] - shared)
        if smaller:
            gone |= shared > threshold * areas.clamp(max=float(areas[best]))
        waiting &= ~(gone & (groups == groups[best]) & (pieces.tiles != pieces.tiles[best]))
    return torch.tensor(keep, dtype=torch.int64, device=areas.device)


def _put_together(pieces: Pieces, rules: PostProcess) -> Pieces:
    """Boxes that face each other across an overlap of two tiles, and fit, become one; until none is left."""
    is_cut = pieces.cut.any(dim=1)
    whole, parts = pieces[~is_cut], pieces[is_cut]  # every pair of parts is looked at: there are few
    while (pair := _facing(parts, rules)) is not None:
        parts = _united(parts, *pair)
    return whole + parts


def _facing(pieces: Pieces, rules: PostProcess) -> tuple[int, int, int] | None:
    """Two pieces that belong together, left or upper one first, and the axis (0: horizontal) along which they meet."""
    groups = _groups(pieces.labels, rules)
    allowed = (groups[:, None] == groups) & (pieces.tiles[:, None] != pieces.tiles)
    low, high = pieces.boxes[:, :2], pieces.boxes[:, 2:]
    for axis, first_side, second_side in ((0, RIGHT, LEFT), (1, BOTTOM, TOP)):
        across = 1 - axis
        shared = torch.minimum(high[:, None, across], high[:, across]) - torch.maximum(
            low[:, None, across], low[:, across]
        )
        extent = high[:, across] - low[:, across]
        fits = shared > _SAME_EXTENT * (extent[:, None] + extent - shared)
        touches = (low[:, None, axis] < low[:, axis]) & (high[:, None, axis] > low[:, axis])
        ends = pieces.cut[:, None, first_side] & pieces.cut[:, second_side]
        pairs = (allowed & fits & touches & ends).nonzero()
        if len(pairs):
            return int(pairs[0, 0]), int(pairs[0, 1]), axis
    return None


def _united(pieces: Pieces, first: int, second: int, axis: int) -> Pieces:
    """The pieces with two of them as one: around both, with the better score, cut where their outer sides are."""
    a, b = pieces.boxes[first], pieces.boxes[second]
    box = torch.cat([torch.minimum(a[:2], b[:2]), torch.maximum(a[2:], b[2:])])
    cut = pieces.cut[first] | pieces.cut[second]
    near, far = (LEFT, RIGHT) if axis == 0 else (TOP, BOTTOM)
    cut[near], cut[far] = pieces.cut[first, near], pieces.cut[second, far]
    better = first if pieces.scores[first] >= pieces.scores[second] else second
    rest = torch.ones(len(pieces), dtype=torch.bool, device=box.device)
    rest[first] = rest[second] = False
    one = Pieces(
        box[None],
        pieces.scores[better, None],
        pieces.labels[better, None],
        pieces.tiles.max()[None] + 1,
        cut[None],
    )
    return pieces[rest] + one


def _groups(labels: Int64[Tensor, " n"], rules: PostProcess) -> Int64[Tensor, " n"]:
    return torch.zeros_like(labels) if rules.nms == "agnostic" else labels


def _best(found: RawDetections, threshold: float, limit: int | None) -> RawDetections:
    """What is above the threshold, the best first."""
    order = found.scores.argsort(descending=True, stable=True)
    order = order[found.scores[order] > threshold][:limit]
    return RawDetections(found.boxes[order], found.scores[order], found.labels[order])
