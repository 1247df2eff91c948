"""Non-maximum suppression: hard within groups (torchvision's kernel), and soft (Bodla et al. 2017).

Axes: n boxes, k kept boxes.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchvision.ops import batched_nms

from fasterrcnn.ops import boxes as box_ops

_AT_ONCE = 2048

_GROUP_BY_GROUP = 1000
"""Of more boxes on a CPU, torchvision treats the groups one by one; of fewer, it moves them apart, which rounds."""


def nms(
    boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], groups: Int64[Tensor, " n"], threshold: float
) -> Int64[Tensor, " k"]:
    """Indices of the boxes that stay, by falling score, equal ones in their order.

    Boxes suppress each other only within a group.

    Args:
        boxes: xyxy.
        scores: any order-preserving number.
        groups: class or pyramid level of each box; all zeros make it class-agnostic.
        threshold: IoU above which the lower-scored box goes, 0..1.
    """
    order = scores.argsort(descending=True, stable=True)
    return order[_survivors(boxes[order], scores[order], groups[order], threshold)]


def best_after_nms(
    boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], groups: Int64[Tensor, " n"], threshold: float, limit: int
) -> Int64[Tensor, " k"]:
    """At most the first ``limit`` indices of `nms`, from part after part of the boxes until they are enough."""
    order = scores.argsort(descending=True, stable=True)
    kept = order[:0]
    parts = len(order) // max(limit, 2 * _GROUP_BY_GROUP) if boxes.device.type == "cpu" else 1
    for part in order.tensor_split(max(1, parts)):
        # Whether a box is suppressed depends only on the boxes before it.
        best = torch.cat([kept, part])
        kept = best[_survivors(boxes[best], scores[best], groups[best], threshold)]
        if len(kept) >= limit:
            break
    return kept[:limit]


def _survivors(
    boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], groups: Int64[Tensor, " n"], threshold: float
) -> Int64[Tensor, " k"]:
    """Rising indices of what stays of boxes that are sorted already."""
    # Sorted, because torchvision does not define the order of equal scores.
    return batched_nms(boxes.float(), scores.float(), groups, threshold).sort().values


def best_of_each(
    images: Sequence[tuple[Float[Tensor, "_ 4"], Float[Tensor, " _"], Int64[Tensor, " _"]]],
    threshold: float,
    limit: int,
) -> list[Int64[Tensor, " _"]]:
    """`best_after_nms` of the boxes, scores and groups of each image.

    On a CPU the images share torch's threads, of which the kernel itself uses one.
    """
    threads = min(len(images), torch.get_num_threads())
    if threads < 2 or images[0][0].device.type != "cpu":
        return [best_after_nms(*image, threshold, limit) for image in images]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(best_after_nms, *zip(*images, strict=True), repeat(threshold), repeat(limit)))


def soft_nms(
    boxes: Float[Tensor, "n 4"],
    scores: Float[Tensor, " n"],
    groups: Int64[Tensor, " n"],
    *,
    method: str,
    threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 0.0,
    limit: int,
) -> tuple[Int64[Tensor, " k"], Float[Tensor, " k"]]:
    """Indices and lowered scores, by falling score: overlapped boxes fade instead of vanishing.

    Args:
        boxes: xyxy.
        scores: 0..1.
        groups: boxes lower each other only within a group.
        method: "linear" (score x (1 - IoU) from ``threshold`` on) or "gaussian" (score x exp(-IoU² / sigma)).
        threshold: IoU from which "linear" acts.
        sigma: width of "gaussian".
        min_score: boxes need a higher score, also after fading.
        limit: stop after that many boxes.
    """
    boxes, scores = boxes.detach(), scores.detach().float().clone()
    # All factors at once are fastest, but for very many boxes they need too much memory.
    all_factors = _fading(boxes, groups, boxes, groups, method, threshold, sigma) if len(boxes) <= _AT_ONCE else None
    kept: list[int] = []
    kept_scores: list[float] = []
    while len(kept) < min(limit, len(boxes)):
        best = int(scores.argmax())
        score = float(scores[best])
        if score <= min_score:
            break
        kept.append(best)
        kept_scores.append(score)
        row = slice(best, best + 1)
        scores *= (
            _fading(boxes[row], groups[row], boxes, groups, method, threshold, sigma)[0]
            if all_factors is None
            else all_factors[best]
        )
        scores[best] = -math.inf
    index = torch.tensor(kept, dtype=torch.int64, device=boxes.device)
    return index, torch.tensor(kept_scores, dtype=torch.float32, device=boxes.device)


def _fading(
    best: Float[Tensor, "m 4"],
    best_groups: Int64[Tensor, " m"],
    boxes: Float[Tensor, "n 4"],
    groups: Int64[Tensor, " n"],
    method: str,
    threshold: float,
    sigma: float,
) -> Float[Tensor, "m n"]:
    """What the score of each box is multiplied by when one of the best is taken, 0..1."""
    overlap = box_ops.iou(best.float(), boxes.float()) * (best_groups[:, None] == groups[None])
    if method == "linear":
        return torch.where(overlap >= threshold, 1 - overlap, 1.0)
    return torch.exp(overlap.square_().div_(-sigma))
