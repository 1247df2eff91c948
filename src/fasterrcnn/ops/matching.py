"""Which object does an anchor or a proposal belong to, and which of them are trained on?

Chunked, so that 5,000 objects need no gigabytes.

Axes: a n anchors (or proposals), g ground truth, i ignored regions, s samples.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from fasterrcnn.ops import boxes

NEGATIVE = -1
"""The anchor shows background."""
IGNORED = -2
"""The anchor is neither positive nor negative: it takes no part in training."""

_CHUNK_PAIRS = 1_000_000
"""Pairs processed together: 4 MB for each temporary tensor, which fit into the cache."""


def match(
    anchors: Float[Tensor, "a 4"],
    gt_boxes: Float[Tensor, "g 4"],
    *,
    positive_iou: float,
    negative_iou: float,
    best_for_each: bool = False,
    zero_overlap: bool = False,
) -> Int64[Tensor, " a"]:
    """Index of the object each anchor belongs to, or `NEGATIVE`, or `IGNORED` (Ren et al. 2015, section 3.1.2).

    An anchor is positive from ``positive_iou`` on, negative below ``negative_iou``, ignored in between; it
    belongs to the object it overlaps most.

    Args:
        anchors: boxes to label.
        gt_boxes: the objects; without any, every anchor is negative.
        positive_iou: lowest IoU of a positive, 0..1.
        negative_iou: IoU under which an anchor is negative, 0..1.
        best_for_each: also take the anchors (ties included) that overlap an object most, however little.
        zero_overlap: let `best_for_each` reach objects that *no* anchor overlaps: every anchor with IoU 0 then
            becomes positive. Only for parity with torchvision, which does so; a target outside the image would
            turn most of its background into objects.
    """
    if len(gt_boxes) == 0 or len(anchors) == 0:
        return torch.full((len(anchors),), NEGATIVE, dtype=torch.int64, device=anchors.device)
    best_iou = anchors.new_empty(len(anchors))
    best_index = torch.empty(len(anchors), dtype=torch.int64, device=anchors.device)
    best_of_object = anchors.new_zeros(len(gt_boxes))
    for rows in _chunks(len(anchors), len(gt_boxes)):
        overlap = boxes.iou(anchors[rows], gt_boxes)
        torch.max(overlap, dim=1, out=(best_iou[rows], best_index[rows]))
        torch.maximum(best_of_object, overlap.amax(dim=0), out=best_of_object)
    matched = best_index.clone()
    matched[best_iou < positive_iou] = IGNORED
    matched[best_iou < negative_iou] = NEGATIVE
    if best_for_each:
        wanted = best_of_object if zero_overlap else best_of_object.masked_fill(best_of_object == 0, 2.0)
        candidates = (best_iou >= wanted.min()).nonzero()[:, 0]
        for rows in _chunks(len(candidates), len(gt_boxes)):
            chosen = candidates[rows]
            # Equality of floats is meant: the same numbers are computed again, which is cheaper than keeping them.
            chosen = chosen[(boxes.iou(anchors[chosen], gt_boxes) == wanted).any(dim=1)]
            matched[chosen] = best_index[chosen]
    return matched


def inside_ignored(anchors: Float[Tensor, "a 4"], regions: Float[Tensor, "i 4"]) -> Bool[Tensor, " a"]:
    """Which anchors lie by at least half of their own area inside an ignored region (a crowd)."""
    inside = torch.zeros(len(anchors), dtype=torch.bool, device=anchors.device)
    for rows in _chunks(len(anchors), len(regions)):
        inside[rows] = (boxes.intersection_over_area(anchors[rows], regions) >= 0.5).any(dim=1)
    return inside


def _chunks(anchors: int, objects: int) -> Iterator[slice]:
    """Rows of the anchors, so many that their overlaps with all objects stay small.

    The result of a chunk is written into tensors allocated beforehand: small results allocated between the large
    temporaries would keep the allocator from using their memory again.
    """
    rows = max(1, _CHUNK_PAIRS // max(1, objects))
    return (slice(start, start + rows) for start in range(0, anchors, rows))


def sample_balanced(
    positive: Bool[Tensor, " n"],
    negative: Bool[Tensor, " n"],
    *,
    count: int,
    positive_fraction: float,
    generator: torch.Generator | None = None,
) -> Int64[Tensor, " s"]:
    """Indices of at most ``count`` members, sorted, at most ``positive_fraction`` of them positive.

    Missing positives are replaced by negatives (Ren et al. 2015, section 3.1.3). What is neither positive nor
    negative is never drawn.
    """
    positives, negatives = positive.nonzero()[:, 0], negative.nonzero()[:, 0]
    wanted = min(len(positives), int(count * positive_fraction))
    positives = _draw(positives, wanted, generator)
    negatives = _draw(negatives, count - wanted, generator)
    return torch.cat([positives, negatives]).sort().values


def _draw(members: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    if len(members) <= count:
        return members
    # The permutation is drawn where the generator lives: a CPU generator also serves a GPU model.
    device = generator.device if generator is not None else members.device
    order = torch.randperm(len(members), generator=generator, device=device)[:count]
    return members[order.to(members.device)]
