"""Arithmetic of boxes: areas, overlaps, clipping, coding as regression targets, and non-maximum suppression.

Axes: n m boxes, k kept boxes. Boxes are xyxy in continuous pixels of one frame, width = x2 - x1.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torchvision.ops import batched_nms
from torchvision.ops import nms as ungrouped_nms

MAX_LOG_SCALE = math.log(1000.0 / 16)
"""Largest dw or dh that is decoded: an anchor of 16 pixels may grow to 1,000. Keeps exp() finite."""

_AT_ONCE = 2048

_GROUP_BY_GROUP = 1000
"""Of more boxes on a CPU, torchvision treats the groups one by one; of fewer, it moves them apart, which rounds."""

_MOVED_APART = 25_000
"""Of more boxes on a GPU, torchvision treats the groups one by one."""


def areas(boxes: Float[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    """Width times height, in square pixels."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def intersections(a: Float[Tensor, "n 4"], b: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """Area that each box of ``a`` shares with each box of ``b``, in square pixels."""
    a, b = a[:, None], b[None]
    # One axis at a time: an (n, m, 2) tensor would double the memory of the largest object in training.
    width = (torch.minimum(a[..., 2], b[..., 2]) - torch.maximum(a[..., 0], b[..., 0])).clamp_(min=0)
    height = (torch.minimum(a[..., 3], b[..., 3]) - torch.maximum(a[..., 1], b[..., 1])).clamp_(min=0)
    return width.mul_(height)


def iou(a: Float[Tensor, "n 4"], b: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """Intersection over union of every pair, 0..1; two boxes without area have 0."""
    shared = intersections(a, b)
    union = (areas(a)[:, None] + areas(b)[None]).sub_(shared)
    return torch.where(union > 0, shared / union, 0.0)


def intersection_over_area(a: Float[Tensor, "n 4"], b: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """The share of each box of ``a`` that lies inside each box of ``b``, 0..1."""
    area = areas(a)[:, None]
    return torch.where(area > 0, intersections(a, b) / area, 0.0)


def clip(boxes: Float[Tensor, "*n 4"], image_hw: tuple[int, int]) -> Float[Tensor, "*n 4"]:
    """Cut boxes at the border of an image of that height and width."""
    height, width = image_hw
    x = boxes[..., 0::2].clamp(0, width)
    y = boxes[..., 1::2].clamp(0, height)
    return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], dim=-1)


def at_least(boxes: Float[Tensor, "n 4"], side: float) -> Bool[Tensor, " n"]:
    """Which boxes have both sides at least ``side`` pixels long."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return (sides >= side).all(dim=1)


def have_area(boxes: Float[Tensor, "n 4"]) -> Bool[Tensor, " n"]:
    """Which boxes are wider and higher than nothing."""
    return (boxes[:, 2:] > boxes[:, :2]).all(dim=1)


def scale(boxes: Float[Tensor, "n 4"], from_hw: tuple[int, int], to_hw: tuple[int, int]) -> Float[Tensor, "n 4"]:
    """Carry boxes from an image of one size to the same image at another size."""
    # Each ratio is rounded to float32 before use, as torchvision does.
    y, x = (
        torch.tensor(to, dtype=torch.float32) / torch.tensor(old, dtype=torch.float32)
        for to, old in zip(to_hw, from_hw, strict=True)
    )
    return boxes * torch.stack([x, y, x, y]).to(boxes.device)


def flip_horizontal(boxes: Float[Tensor, "n 4"], width: int) -> Float[Tensor, "n 4"]:
    """Mirror boxes left to right in an image of that width."""
    return torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)


def encode(
    boxes: Float[Tensor, "n 4"],
    anchors: Float[Tensor, "n 4"],
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
) -> Float[Tensor, "n 4"]:
    """Boxes as deltas (dx, dy, dw, dh) from their anchors (Girshick et al. 2014, appendix C).

    Both sides must have positive width and height. ``weights`` multiply the four deltas.
    """
    anchor_size = anchors[:, 2:] - anchors[:, :2]
    box_size = boxes[:, 2:] - boxes[:, :2]
    anchor_centre = anchors[:, :2] + 0.5 * anchor_size
    box_centre = boxes[:, :2] + 0.5 * box_size
    shift = (box_centre - anchor_centre) / anchor_size
    growth = torch.log(box_size / anchor_size)
    deltas = torch.cat([shift, growth], dim=1)
    if weights == (1.0, 1.0, 1.0, 1.0):
        return deltas
    # Number by number: a tensor of the weights would have to be copied to a GPU.
    columns = zip(deltas.unbind(dim=1), weights, strict=True)
    return torch.stack([column * weight for column, weight in columns], dim=1)


