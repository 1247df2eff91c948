"""Layers on the CPU by way of oneDNN: fully connected ones, and convolutions with what follows them.

torch gives plain products to MKL, which takes twice as long as oneDNN on processors that are not Intel's, and three
quarters of its time on Intel's. A product is also a 1x1 convolution of a map that has a cell for each row, and those go
to oneDNN.

A convolution can add a shortcut and apply an activation while a part of its result is still in the cache.

Axes: r rows, f features, o outputs; b images, c channels in, k channels out, h w cells.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from fasterrcnn.acceleration.autotune import is_intel
from fasterrcnn.model.box_head import BoxHead

_IMAGES = 16
"""From so many images on, torch gives 1x1 convolutions to oneDNN also when it has one thread."""


def trains_on_cpu(x: Tensor) -> bool:
    """Whether gradients of what is made of a tensor may be wanted, on a CPU, in float32 or bfloat16."""
    is_plain = x.device.type == "cpu" and (x.dtype == torch.float32 or is_bfloat16(x))
    return is_plain and torch.is_grad_enabled()


def is_bfloat16(x: Tensor) -> bool:
    """Whether a layer computes in bfloat16 on a CPU: by autocast, or because the tensor has that type."""
    return x.dtype == torch.bfloat16 or (torch.is_autocast_enabled("cpu") and x.device.type == "cpu")


def linear(x: Float[Tensor, "r f"], weight: Float[Tensor, "o f"], bias: Float[Tensor, " o"]) -> Float[Tensor, "r o"]:
    """`torch.nn.functional.linear`, faster where it trains in float32 on a CPU that is not Intel's."""
    if is_intel() or not trains_on_cpu(x) or is_bfloat16(x) or not (x.requires_grad or weight.requires_grad):
        return F.linear(x, weight, bias)
    out: Tensor = _Product.apply(x, weight, bias)
    return out


def multiply(
    x: Float[Tensor, "r f"], weight: Float[Tensor, "o f"], bias: Float[Tensor, " o"] | None
) -> Float[Tensor, "r o"]:
    """What `linear` computes, as a 1x1 convolution."""
    rows, features = x.shape
    if not rows or not features:
        return (x.new_zeros(len(weight)) if bias is None else bias).expand(rows, len(weight))
    images = _images(rows)
    out = F.conv2d(_as_maps(F.pad(x, (0, 0, 0, -rows % images)), images), weight[:, :, None, None], bias)
    return _as_rows(out)[:rows]


class OnednnLinear(nn.Linear):
    """A fully connected layer that trains faster on the CPU."""

    def forward(self, x: Float[Tensor, "r f"]) -> Float[Tensor, "r o"]:
        """The product and the bias."""
        return linear(x, self.weight, self.bias)


class OnednnPooledLinear(OnednnLinear):
    """The first of these layers, over all numbers of a pooled map.

    Maps may have their channels last, the kernels have them first. Where the layer trains on the CPU, the kernels are
    brought into the maps' order: they are fewer numbers.
    """

    def forward(self, pooled: Float[Tensor, "r c s s"]) -> Float[Tensor, "r o"]:
        """The product and the bias."""
        if not torch.is_grad_enabled() or pooled.device.type != "cpu" or pooled.is_contiguous():
            return linear(pooled.flatten(1), self.weight, self.bias)
        weight = self.weight.view(-1, *pooled.shape[1:]).permute(0, 2, 3, 1).flatten(1)
        return linear(pooled.permute(0, 2, 3, 1).flatten(1), weight, self.bias)


def use_onednn(body: nn.Module) -> None:
    """Exchange, in place, the fully connected layers of a box head's body: the first follows a flatten layer."""
    previous = ""
    for name, layer in list(body.named_children()):
        if type(layer) is nn.Linear:
            first = bool(previous) and isinstance(body.get_submodule(previous), nn.Flatten)
            faster = (OnednnPooledLinear if first else OnednnLinear)(
                layer.in_features, layer.out_features, device="meta"
            )
            faster.weight, faster.bias = layer.weight, layer.bias
            setattr(body, name, faster)
            if first:
                setattr(body, previous, nn.Identity())
        previous = name


