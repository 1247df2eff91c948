"""Winograd's F(4x4, 3x3) for stride-1 3x3 convolutions (Lavin & Gray 2016), where it is faster on this machine.

oneDNN has no such kernel for x86. The one of `winograd.cpp` needs 36 multiplications where the direct sum needs 144,
and transforms around them. Its largest error, against the largest output, stays below `ERROR_BOUND`; the direct sum's
is about a sixth of it.

Axes: b images, h w cells, c channels in, k channels out, r height and width of a kernel.
"""

import ctypes
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fasterrcnn.acceleration.autotune import fastest_way
from fasterrcnn.acceleration.compiled import load_library
from fasterrcnn.acceleration.flat_graphs import copy_with_shared_weights
from fasterrcnn.model.faster_rcnn import FasterRCNN

ERROR_BOUND = 1e-4
"""Largest error, as a share of the largest output, on inputs and weights that are normally distributed."""

CHUNKS = (24, 48, 96)
"""Tiles that are worked on together; which is best depends on the caches."""

_SOURCE = Path(__file__).with_name("winograd.cpp")

_G = torch.tensor(
    [
        [1 / 4, 0, 0],
        [-1 / 6] * 3,
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    dtype=torch.float64,
)
"""The kernel's transform, for the points 0, 1, -1, 2, -2 and infinity."""


def transform_weight(weight: Float[Tensor, "k c 3 3"]) -> Float[Tensor, "36 panels c wide"]:
    """The kernels in the layout that the products read, computed in float64."""
    k, c = weight.shape[:2]
    wide = 2 * lanes()
    moved = torch.einsum("ir,kcrs,js->ijkc", _G, weight.double(), _G)
    return moved.reshape(36, k // wide, wide, c).transpose(2, 3).contiguous().float()


def convolve(
    x: Float[Tensor, "b c h w"],
    transformed: Float[Tensor, "36 panels c wide"],
    bias: Float[Tensor, " k"],
    chunk: int = CHUNKS[1],
) -> Float[Tensor, "b k h w"]:
    """The convolution with padding 1, stride 1; channels last in and out, ``chunk`` tiles of 4x4 outputs at a time."""
    x = x.contiguous(memory_format=torch.channels_last)
    b, c, h, w = x.shape
    k, threads = len(bias), torch.get_num_threads()
    out = torch.empty((b, k, h, w), memory_format=torch.channels_last)
    workspace = torch.empty(threads * _library().winograd_workspace(c, k, chunk))
    pointers = [tensor.data_ptr() for tensor in (x, transformed, bias, out)]
    _library().winograd_convolution(*pointers, b, h, w, c, k, chunk, workspace.data_ptr(), threads)
    return out


def lanes() -> int:
    """Channels that the kernel works on at once: its inputs must be a multiple, its outputs of twice as many."""
    return int(_library().winograd_lanes())


def suits(conv: nn.Module) -> bool:
    """Whether a layer is a convolution that the kernel can compute."""
    return (
        isinstance(conv, nn.Conv2d)
        and conv.kernel_size == (3, 3)
        and conv.stride == conv.padding == conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
        and conv.in_channels % lanes() == 0
        and conv.out_channels % (2 * lanes()) == 0
    )


class WinogradConv(nn.Module):
    """A layer that `suits`, computed in whichever way is faster for the size of the map; it shares the weights."""

    transformed: Tensor
    bias: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight = conv.weight
        bias = conv.bias.detach() if conv.bias is not None else conv.weight.new_zeros(conv.out_channels)
        self.register_buffer("bias", bias)
        self.register_buffer("transformed", transform_weight(conv.weight.detach()))

    def forward(self, x: Tensor) -> Tensor:
        """The convolution."""
        return torch.as_tensor(either_convolution(x, self.weight, self.transformed, self.bias))


@torch.library.custom_op("fasterrcnn::conv3x3", mutates_args=(), tags=(torch.Tag.needs_fixed_stride_order,))
def either_convolution(x: Tensor, weight: Tensor, transformed: Tensor, bias: Tensor) -> Tensor:
    """The convolution in the way that was measured to be faster on this machine; measures at the first call."""

    def direct() -> Tensor:
        return F.conv2d(x, weight, bias, padding=1).contiguous(memory_format=torch.channels_last)

    ways: dict[str, Callable[[], Tensor]] = {"direct": direct}
    for chunk in CHUNKS:
        ways[f"winograd-{chunk}"] = partial(convolve, x, transformed, bias, chunk)
    b, c, h, w = x.shape
    return fastest_way(f"3x3 {c}-{len(bias)}", b * (-(-h // 4)) * (-(-w // 4)), ways)()


@either_convolution.register_fake
def _(x: Tensor, weight: Tensor, transformed: Tensor, bias: Tensor) -> Tensor:
    b, _, h, w = x.shape
    return x.new_empty((b, weight.shape[0], h, w)).contiguous(memory_format=torch.channels_last)


def with_winograd(model: FasterRCNN) -> FasterRCNN:
    """A network with the same weights whose backbone and RPN use the kernel where it is faster on this machine."""
    fast = copy_with_shared_weights(model)
    replace_convolutions(fast.backbone)
    replace_convolutions(fast.rpn)
    return fast


def replace_convolutions(module: nn.Module) -> None:
    """Exchange, in place, every layer below the module that the kernel can compute."""
    for name, child in module.named_children():
        if suits(child):
            assert isinstance(child, nn.Conv2d)
            setattr(module, name, WinogradConv(child))
        else:
            replace_convolutions(child)


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    """The compiled kernel, from the cache folder if it is there.

    Raises:
        UsageError: there is no C++ compiler, or it fails.
    """
    library = load_library(_SOURCE)
    size, pointer = ctypes.c_int64, ctypes.c_void_p
    library.winograd_lanes.restype = library.winograd_workspace.restype = size
    library.winograd_workspace.argtypes = [size] * 3
    library.winograd_convolution.argtypes = [pointer] * 4 + [size] * 6 + [pointer, ctypes.c_int]
    library.winograd_convolution.restype = None
    return library
