"""Batch norms that become part of the convolutions before them: for training where they are frozen, for inference all.

A frozen norm is a factor and a shift for each channel. Applied to the kernels instead of the maps, they cost nothing,
and the backward pass has two maps less to read and write.

Axes: b images, c channels in, k channels out, h w cells.
"""

import operator
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from fasterrcnn.acceleration.depthwise import depthwise
from fasterrcnn.acceleration.flat_graphs import trace


class MergedNorm(nn.Module):
    """A frozen batch norm that is merged into the convolution before it; keeps its buffers and applies the activation.

    Args:
        norm: a frozen batch norm of any class, whose buffers are shared.
        activation: what follows it.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, norm: Any, activation: nn.Module) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, getattr(norm, name))
        self.eps = norm.eps
        self.act = ReLU6() if isinstance(activation, nn.ReLU6) else activation
        self._computed: _ScaleAndShift | None = None

    def scale_and_shift(self) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
        """Factor and shift of each channel, computed again only where a buffer has changed."""
        if self._computed is None or not self._computed.is_of(self):
            self._computed = _ScaleAndShift(self)
        return self._computed.scale, self._computed.shift

    def forward(self, x: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k h w"]:
        """The activation alone."""
        out: Tensor = self.act(x)
        return out


class _ScaleAndShift:
    """Factor and shift of a norm, and the state of its buffers that they were computed from."""

    def __init__(self, norm: MergedNorm) -> None:
        self._buffers = tuple(norm.buffers())
        self._versions = _versions(self._buffers)
        with torch.inference_mode(False), torch.no_grad():  # validation computes them, the next step trains with them
            self.scale, self.shift = _scale_and_shift(norm)

    def is_of(self, norm: MergedNorm) -> bool:
        """Whether the norm still has the same buffers with the same values."""
        buffers = tuple(norm.buffers())
        return all(map(operator.is_, buffers, self._buffers)) and _versions(buffers) == self._versions


def _versions(buffers: tuple[Tensor, ...]) -> list[tuple[int, int]]:
    return [(buffer.data_ptr(), 0 if buffer.is_inference() else buffer._version) for buffer in buffers]


class ReLU6(nn.Module):
    """`torch.nn.ReLU6` in place, without the copy that torch's own makes for its backward."""

    def forward(self, x: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k h w"]:
        """0..6."""
        if not (torch.is_grad_enabled() and x.requires_grad):
            return F.relu6(x, inplace=True)
        out: Tensor = _ReLU6.apply(x)
        return out


class _ReLU6(torch.autograd.Function):
    """Its backward needs only the output, which shows where the gradient passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        x.clamp_(0, 6)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        passed: Tensor = torch.ops.aten.hardtanh_backward(gradient, out, 0, 6)
        return passed


class MergedConv2d(nn.Module):
    """A convolution and the frozen batch norm behind it, with the weights of the convolution.

    Args:
        conv: whose weight is shared; it is square and has no bias.
        norm: whose factors and shifts are applied.
        same: pad as TensorFlow does, on the right and below where the padding is odd.
    """

    norm: MergedNorm | None

    def __init__(self, conv: nn.Conv2d, norm: MergedNorm, *, same: bool) -> None:
        super().__init__()
        self.weight = conv.weight
        self.bias: Tensor | None = None
        self.kernel, self.stride, self.same = conv.kernel_size[0], conv.stride[0], same
        self._padding, self._dilation, self._groups = int(conv.padding[0]), conv.dilation[0], conv.groups
        self.__dict__["norm"] = norm  # not as a submodule: its own place in the network keeps its state

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h_out w_out"]:
        """Convolution and norm."""
        weight, bias = self.weight, self.bias
        if self.norm is not None:
            scale, bias = self.norm.scale_and_shift()
            weight = weight * scale.view(-1, 1, 1, 1)
        if not self.same:
            return self._convolve(x, weight, bias, self._padding)
        height, width = x.shape[-2:]
        if self._can_be_wide and height % 2 == 0 and width % 2 == 0:
            # A row and a column of zeros in the kernel spare a padded copy of the maps.
            return self._convolve(x, F.pad(weight, (1, 0, 1, 0)), bias, self.kernel // 2, zeros=1)
        left, right = self._same_padding(width)
        above, below = self._same_padding(height)
        return self._convolve(F.pad(x, (left, right, above, below)), weight, bias, 0)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, zeros: int = 0) -> Tensor:
        """A square convolution; so many first rows and columns of its kernels are zeros that spare a padded copy."""
        if self._groups == x.shape[1] == len(weight) and self._dilation == 1:
            return depthwise(x, weight, bias, stride=self.stride, padding=padding, zeros=zeros)
        return F.conv2d(x, weight, bias, self.stride, padding, self._dilation, self._groups)

    @property
    def _can_be_wide(self) -> bool:
        return self.same and self.stride == 2 and self.kernel % 2 == 1

    def for_prediction(self, *, even_sides: bool) -> nn.Module:
        """A convolution with the norm in its weights; this layer itself where the padding depends on the size."""
        assert self.norm is not None
        wide = self._can_be_wide and even_sides
        self.weight, self.bias = folded(self.weight, None, self.norm, wide=wide)
        self.__dict__["norm"] = None
        if self.same and not wide and (self.stride > 1 or self.kernel % 2 == 0):
            return self
        padding = self.kernel // 2 if self.same else self._padding
        channels = self.weight.shape[1] * self._groups, len(self.weight)
        place = (self.weight.shape[-1], self.stride, padding, self._dilation, self._groups)
        conv = nn.Conv2d(*channels, *place, device="meta")
        conv.weight, conv.bias = self.weight, self.bias
        return conv

    def _same_padding(self, side: int) -> tuple[int, int]:
        whole = max((-(-side // self.stride) - 1) * self.stride + self.kernel - side, 0)
        return whole // 2, whole - whole // 2


def merge_frozen_norms(part: nn.Module) -> None:
    """Merge frozen batch norms, in place, into the convolutions before them; the weights can still be trained."""
    for conv_name, norm_name in list(_pairs(part)):
        conv: Any = part.get_submodule(conv_name)
        norm: Any = part.get_submodule(norm_name)
        if _is_frozen(norm) and conv.bias is None and _is_square(conv):
            merged = MergedNorm(norm, getattr(norm, "act", nn.Identity()))
            part.set_submodule(conv_name, MergedConv2d(conv, merged, same=type(conv) is not nn.Conv2d))
            part.set_submodule(norm_name, merged)


def fold_batch_norms(part: nn.Module, *, even_sides: bool) -> None:
    """Make batch norms part of the convolutions before them, in place, for prediction.

    A norm is folded where it alone gets what a convolution gives. Computed in float64: the result differs from the
    original by float32 rounding only.

    Args:
        part: of a network.
        even_sides: whether all maps that a stride of 2 meets have even sides.
    """
    for conv_name, norm_name in list(_pairs(part)):
        conv: Any = part.get_submodule(conv_name)
        norm = part.get_submodule(norm_name)
        conv.weight, conv.bias = folded(conv.weight, conv.bias, norm)
        part.set_submodule(norm_name, getattr(norm, "act", nn.Identity()))
    for name, module in list(part.named_modules()):
        if isinstance(module, MergedConv2d):
            part.set_submodule(name, module.for_prediction(even_sides=even_sides))
        elif isinstance(module, MergedNorm):
            part.set_submodule(name, nn.ReLU6(inplace=True) if isinstance(module.act, ReLU6) else module.act)


def _pairs(part: nn.Module, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names of convolutions and of the batch norms that alone get what these give.

    The names follow from the flow of the data. Where it depends on sizes or values, each child is followed alone.
    """
    graph = trace(part)
    if graph is None:
        for name, child in part.named_children():
            yield from _pairs(child, f"{prefix}{name}.")
        return
    modules = dict(part.named_modules())
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    for node in graph.nodes:
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        before = node.args[0] if norm is not None and _is_batch_norm(norm) else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        conv = modules[str(before.target)]
        if isinstance(conv, nn.Conv2d) and _is_plain(conv) and calls[before.target] == calls[node.target] == 1:
            yield f"{prefix}{before.target}", f"{prefix}{node.target}"


def _is_batch_norm(module: nn.Module) -> bool:
    """Whether a module is a batch norm, frozen or not, perhaps with timm's activation."""
    has_dropout = not isinstance(getattr(module, "drop", nn.Identity()), nn.Identity)
    return (isinstance(module, nn.BatchNorm2d) or _is_frozen(module)) and not has_dropout


def _is_frozen(module: nn.Module) -> bool:
    return type(module).__name__ in ("FrozenBatchNorm2d", "FrozenBatchNormAct2d")


def _is_plain(conv: nn.Conv2d) -> bool:
    """Whether a convolution uses its weights as they are."""
    return type(conv) is nn.Conv2d or type(conv).__name__ == "Conv2dSame"


def _is_square(conv: nn.Conv2d) -> bool:
    sides = (conv.kernel_size, conv.stride, conv.padding, conv.dilation)
    is_same = type(conv) is not nn.Conv2d
    return all(len({*pair}) == 1 for pair in sides) and not (is_same and conv.dilation != (1, 1))


@torch.no_grad()
def folded(
    kernels: Float[Tensor, "k c _ _"], bias: Float[Tensor, " k"] | None, norm: Any, *, wide: bool = False
) -> tuple[nn.Parameter, nn.Parameter]:
    """Kernels and bias of a convolution that ends in a batch norm, computed in float64; they are not trained.

    Args:
        kernels: of the convolution.
        bias: of the convolution.
        norm: a batch norm of any class.
        wide: put a row and a column of zeros before the kernels.
    """

    def exact(number: Tensor) -> Tensor:
        return number.cpu().double()  # on the CPU: Apple's GPUs have no float64

    scale, shift = _scale_and_shift(norm, exact)
    weight = exact(kernels) * scale.view(-1, 1, 1, 1)
    shift = shift if bias is None else shift + exact(bias) * scale
    weight = F.pad(weight, (1, 0, 1, 0)) if wide else weight
    weight = weight.to(kernels).contiguous(memory_format=torch.channels_last)
    return nn.Parameter(weight, False), nn.Parameter(shift.to(kernels), False)


def _scale_and_shift(
    norm: Any, number: Callable[[Tensor], Tensor] = lambda value: value
) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
    """What a norm does to a channel, x * scale + shift, with all numbers as `number` gives them."""
    scale = number(norm.weight) * (number(norm.running_var) + norm.eps).rsqrt()
    return scale, number(norm.bias) - number(norm.running_mean) * scale
