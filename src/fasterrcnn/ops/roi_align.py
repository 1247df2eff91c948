"""RoIAlign (He et al. 2017) as a weighted gather-sum, several times faster on a CPU than the usual kernel.

A feature map in channels_last memory is a table of h * w rows of c numbers. Each output bin is the mean of
s x s bilinear samples, so it is a weighted sum of 4 * s * s rows of that table: exactly what `embedding_bag`
computes, on all cores and over whole rows. The gradient is the transposed sum: for each row of the table, over
the bins that used it, found by sorting the row indices once.

Axes: b images, c channels, h w cells, r regions, o output side, s samples per bin side, t taps (4 * s * s).
"""

from typing import Any

import torch
import torchvision
from jaxtyping import Float, Int32
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag


def roi_align(
    features: Float[Tensor, "b c h w"],
    rois: Float[Tensor, "r 5"],
    *,
    output_size: int,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Float[Tensor, "r c o o"]:
    """Pool each region to ``output_size`` x ``output_size`` bins; the same numbers as `torchvision.ops.roi_align`.

    On a CPU with a fixed sampling ratio this is the gather-sum of this module, elsewhere torchvision's kernel.

    Args:
        features: one feature map per image.
        rois: image index, x1, y1, x2, y2 in pixels of the network input.
        output_size: bins per side.
        spatial_scale: cells per pixel, 1 / stride.
        sampling_ratio: samples per bin side; 0 takes as many as the region has cells per bin.
        aligned: shift by half a cell, so that cell centres are where they should be (Detectron2).
    """
    if features.device.type != "cpu" or sampling_ratio <= 0:
        # In float32: half precision would move the regions by up to a pixel, and has no kernel on the CPU.
        exact = torchvision.ops.roi_align(
            features.float(), rois.float(), output_size, spatial_scale, sampling_ratio, aligned
        )
        return exact.to(features.dtype)
    _, channels, height, width = features.shape
    rows, weights = _taps(rois.float(), (height, width), output_size, spatial_scale, sampling_ratio, aligned)
    table = features.permute(0, 2, 3, 1).reshape(-1, channels)  # free of charge in channels_last memory
    pooled: Tensor = _GatherSum.apply(table, rows, weights.to(features.dtype))
    return pooled.view(len(rois), output_size, output_size, channels).permute(0, 3, 1, 2)


def _taps(
    rois: Float[Tensor, "r 5"],
    map_hw: tuple[int, int],
    output_size: int,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> tuple[Int32[Tensor, "bins t"], Float[Tensor, "bins t"]]:
    """Rows of the feature table that each bin reads, and their weights."""
    corners = rois[:, 1:] * spatial_scale - (0.5 if aligned else 0.0)
    size = corners[:, 2:] - corners[:, :2]
    if not aligned:
        size = size.clamp(min=1.0)  # the original RoIAlign's rule for regions smaller than a cell
    x_low, x_high, x_share = _axis_taps(corners[:, 0], size[:, 0], map_hw[1], output_size, sampling_ratio)
    y_low, y_high, y_share = _axis_taps(corners[:, 1], size[:, 1], map_hw[0], output_size, sampling_ratio)

    # (r, o, s, 2): the two neighbours of each sample along one axis, and their weights
    x, x_weight = torch.stack([x_low, x_high], -1), x_share
    y, y_weight = torch.stack([y_low, y_high], -1), y_share / sampling_ratio**2
    image = rois[:, 0].int().view(-1, 1, 1, 1) * (map_hw[0] * map_hw[1])
    y = y * map_hw[1] + image

    def outer(vertical: Tensor, horizontal: Tensor, combine: Any) -> Tensor:
        # (r, oy, 1, 2s, 1) with (r, 1, ox, 1, 2s) -> (bins, t)
        vertical, horizontal = vertical.flatten(2), horizontal.flatten(2)
        both = combine(vertical[:, :, None, :, None], horizontal[:, None, :, None, :])
        return torch.as_tensor(both.reshape(len(rois) * output_size**2, 4 * sampling_ratio**2))

    return outer(y, x, torch.add), outer(y_weight, x_weight, torch.mul)


def _axis_taps(
    start: Float[Tensor, " r"], length: Float[Tensor, " r"], cells: int, output_size: int, samples: int
) -> tuple[Int32[Tensor, "r o s"], Int32[Tensor, "r o s"], Float[Tensor, "r o s 2"]]:
    """Neighbouring cells of every sample along one axis, and the weights of the two."""
    offsets = (torch.arange(output_size * samples, device=start.device) + 0.5) / samples
    position = start[:, None] + offsets * (length / output_size)[:, None]
    outside = (position < -1.0) | (position > cells)
    position = position.clamp(min=0.0)
    low = position.int().clamp(0, cells - 1)  # a NaN region must not read outside the map
    high = (low + 1).clamp(max=cells - 1)
    share = torch.where(low == high, 0.0, position - low)
    weights = torch.stack([1 - share, share], dim=-1).masked_fill(outside[..., None], 0.0)
    shape = (len(start), output_size, samples)
    return low.view(shape), high.view(shape), weights.view(*shape, 2)


class _GatherSum(torch.autograd.Function):
    """out[i] = sum over t of weights[i, t] * table[rows[i, t]], with a parallel gradient for the table."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weights)
        ctx.table_rows = len(table)
        return embedding_bag(rows, table, mode="sum", per_sample_weights=weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        rows, weights = ctx.saved_tensors
        sorted_rows, order = rows.flatten().sort()
        starts = torch.searchsorted(
            sorted_rows, torch.arange(ctx.table_rows, dtype=rows.dtype, device=rows.device), out_int32=True
        )
        bins = (order // rows.shape[1]).int()
        transposed = embedding_bag(
            bins, gradient.contiguous(), starts, mode="sum", per_sample_weights=weights.flatten()[order]
        )
        return transposed, None, None
