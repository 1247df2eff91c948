"""Arithmetic of boxes: areas, overlaps, clipping, and the coding of boxes as regression targets.

Axes: n m boxes. Boxes are xyxy in continuous pixels of one frame, width = x2 - x1.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

MAX_LOG_SCALE = math.log(1000.0 / 16)
"""Largest dw or dh that is decoded: an anchor of 16 pixels may grow to 1,000. Keeps exp() finite."""


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
    return torch.cat([shift, growth], dim=1) * torch.tensor(weights, device=boxes.device)


def decode(
    deltas: Float[Tensor, "*n 4"],
    anchors: Float[Tensor, "*n 4"],
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
) -> Float[Tensor, "*n 4"]:
    """Boxes that the deltas describe; the inverse of `encode`, in float32 whatever the autocast dtype.

    dw and dh are clamped at `MAX_LOG_SCALE`, so that a wild network gives large boxes and not infinite ones.
    """
    anchors = anchors.float()
    dx, dy, dw, dh = (deltas.float() / torch.tensor(weights, device=deltas.device)).unbind(-1)
    width, height = anchors[..., 2] - anchors[..., 0], anchors[..., 3] - anchors[..., 1]
    centre_x = anchors[..., 0] + 0.5 * width + dx * width
    centre_y = anchors[..., 1] + 0.5 * height + dy * height
    half_width = 0.5 * width * dw.clamp(max=MAX_LOG_SCALE).exp()
    half_height = 0.5 * height * dh.clamp(max=MAX_LOG_SCALE).exp()
    return torch.stack(
        [centre_x - half_width, centre_y - half_height, centre_x + half_width, centre_y + half_height], dim=-1
    )
