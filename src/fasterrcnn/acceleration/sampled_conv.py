"""The 3x3 convolutions of an RPN in training on a CPU: only the cells of sampled anchors have a gradient.

An image has thousands of cells and 256 sampled anchors, so nearly all rows of the gradient are zero. The backward pass
gathers the others and their 3x3 surroundings, and needs one small product for each of its two results.

Axes: b images, c channels in, k channels out, h w cells, n cells with a gradient, p places of a 3x3 kernel (9).
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from fasterrcnn.model.rpn import RegionProposalNetwork

_MAX_SHARE = 0.25
"""With a larger share of cells that have a gradient, gathering them does not pay."""


class SampledConv2d(nn.Conv2d):
    """A 3x3 convolution with padding 1 and a bias that is quick to train where few cells have a gradient."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """The convolution."""
        assert self.bias is not None
        weight, bias = self.weight, self.bias
        if not torch.is_grad_enabled() or not weight.requires_grad or x.device.type != "cpu":
            return super().forward(x)
        if torch.is_autocast_enabled("cpu"):
            x, weight, bias = (tensor.to(torch.get_autocast_dtype("cpu")) for tensor in (x, weight, bias))
        out: Tensor = _SampledConv.apply(x, weight, bias)
        return out


def use_sampled_convs(rpn: RegionProposalNetwork) -> None:
    """Exchange, in place, the 3x3 convolutions of an RPN."""
    for number, conv in enumerate(rpn.convs):
        assert isinstance(conv, nn.Conv2d)
        faster = SampledConv2d(conv.in_channels, conv.out_channels, 3, padding=1, device="meta")
        faster.weight, faster.bias = conv.weight, conv.bias
        rpn.convs[number] = faster


class _SampledConv(torch.autograd.Function):
    """The convolution, with gradients that are computed from the cells that have one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows = gradient.permute(0, 2, 3, 1).reshape(-1, len(weight))
        cells = rows.any(dim=1).nonzero()[:, 0]
        if len(cells) > _MAX_SHARE * len(rows):
            wanted = list(ctx.needs_input_grad)
            return tuple(
                torch.ops.aten.convolution_backward(
                    gradient, x, weight, [len(weight)], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, wanted
                )
            )
        of_x, of_weight, of_bias = ctx.needs_input_grad
        rows = rows[cells]
        neighbours, inside = _neighbours(cells, x.shape[-2], x.shape[-1])
        return (
            _towards_maps(rows, x, weight, neighbours, inside) if of_x else None,
            _towards_kernels(rows, x, neighbours, inside) if of_weight else None,
            rows.sum(dim=0) if of_bias else None,
        )


def _neighbours(
    cells: Int64[Tensor, " n"], height: int, width: int
) -> tuple[Int64[Tensor, "n p"], Bool[Tensor, "n p"]]:
    """The cells that each cell's kernel covers, in row order, and whether they are inside; those outside are cell 0."""
    step = torch.arange(-1, 2)
    y = (cells // width % height)[:, None, None] + step[:, None]
    x = (cells % width)[:, None, None] + step
    inside = ((y >= 0) & (y < height) & (x >= 0) & (x < width)).flatten(1)
    offsets = (step[:, None] * width + step).flatten()
    return torch.where(inside, cells[:, None] + offsets, 0), inside


def _towards_maps(
    rows: Float[Tensor, "n k"],
    x: Float[Tensor, "b c h w"],
    weight: Float[Tensor, "k c 3 3"],
    neighbours: Int64[Tensor, "n p"],
    inside: Bool[Tensor, "n p"],
) -> Float[Tensor, "b c h w"]:
    images, channels, height, width = x.shape
    parts = rows @ weight.permute(0, 2, 3, 1).flatten(1)
    parts = parts.view(-1, channels).float().mul_(inside.view(-1, 1))
    # Sums in float32: up to nine parts meet in a cell.
    table = parts.new_zeros(images * height * width, channels).index_add_(0, neighbours.flatten(), parts)
    return table.view(images, height, width, channels).permute(0, 3, 1, 2).to(x.dtype)


def _towards_kernels(
    rows: Float[Tensor, "n k"],
    x: Float[Tensor, "b c h w"],
    neighbours: Int64[Tensor, "n p"],
    inside: Bool[Tensor, "n p"],
) -> Float[Tensor, "k c 3 3"]:
    channels = x.shape[1]
    table = x.permute(0, 2, 3, 1).reshape(-1, channels)
    patches = table[neighbours.flatten()] * inside.view(-1, 1)
    result = rows.t() @ patches.view(len(rows), 9 * channels)
    return result.view(-1, 3, 3, channels).permute(0, 3, 1, 2)
