"""One set of detections of an image from those of its tiles and of its test-time augmentations.

Axes: n m boxes. Boxes are xyxy in pixels of the original image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from fasterrcnn.inference.options import MergeKind
from fasterrcnn.model.postprocess import PostProcess
from fasterrcnn.ops import boxes as box_ops
from fasterrcnn.structures import RawDetections

_MIN_INSIDE = 0.5
"""A cut box is a piece of the object in another box if at least this share of it lies inside that one."""

_MIN_EXTENT_IOU = 0.5
"""Two pieces belong together if their extents along the cut overlap at least so much."""

LEFT, TOP, RIGHT, BOTTOM = range(4)


@dataclass(frozen=True)
class Pieces:
    """Boxes from several tiles of one image."""

    boxes: Float[Tensor, "n 4"]  # xyxy
    scores: Float[Tensor, " n"]  # 0..1
    labels: Int64[Tensor, " n"]  # 0..K-1
    tiles: Int64[Tensor, " n"]  # number of the tile of each box
    cut: Bool[Tensor, "n 4"]  # which sides (left, top, right, bottom) lie on an edge of the tile inside the image

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: Tensor | list[int]) -> "Pieces":
        return Pieces(*(getattr(self, field.name)[index] for field in fields(self)))

    def __add__(self, other: "Pieces") -> "Pieces":
        return Pieces(*(torch.cat([getattr(p, field.name) for p in (self, other)]) for field in fields(self)))


def pieces_of(parts: Sequence[RawDetections], cut: Sequence[Bool[Tensor, "_ 4"]]) -> Pieces:
    """The detections of the tiles of one image, one tile after the other."""
    return Pieces(
        torch.cat([part.boxes for part in parts]),
        torch.cat([part.scores for part in parts]),
        torch.cat([part.labels for part in parts]),
        torch.cat([torch.full_like(part.labels, number) for number, part in enumerate(parts)]),
        torch.cat(list(cut)),
    )


def vote(parts: Sequence[RawDetections], postprocess: PostProcess) -> RawDetections:
    """Weighted boxes fusion (Solovyev et al. 2019) of the detections in several augmented versions of one region.

    Boxes of a class that overlap are one object. Its box is their mean, weighted by score; its score is the sum of the
    best score in each version, divided by the number of versions.

    Args:
        parts: detections of each version, in one frame.
        postprocess: threshold and kind of NMS; an object needs a higher fused score than its score threshold.
    """
    every = pieces_of(parts, [torch.zeros_like(part.boxes, dtype=torch.bool) for part in parts])
    groups = _groups(every.labels, postprocess)
    leaders = box_ops.nms(every.boxes, every.scores, groups, postprocess.nms_threshold)
    overlap = box_ops.iou(every.boxes, every.boxes[leaders])
    overlap = overlap * (groups[:, None] == groups[leaders])
    best, owner = overlap.max(dim=1) if len(leaders) else (every.scores, every.labels)
    owner[leaders] = torch.arange(len(leaders), device=owner.device)
    best[leaders] = 1.0
    member = best > postprocess.nms_threshold
    weights = torch.zeros(len(every), len(leaders), device=best.device)
    weights[member, owner[member]] = every.scores[member]
    xyxy = weights.T @ every.boxes / weights.sum(dim=0)[:, None]
    best_scores = [weights[every.tiles == version].amax(dim=0) for version in torch.unique(every.tiles)]
    scores = torch.stack(best_scores).sum(dim=0) / len(parts) if best_scores else every.scores
    fused = RawDetections(xyxy, scores, every.labels[leaders])
    return _best(fused, postprocess.score_threshold, postprocess.max_detections)


def join(pieces: Pieces, postprocess: PostProcess, merge: MergeKind, *, limit: int | None = None) -> RawDetections:
    """One set of detections from those of overlapping tiles.

    A box that is cut by the edge of its tile is dropped if another box contains it; pieces of an object that is whole
    in no tile are united. Of the boxes that then still stand for one object, ``merge`` leaves one.

    Args:
        pieces: detections of all tiles.
        postprocess: the overlap from which two boxes are one object, and whether classes matter.
        merge: see `MergeKind`.
        limit: largest number of detections; None keeps all.
    """
    pieces = pieces[_survivors(pieces, postprocess, smaller=merge == "ios", same=merge != "soft")]
    pieces = _unite_all(pieces, postprocess)
    if merge == "soft":
        count = len(pieces) if limit is None else limit
        keep, scores = box_ops.soft_nms(
            pieces.boxes,
            pieces.scores,
            _groups(pieces.labels, postprocess),
            method="gaussian",
            sigma=postprocess.soft_sigma,
            min_score=postprocess.score_threshold,
            limit=max(1, count),
        )
        return RawDetections(pieces.boxes[keep], scores, pieces.labels[keep])
    keep = _survivors(pieces, postprocess, smaller=merge == "ios", same=True)
    kept = RawDetections(pieces.boxes[keep], pieces.scores[keep], pieces.labels[keep])
    return _best(kept, postprocess.score_threshold, limit)


def _survivors(pieces: Pieces, postprocess: PostProcess, *, smaller: bool, same: bool) -> Int64[Tensor, " m"]:
    """Indices of the boxes that no better one from another tile replaces: whole boxes first, then by score.

    Args:
        pieces: detections of all tiles.
        postprocess: threshold of the overlap, and whether classes matter.
        smaller: boxes that overlap too much of the smaller one replace each other.
        same: boxes with too large an IoU replace each other.
    """
    groups, threshold = _groups(pieces.labels, postprocess), postprocess.nms_threshold
    areas, is_cut = box_ops.areas(pieces.boxes), pieces.cut.any(dim=1)
    waiting = torch.ones(len(pieces), dtype=torch.bool, device=areas.device)
    keep = []
    for best in (pieces.scores - is_cut.float()).argsort(descending=True, stable=True).tolist():
        if not waiting[best]:
            continue
        keep.append(best)
        shared = box_ops.intersections(pieces.boxes, pieces.boxes[best : best + 1])[:, 0]
        replaced = is_cut & (shared > _MIN_INSIDE * areas)
        if same:
            replaced |= shared > threshold * (areas + areas[best] - shared)
        if smaller:
            replaced |= shared > threshold * areas.clamp(max=float(areas[best]))
        waiting &= ~(replaced & (groups == groups[best]) & (pieces.tiles != pieces.tiles[best]))
    return torch.tensor(keep, dtype=torch.int64, device=areas.device)


def _unite_all(pieces: Pieces, postprocess: PostProcess) -> Pieces:
    """Pieces of one object on both sides of an overlap of two tiles become one box, until no pair is left."""
    is_cut = pieces.cut.any(dim=1)
    whole, parts = pieces[~is_cut], pieces[is_cut]  # all pairs of parts are compared: there are few
    while (pair := _find_pair(parts, postprocess)) is not None:
        parts = _unite(parts, *pair)
    return whole + parts


def _find_pair(pieces: Pieces, postprocess: PostProcess) -> tuple[int, int, int] | None:
    """Two pieces that belong together, left or upper one first, and the axis (0: horizontal) along which they meet."""
    groups = _groups(pieces.labels, postprocess)
    allowed = (groups[:, None] == groups) & (pieces.tiles[:, None] != pieces.tiles)
    low, high = pieces.boxes[:, :2], pieces.boxes[:, 2:]
    for axis, first_side, second_side in ((0, RIGHT, LEFT), (1, BOTTOM, TOP)):
        across = 1 - axis
        shared = torch.minimum(high[:, None, across], high[:, across]) - torch.maximum(
            low[:, None, across], low[:, across]
        )
        extent = high[:, across] - low[:, across]
        fits = shared > _MIN_EXTENT_IOU * (extent[:, None] + extent - shared)
        touches = (low[:, None, axis] < low[:, axis]) & (high[:, None, axis] > low[:, axis])
        ends = pieces.cut[:, None, first_side] & pieces.cut[:, second_side]
        pairs = (allowed & fits & touches & ends).nonzero()
        if len(pairs):
            return int(pairs[0, 0]), int(pairs[0, 1]), axis
    return None


def _unite(pieces: Pieces, first: int, second: int, axis: int) -> Pieces:
    """The pieces with two of them as one box around both, with the better score, cut where their outer sides are."""
    a, b = pieces.boxes[first], pieces.boxes[second]
    box = torch.cat([torch.minimum(a[:2], b[:2]), torch.maximum(a[2:], b[2:])])
    cut = pieces.cut[first] | pieces.cut[second]
    near, far = (LEFT, RIGHT) if axis == 0 else (TOP, BOTTOM)
    cut[near], cut[far] = pieces.cut[first, near], pieces.cut[second, far]
    better = first if pieces.scores[first] >= pieces.scores[second] else second
    rest = torch.ones(len(pieces), dtype=torch.bool, device=box.device)
    rest[first] = rest[second] = False
    united = replace(pieces[[better]], boxes=box[None], tiles=pieces.tiles.max()[None] + 1, cut=cut[None])
    return pieces[rest] + united


def _groups(labels: Int64[Tensor, " n"], postprocess: PostProcess) -> Int64[Tensor, " n"]:
    return torch.zeros_like(labels) if postprocess.nms == "agnostic" else labels


def _best(detections: RawDetections, threshold: float, limit: int | None) -> RawDetections:
    """Detections above the threshold, the best first."""
    order = detections.scores.argsort(descending=True, stable=True)
    order = order[detections.scores[order] > threshold][:limit]
    return RawDetections(detections.boxes[order], detections.scores[order], detections.labels[order])
