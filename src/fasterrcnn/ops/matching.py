"""Which object does an anchor or a proposal belong to, and which of them are trained on?

Chunked, so that 5,000 objects need no gigabytes.

Axes: a n anchors (or proposals), g ground truth, i ignored regions, s places of a sample, d drawn.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor

from fasterrcnn.ops import boxes

NEGATIVE = -1
"""The anchor shows background."""
IGNORED = -2
"""The anchor is neither positive nor negative: it takes no part in training."""

_CHUNK_PAIRS = 1_000_000
"""Pairs processed together on a CPU: 4 MB for each temporary tensor, which fit into the cache."""
_GPU_CHUNK_PAIRS = 64_000_000
"""Pairs processed together on a GPU, which would wait for the launches of small chunks."""

_NOT_A_MEMBER = -(2**31)


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
    for rows in _chunks(anchors, gt_boxes):
        overlap = boxes.iou(anchors[rows], gt_boxes)
        torch.max(overlap, dim=1, out=(best_iou[rows], best_index[rows]))
        torch.maximum(best_of_object, overlap.amax(dim=0), out=best_of_object)
    matched = best_index.masked_fill(best_iou < positive_iou, IGNORED).masked_fill_(best_iou < negative_iou, NEGATIVE)
    if best_for_each:
        wanted = best_of_object if zero_overlap else best_of_object.masked_fill(best_of_object == 0, 2.0)
        if anchors.device.type == "cpu":
            candidates = (best_iou >= wanted.min()).nonzero()[:, 0]
        else:  # to know the few that may be chosen, the CPU would have to wait for the GPU
            candidates = torch.arange(len(anchors), device=anchors.device)
        for rows in _chunks(candidates, gt_boxes):
            chosen = candidates[rows]
            # Equality of floats is meant: the same numbers are computed again, which is cheaper than keeping them.
            is_best = (boxes.iou(anchors[chosen], gt_boxes) == wanted).any(dim=1)
            matched[chosen] = torch.where(is_best, best_index[chosen], matched[chosen])
    return matched


def inside_ignored(anchors: Float[Tensor, "a 4"], regions: Float[Tensor, "i 4"]) -> Bool[Tensor, " a"]:
    """Which anchors lie by at least half of their own area inside an ignored region (a crowd)."""
    inside = torch.zeros(len(anchors), dtype=torch.bool, device=anchors.device)
    for rows in _chunks(anchors, regions):
        inside[rows] = (boxes.intersection_over_area(anchors[rows], regions) >= 0.5).any(dim=1)
    return inside


def _chunks(anchors: Tensor, objects: Tensor) -> Iterator[slice]:
    """Rows of the anchors, so many that their overlaps with all objects stay small.

    The result of a chunk is written into tensors allocated beforehand: small results allocated between the large
    temporaries would keep the allocator from using their memory again.
    """
    pairs = _CHUNK_PAIRS if anchors.device.type == "cpu" else _GPU_CHUNK_PAIRS
    rows = max(1, pairs // max(1, len(objects)))
    return (slice(start, start + rows) for start in range(0, len(anchors), rows))


@dataclass(frozen=True)
class BalancedSample:
    """Members drawn from many.

    Attributes:
        index: of every place of the sample, which of all is drawn.
        drawn: whether the place is taken: a sample of few members has fewer than it has places.
    """

    index: Int64[Tensor, " s"]
    drawn: Bool[Tensor, " s"]

    def sorted(self) -> Int64[Tensor, " d"]:
        """Rising indices of those that are drawn. The CPU waits for a GPU here, to know how many there are."""
        return self.index[self.drawn].sort().values


def sample_balanced(
    positive: Bool[Tensor, " n"],
    negative: Bool[Tensor, " n"],
    *,
    count: int,
    positive_fraction: float,
    generator: torch.Generator | None = None,
) -> BalancedSample:
    """At most ``count`` members, at most ``positive_fraction`` of them positive.

    Missing positives are replaced by negatives (Ren et al. 2015, section 3.1.3). What is neither positive nor
    negative is never drawn. Equal states of the generator give equal draws on every device.
    """
    order = _random_order(len(positive), positive.device, generator)
    positives = _first(order, positive, int(count * positive_fraction))
    negatives = _first(order, negative, count)
    is_positive = positive[positives]
    places = torch.arange(len(negatives), device=positive.device)
    is_negative = negative[negatives] & (places < count - is_positive.sum())
    return BalancedSample(torch.cat([positives, negatives]), torch.cat([is_positive, is_negative]))


def _first(order: Int32[Tensor, " n"], members: Bool[Tensor, " n"], count: int) -> Int64[Tensor, " s"]:
    """Indices of the ``count`` members with the highest numbers; of fewer members, on a GPU, then of some others."""
    count = min(count, len(order))
    if order.device.type != "cpu":
        return order.masked_fill(~members, _NOT_A_MEMBER).topk(count).indices
    candidates, number = members, int(members.count_nonzero())
    if number > 8 * count:  # only the highest need to be ordered: about 4 times as many as are wanted
        candidates = members & (order >= int(2**31 - 4 * count / number * 2**32))
    index = candidates.nonzero()[:, 0]
    if len(index) < count < number:
        index = members.nonzero()[:, 0]
    return index[order[index].topk(min(count, len(index))).indices]


def _random_order(count: int, device: torch.device, generator: torch.Generator | None) -> Int32[Tensor, " n"]:
    """Different random numbers, by which ``count`` members can be ordered.

    Two numbers are drawn, where the generator lives, and mixed with the index of each member as MurmurHash3 does
    (Appleby 2011). A permutation would have to be drawn on the CPU, member by member.
    """
    place = generator.device if generator is not None else "cpu"
    first, second = torch.randint(-(2**31), 2**31, (2,), generator=generator, device=place).tolist()
    # Each step is one-to-one on 32 bits, so no two members have the same number.
    order = torch.arange(count, dtype=torch.int32, device=device).mul_(-1640531527).bitwise_xor_(first)
    order.bitwise_xor_(order >> 16).mul_(-2048144789).bitwise_xor_(second)
    order.bitwise_xor_(order >> 13).mul_(-1028477387)
    return order.bitwise_xor_(order >> 16)
