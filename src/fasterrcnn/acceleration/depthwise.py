"""Depthwise convolutions that train fast on the CPU.

oneDNN has a quick gradient towards the weights of a depthwise convolution for 3x3 kernels only; for others it takes
ten times as long as the convolution. The kernel of `depthwise.cpp` takes about as long as the convolution. Without a
C++ compiler, a larger kernel is covered by 3x3 parts: the gradient of each part is that of a 3x3 convolution over
shifted maps. In bfloat16, gradients take several times as long as in float32, the convolution itself does not: they are
computed in float32.

Axes: b images, c channels, h w cells, k kernel side.
"""

import ctypes
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from fasterrcnn.acceleration.compiled import load_library
from fasterrcnn.acceleration.onednn_layers import is_bfloat16, trains_on_cpu
from fasterrcnn.errors import UsageError

_QUICK = 3
_SOURCE = Path(__file__).with_name("depthwise.cpp")


def depthwise(
    x: Float[Tensor, "b c h w"],
    weight: Float[Tensor, "c 1 k k"],
    bias: Float[Tensor, " c"] | None,
    *,
    stride: int,
    padding: int,
    zeros: int = 0,
) -> Float[Tensor, "b c h_out w_out"]:
    """`torch.nn.functional.conv2d` with a group for each channel, faster where it trains on the CPU.

    Args:
        x: maps.
        weight: square kernels.
        bias: of each channel.
        stride: of both axes.
        padding: zeros around the maps.
        zeros: so many first rows and columns of the kernels are zero for good and get no gradient.
    """
    side = weight.shape[-1]
    is_quick = side == _QUICK and not is_bfloat16(x)
    if not trains_on_cpu(x) or not weight.requires_grad or is_quick or side - zeros < _QUICK:
        return F.conv2d(x, weight, bias, stride, padding, groups=len(weight))
    out: Tensor = _Depthwise.apply(x, weight, bias, stride, padding, zeros)
    return out


class _Depthwise(torch.autograd.Function):
    """The convolution, with the gradient of its kernels in parts."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, zeros: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.options = stride, padding, zeros
        return F.conv2d(x, weight, bias, stride, padding, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        kept, weight = ctx.saved_tensors
        x, weight, gradient = kept.float(), weight.float(), gradient.float()
        stride, padding, zeros = ctx.options
        of_x, of_weight, of_bias, *_ = ctx.needs_input_grad
        return (
            _gradients(gradient, x, weight, stride, padding, of_x=True).to(kept.dtype) if of_x else None,
            _towards_kernels(gradient, x, weight, stride, padding, zeros) if of_weight else None,
            gradient.sum(dim=(0, 2, 3)) if of_bias else None,
            None,
            None,
            None,
        )


def _towards_kernels(
    gradient: Float[Tensor, "b c h_out w_out"],
    x: Float[Tensor, "b c h w"],
    weight: Float[Tensor, "c 1 k k"],
    stride: int,
    padding: int,
    zeros: int,
) -> Float[Tensor, "c 1 k k"]:
    if weight.shape[-1] == _QUICK:
        return _gradients(gradient, x, weight, stride, padding, of_x=False)
    side = weight.shape[-1] - zeros
    before = padding - zeros
    compiled = _compiled_gradient(gradient, x, side, stride, before)
    if compiled is not None:
        return F.pad(compiled, (zeros, 0, zeros, 0))
    # All pixels that the kernels cover, padded once, so that no part needs its own padding.
    seen_hw = [(cells - 1) * stride + side for cells in gradient.shape[-2:]]
    after = [seen - cells - before for seen, cells in zip(seen_hw, x.shape[-2:], strict=True)]
    seen = F.pad(x, (before, after[1], before, after[0]))
    part_hw = [(cells - 1) * stride + _QUICK for cells in gradient.shape[-2:]]
    part = weight[..., :_QUICK, :_QUICK]
    result = torch.zeros_like(weight)
    starts = sorted({*range(0, side - _QUICK, _QUICK), side - _QUICK})
    for top in starts:
        for left in starts:
            window = seen[..., top : top + part_hw[0], left : left + part_hw[1]]
            row, column = top + zeros, left + zeros
            result[..., row : row + _QUICK, column : column + _QUICK] = _gradients(
                gradient, window.contiguous(memory_format=torch.channels_last), part, stride, 0, of_x=False
            )
    return result


def _compiled_gradient(
    gradient: Float[Tensor, "b c h_out w_out"], x: Float[Tensor, "b c h w"], side: int, stride: int, before: int
) -> Float[Tensor, "c 1 k k"] | None:
    """The gradient towards kernels of that side, by the C++ kernel; None where there is none that fits."""
    library = _library()
    if library is None:
        return None
    x, gradient = (maps.contiguous(memory_format=torch.channels_last) for maps in (x, gradient))
    images, channels, *map_hw = x.shape
    result = x.new_empty(side, side, channels)
    pointers = [tensor.data_ptr() for tensor in (x, gradient, result)]
    numbers = [images, channels, *map_hw, *gradient.shape[-2:], stride, before, side]
    if not library.depthwise_towards_kernels(*pointers, *numbers, torch.get_num_threads()):
        return None
    return result.permute(2, 0, 1)[:, None]


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    """The compiled kernel; None where it cannot be compiled or loaded."""
    try:
        library = load_library(_SOURCE)
    except (UsageError, OSError):
        return None
    library.depthwise_towards_kernels.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_int64] * 9 + [ctypes.c_int]
    library.depthwise_towards_kernels.restype = ctypes.c_int
    return library


def _gradients(gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, *, of_x: bool) -> Tensor:
    """One of the two gradients of a depthwise convolution, as torch computes it."""
    strides, paddings, ones, none = [stride] * 2, [padding] * 2, [1, 1], [0, 0]
    both = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, strides, paddings, ones, False, none, len(weight), [of_x, not of_x, False]
    )
    return torch.as_tensor(both[0 if of_x else 1])