class OnednnHead(nn.Module):
    """A fully connected box head for prediction; its products are those of the faster library.

    The rows of the first product are the pooled maps as they lie in memory, channels last: its weights are sorted
    likewise, once. All others are shared.

    Args:
        head: a box head with a fully connected body.
        side: of the pooled maps.
    """

    def __init__(self, head: BoxHead, side: int) -> None:
        super().__init__()
        layers = list(head.body.children())
        first = next(number for number, layer in enumerate(layers) if isinstance(layer, nn.Linear))
        before = [layer for layer in layers[:first] if not isinstance(layer, nn.Identity | nn.Flatten)]
        self.convs = nn.Sequential(*before)
        self._products = [(layer.weight, layer.bias) for layer in layers[first:] if isinstance(layer, nn.Linear)]
        weight, bias = self._products[0]
        by_places = weight.detach().view(len(weight), -1, side, side).permute(0, 2, 3, 1).reshape(len(weight), -1)
        self._products[0] = by_places, bias
        self._class_logits = head.class_logits.weight, head.class_logits.bias
        self._box_deltas = head.box_deltas.weight, head.box_deltas.bias

    def forward(
        self, pooled: Float[Tensor, "r c s s"]
    ) -> tuple[Float[Tensor, "r k_and_background"], Float[Tensor, "r k 4"]]:
        """Class logits, background last, and deltas; see `BoxHead`."""
        x = self.convs(pooled).permute(0, 2, 3, 1).flatten(1)
        for weight, bias in self._products:
            x = _faster_product(x, weight, bias).relu_()
        deltas = _faster_product(x, *self._box_deltas)
        return _faster_product(x, *self._class_logits), deltas.view(len(x), deltas.shape[1] // 4, 4)


def _faster_product(
    x: Float[Tensor, "r f"], weight: Float[Tensor, "o f"], bias: Float[Tensor, " o"]
) -> Float[Tensor, "r o"]:
    """The product where nothing is trained. In half precision torch gives plain products to oneDNN itself."""
    is_plain = is_intel() or x.dtype != torch.float32
    return F.linear(x, weight, bias) if is_plain else multiply(x, weight, bias)


class Activation(NamedTuple):
    """An activation by the name and the numbers that oneDNN's operators take."""

    name: str = "none"
    numbers: tuple[float, ...] = ()


class FusedConv(nn.Module):
    """A convolution, then the sum with a shortcut where there is one, then an activation.

    Args:
        conv: of plain padding, on a CPU; its weight's type is that of the maps.
        activation: what follows.
        in_place: whether the sum is written over the shortcut, which nobody reads afterwards.
    """

    def __init__(self, conv: nn.Conv2d, activation: Activation, *, in_place: bool = False) -> None:
        super().__init__()
        self.activation, self.in_place = activation, in_place
        self._places = list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups
        self._weight = _ordered(conv)
        self._bias = conv.bias

    def forward(
        self, x: Float[Tensor, "b c h w"], shortcut: Float[Tensor, "b k h2 w2"] | None = None
    ) -> Float[Tensor, "b k h2 w2"]:
        """Maps in channels_last memory."""
        name, numbers = self.activation
        operators = torch.ops.mkldnn
        if shortcut is None:
            return torch.as_tensor(
                operators._convolution_pointwise(x, self._weight, self._bias, *self._places, name, numbers, "")
            )
        after = (*self._places, "add", 1.0, None if name == "none" else name, numbers, None)
        if self.in_place:
            return torch.as_tensor(
                operators._convolution_pointwise_.binary(shortcut, x, self._weight, self._bias, *after)
            )
        return torch.as_tensor(operators._convolution_pointwise.binary(x, shortcut, self._weight, self._bias, *after))


class AddUpsampled(nn.Module):
    """The sum of maps and coarser ones, whose every cell covers a square of cells; it is written over the maps."""

    def forward(self, maps: Float[Tensor, "b c h w"], coarse: Float[Tensor, "b c h2 w2"]) -> Float[Tensor, "b c h w"]:
        """As `F.interpolate` (nearest) and a sum, without the enlarged maps in between."""
        b, c, h, w = maps.shape
        rows, columns = coarse.shape[-2:]
        if h % rows or w % columns or not maps.permute(0, 2, 3, 1).is_contiguous():
            return maps.add_(F.interpolate(coarse, size=(h, w), mode="nearest"))
        squares = maps.permute(0, 2, 3, 1).view(b, rows, h // rows, columns, w // columns, c)
        squares.add_(coarse.permute(0, 2, 3, 1)[:, :, None, :, None])
        return maps


def _ordered(conv: nn.Conv2d) -> Tensor:
    """The kernels in oneDNN's order; in float32 they stay as they are and are shared."""
    weight = conv.weight.detach()
    if weight.dtype == torch.float32:
        return weight
    reorder: Callable[..., Tensor] = torch.ops.mkldnn._reorder_convolution_weight
    example = [1, conv.in_channels, 64, 64]
    return reorder(weight, conv.padding, conv.stride, conv.dilation, conv.groups, example)


class _Product(torch.autograd.Function):
    """Both directions as such products: torch's own backward of a 1x1 convolution is slower."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return multiply(x, weight, bias).clone()  # not a view: what comes next may work in place

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            multiply(gradient, weight.t(), None) if of_x else None,
            multiply(gradient.t().contiguous(), x.t(), None) if of_weight else None,
            gradient.sum(dim=0) if of_bias else None,
        )


def _images(rows: int) -> int:
    return 1 if torch.get_num_threads() > 1 or rows < _IMAGES else _IMAGES


def _as_maps(x: Float[Tensor, "r f"], images: int) -> Float[Tensor, "images f cells 1"]:
    """The rows as the cells of maps, channels last."""
    return x.reshape(images, len(x) // images, 1, x.shape[1]).permute(0, 3, 1, 2)


def _as_rows(maps: Float[Tensor, "images f cells 1"]) -> Float[Tensor, "r f"]:
    return maps.permute(0, 2, 3, 1).flatten(0, 2)
