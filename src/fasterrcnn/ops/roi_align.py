"""RoIAlign (He et al. 2017) as a weighted gather-sum, several times faster on a CPU than torchvision's kernel.

A feature map in channels_last memory is a table of h * w rows of c numbers. Each output bin is the mean of
s x s bilinear samples, so it is a weighted sum of 4 * s * s rows of that table: exactly what `embedding_bag`
computes, on all cores and over whole rows. The gradient is the transposed sum: for each row of the table, over
the bins that used it, found by sorting the row indices once.

Axes: b images, c channels, h w cells, r regions, o output side, s samples per bin side, t taps (4 * s * s).
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch
import torchvision
from jaxtyping import Float, Int32, Int64
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

    With a fixed sampling ratio this is the gather-sum of this module on a CPU, and where torch has to be
    deterministic: the gradient of torchvision's kernel for GPUs depends on the order of its threads.

    Args:
        features: one feature map per image.
        rois: image index, x1, y1, x2, y2 in pixels of the network input.
        output_size: bins per side.
        spatial_scale: cells per pixel, 1 / stride.
        sampling_ratio: samples per bin side; 0 takes as many as the region has cells per bin.
        aligned: shift by half a cell, so that cell centres are where they should be (Detectron2).
    """
    return pyramid_roi_align(
        [features],
        rois,
        rois.new_zeros(len(rois), dtype=torch.int64),
        output_size=output_size,
        spatial_scales=[spatial_scale],
        sampling_ratio=sampling_ratio,
        aligned=aligned,
    )


def pyramid_roi_align(
    features: Sequence[Float[Tensor, "b c _ _"]],
    rois: Float[Tensor, "r 5"],
    levels: Int64[Tensor, " r"],
    *,
    output_size: int,
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
) -> Float[Tensor, "r c o o"]:
    """`roi_align` of regions that come from different maps: one sum over the rows of all of them.

    Args:
        features: maps of each level.
        rois: as for `roi_align`.
        levels: index of the map that each region is taken from.
        output_size: bins per side.
        spatial_scales: cells per pixel of each level.
        sampling_ratio: as for `roi_align`.
        aligned: as for `roi_align`.
    """
    own_kernel = features[0].device.type == "cpu" or torch.are_deterministic_algorithms_enabled()
    if not own_kernel or sampling_ratio <= 0:
        # In float32: half precision would move the regions by up to a pixel, and has no kernel on the CPU.
        def pool(level: int, own: Tensor) -> Tensor:
            exact = torchvision.ops.roi_align(
                features[level].float(), own.float(), output_size, spatial_scales[level], sampling_ratio, aligned
            )
            return exact.to(features[level].dtype)

        return pool_by_level(pool, rois, levels, len(features))
    channels = features[0].shape[1]
    maps_hw = [(level.shape[2], level.shape[3]) for level in features]
    # Views in channels_last memory; joining them costs less than putting what is pooled level by level into order.
    tables = [level.permute(0, 2, 3, 1).reshape(-1, channels) for level in features]
    starts = list(accumulate((len(table) for table in tables), initial=0))[:-1]
    grids = torch.tensor(
        [(start, *map_hw) for start, map_hw in zip(starts, maps_hw, strict=True)],
        dtype=torch.int32,
        device=rois.device,
    )
    scales = rois.new_tensor(spatial_scales, dtype=torch.float32)[levels]
    rows, weights = _taps(rois.float(), grids[levels], scales, output_size, sampling_ratio, aligned)
    table = torch.cat(tables) if len(tables) > 1 else tables[0]
    pooled: Tensor = _GatherSum.apply(table, rows, weights.to(table.dtype))
    return pooled.view(len(rois), output_size, output_size, channels).permute(0, 3, 1, 2)


def pool_by_level(
    pool: Callable[[int, Float[Tensor, "_ 5"]], Float[Tensor, "_ c o o"]],
    rois: Float[Tensor, "r 5"],
    levels: Int64[Tensor, " r"],
    count: int,
) -> Float[Tensor, "r c o o"]:
    """What ``pool(level, rois)`` makes of the regions of each of ``count`` levels, in the regions' order."""
    if count == 1:
        return pool(0, rois)
    order = levels.argsort(stable=True)
    # The only number that the CPU needs of a GPU: how many regions each level has.
    counts = (levels[:, None] == torch.arange(count, device=levels.device)).sum(dim=0).tolist()
    parts = torch.split(rois[order], counts)
    pooled = torch.cat([pool(level, part) for level, part in enumerate(parts)])
    return pooled.index_select(0, order.argsort())


def _taps(
    rois: Float[Tensor, "r 5"],
    grids: Int32[Tensor, "r 3"],
    scales: Float[Tensor, " r"],
    output_size: int,
    sampling_ratio: int,
    aligned: bool,
) -> tuple[Int32[Tensor, "bins t"], Float[Tensor, "bins t"]]:
    """Rows of the feature table that each bin reads, and their weights.

    Of each region's map, ``grids`` has its first row in the table, its height and its width.
    """
    corners = rois[:, 1:] * scales[:, None] - (0.5 if aligned else 0.0)
    size = corners[:, 2:] - corners[:, :2]
    if not aligned:
        size = size.clamp(min=1.0)  # the original RoIAlign's rule for regions smaller than a cell
    start, height, width = grids.unbind(dim=1)
    x_low, x_high, x_share = _axis_taps(corners[:, 0], size[:, 0], width, output_size, sampling_ratio)
    y_low, y_high, y_share = _axis_taps(corners[:, 1], size[:, 1], height, output_size, sampling_ratio)

    # (r, o, s, 2): the two neighbours of each sample along one axis, and their weights
    x, x_weight = torch.stack([x_low, x_high], -1), x_share
    y, y_weight = torch.stack([y_low, y_high], -1), y_share / sampling_ratio**2
    first = start + rois[:, 0].int() * (height * width)
    y = y * width.view(-1, 1, 1, 1) + first.view(-1, 1, 1, 1)

    def outer(vertical: Tensor, horizontal: Tensor, combine: Any) -> Tensor:
        # (r, oy, 1, 2s, 1) with (r, 1, ox, 1, 2s) -> (bins, t)
        vertical, horizontal = vertical.flatten(2), horizontal.flatten(2)
        both = combine(vertical[:, :, None, :, None], horizontal[:, None, :, None, :])
        return torch.as_tensor(both.reshape(len(rois) * output_size**2, 4 * sampling_ratio**2))

    return outer(y, x, torch.add), outer(y_weight, x_weight, torch.mul)


def _axis_taps(
    start: Float[Tensor, " r"], length: Float[Tensor, " r"], cells: Int32[Tensor, " r"], output_size: int, samples: int
) -> tuple[Int32[Tensor, "r o s"], Int32[Tensor, "r o s"], Float[Tensor, "r o s 2"]]:
    """Neighbouring cells of every sample along one axis, and the weights of the two."""
    offsets = (torch.arange(output_size * samples, device=start.device) + 0.5) / samples
    position = start[:, None] + offsets * (length / output_size)[:, None]
    cells = cells[:, None]
    outside = (position < -1.0) | (position > cells)
    position = position.clamp(min=0.0)
    low = position.int().clamp(min=0).minimum(cells - 1)  # a NaN region must not read outside the map
    high = (low + 1).minimum(cells - 1)
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
