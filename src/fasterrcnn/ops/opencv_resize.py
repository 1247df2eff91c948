"""OpenCV's bilinear resizing of whole levels, in its own fixed-point arithmetic: the same bytes without OpenCV.

Axes: c colours, h w pixels of the source, t th tw pixels of the target.
"""

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

_ONE = 2048
"""A weight of 1: OpenCV's weights have 11 bits."""


def resize_bilinear(pixels: UInt8[Tensor, "c h w"], to_hw: tuple[int, int]) -> UInt8[Tensor, "c th tw"]:
    """The image at the wanted size, as ``cv2.resize(..., interpolation=cv2.INTER_LINEAR)`` gives it.

    Each target pixel reads four pixels of the source, however much the image shrinks.
    """
    top, bottom, from_top, from_bottom = _taps(pixels.shape[1], to_hw[0], pixels.device, whole_at_ends=False)
    left, right, from_left, from_right = _taps(pixels.shape[2], to_hw[1], pixels.device, whole_at_ends=True)
    source = pixels.int()
    # The shifts drop the bits that OpenCV drops between its two passes.
    rows = (source[:, :, left] * from_left + source[:, :, right] * from_right) >> 4
    upper, lower = rows[:, top] * from_top[:, None] >> 16, rows[:, bottom] * from_bottom[:, None] >> 16
    return (upper + lower + 2 >> 2).byte()


def _taps(
    size: int, target: int, device: torch.device, *, whole_at_ends: bool
) -> tuple[Int64[Tensor, " t"], Int64[Tensor, " t"], Tensor, Tensor]:
    """The two neighbours of each target pixel along one axis, and their weights of 0..2048.

    Beyond the first and the last pixel both neighbours are that pixel. It has the whole weight, or both parts of it,
    which rounds otherwise: OpenCV does the one for columns and the other for rows.
    """
    scale = 1 / (target / size)  # as OpenCV computes it
    place = ((torch.arange(target, dtype=torch.float64) + 0.5) * scale - 0.5).float()
    low = place.floor()
    share = place - low
    if whole_at_ends:
        share = torch.where((low < 0) | (low >= size - 1), 0.0, share)
    high = (low + 1).clamp(0, size - 1).long()
    low = low.clamp(0, size - 1).long()
    weights = [(part * _ONE).round().int().to(device) for part in (1 - share, share)]
    return low.to(device), high.to(device), weights[0], weights[1]