def decode(
    deltas: Float[Tensor, "*n 4"],
    anchors: Float[Tensor, "*n 4"],
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
) -> Float[Tensor, "*n 4"]:
    """Boxes that the deltas describe; the inverse of `encode`, in float32 whatever the autocast dtype.

    dw and dh are clamped at `MAX_LOG_SCALE`, so that a wild network gives large boxes and not infinite ones.
    """
    anchors = anchors.float()
    columns = zip(deltas.float().unbind(-1), weights, strict=True)
    dx, dy, dw, dh = (column if weight == 1 else column / weight for column, weight in columns)
    width, height = anchors[..., 2] - anchors[..., 0], anchors[..., 3] - anchors[..., 1]
    centre_x = anchors[..., 0] + 0.5 * width + dx * width
    centre_y = anchors[..., 1] + 0.5 * height + dy * height
    half_width = 0.5 * width * dw.clamp(max=MAX_LOG_SCALE).exp()
    half_height = 0.5 * height * dh.clamp(max=MAX_LOG_SCALE).exp()
    return torch.stack(
        [centre_x - half_width, centre_y - half_height, centre_x + half_width, centre_y + half_height], dim=-1
    )


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
    boxes, scores = boxes.float(), scores.float()
    if boxes.device.type == "cpu" or not 0 < len(boxes) <= _MOVED_APART:
        kept = batched_nms(boxes, scores, groups, threshold)
    else:  # as `batched_nms` does, but it makes the number 1 on the CPU and copies it
        kept = ungrouped_nms(boxes + (groups * (boxes.max() + 1))[:, None], scores, threshold)
    # Sorted, because torchvision does not define the order of equal scores.
    return kept.sort().values


def best_of_each(
    images: Sequence[tuple[Float[Tensor, "_ 4"], Float[Tensor, " _"], Int64[Tensor, " _"], Bool[Tensor, " _"]]],
    threshold: float,
    limit: int,
) -> list[Int64[Tensor, " _"]]:
    """`best_after_nms` of the boxes, scores and groups of each image, without the boxes that are not usable.

    On a CPU the images share torch's threads, of which the kernel itself uses one.
    """
    if images and images[0][0].device.type != "cpu":
        return _best_of_each_on_gpu(images, threshold, limit)

    def best(boxes: Tensor, scores: Tensor, groups: Tensor, usable: Tensor) -> Tensor:
        members = usable.nonzero()[:, 0]
        return members[best_after_nms(boxes[members], scores[members], groups[members], threshold, limit)]

    threads = min(len(images), torch.get_num_threads())
    if threads < 2:
        return [best(*image) for image in images]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(best, *zip(*images, strict=True)))


def _best_of_each_on_gpu(
    images: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]], threshold: float, limit: int
) -> list[Tensor]:
    """As `best_of_each`: boxes that are not usable come last, and are cut off when all images are done.

    To leave them out before, the CPU would have to wait for the GPU.
    """
    kept = []
    for boxes, scores, groups, usable in images:
        ranks = scores.masked_fill(~usable, -math.inf)
        kept.append(best_after_nms(boxes.nan_to_num(0.0), ranks, groups, threshold, limit))
    counts = torch.stack([image[-1][index].sum() for image, index in zip(images, kept, strict=True)]).tolist()
    return [index[:count] for index, count in zip(kept, counts, strict=True)]


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
    overlap = iou(best.float(), boxes.float()) * (best_groups[:, None] == groups[None])
    if method == "linear":
        return torch.where(overlap >= threshold, 1 - overlap, 1.0)
    return torch.exp(overlap.square_().div_(-sigma))
