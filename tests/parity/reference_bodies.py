"""ResNets as plain functions on tensors under a family's names, and random tensors; knows nothing of the library."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def random_image(height: int, width: int, seed: int) -> Tensor:
    """RGB, 0..255, whole levels, as different from place to place as a photograph."""
    generator = torch.Generator().manual_seed(seed)
    layers = [torch.rand(1, 3, cells, cells, generator=generator) for cells in (3, 7, 19)]
    whole = [F.interpolate(layer, size=(height, width), mode="bilinear", align_corners=False) for layer in layers]
    pixels = torch.cat(whole).sum(dim=0) - 1 + 0.1 * torch.rand(3, height, width, generator=generator)
    return (pixels.clamp(0, 1) * 255).round().byte()


class Dice:
    """Random tensors of the sizes that keep signals alive."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.state: State = {}

    def conv(self, name: str, out: int, inside: int, side: int, *, bias: bool = False, gain: float = 2.0) -> None:
        deviation = (gain / (inside * side**2)) ** 0.5
        self.state[f"{name}.weight"] = deviation * torch.randn(out, inside, side, side, generator=self.generator)
        if bias:
            self.state[f"{name}.bias"] = 0.1 * torch.randn(out, generator=self.generator)

    def linear(self, name: str, out: int, inside: int) -> None:
        self.state[f"{name}.weight"] = (2 / inside) ** 0.5 * torch.randn(out, inside, generator=self.generator)
        self.state[f"{name}.bias"] = 0.1 * torch.randn(out, generator=self.generator)

    def norm(self, name: str, channels: int, *, scale: float = 1.0) -> None:
        between = lambda low, high: low + (high - low) * torch.rand(channels, generator=self.generator)  # noqa: E731
        self.state[f"{name}.weight"] = scale * between(0.7, 1.3)
        self.state[f"{name}.bias"] = between(-0.2, 0.2)
        self.state[f"{name}.running_mean"] = between(-0.2, 0.2)
        self.state[f"{name}.running_var"] = between(0.5, 1.5)

    def stage(self, number: int, blocks: int, name: Callable[[int, str], str], groups: int, width: int) -> None:
        """A stage (1..4); ``name`` gives the family's name of "conv1", "bn1", "downsample.0"... of a block."""
        middle, out = groups * width * 2 ** (number - 1), 256 * 2 ** (number - 1)
        inside = 64 if number == 1 else out // 2
        for block in range(blocks):
            if block == 0:
                self.conv(name(0, "downsample.0"), out, inside, 1, gain=1.0)
                self.norm(name(0, "downsample.1"), out)
            self.conv(name(block, "conv1"), middle, inside, 1)
            self.conv(name(block, "conv2"), middle, middle // groups, 3)
            self.conv(name(block, "conv3"), out, middle, 1)
            for layer, channels, scale in (("bn1", middle, 1.0), ("bn2", middle, 1.0), ("bn3", out, 0.3)):
                self.norm(name(block, layer), channels, scale=scale)
            inside = out


def frozen_norm(x: Tensor, state: State, name: str, eps: float = 1e-5) -> Tensor:
    mean, variance, weight, bias = (state[f"{name}.{t}"] for t in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)


def run_stage(
    x: Tensor,
    state: State,
    name: Callable[[int, str], str],
    blocks: int,
    *,
    stride: int,
    dilation: int,
    groups: int,
    stride_in_1x1: bool,
) -> Tensor:
    for block in range(blocks):
        here = stride if block == 0 else 1
        first, second = (here, 1) if stride_in_1x1 else (1, here)

        def layer(y: Tensor, conv: str, norm: str, block: int = block, **options: int) -> Tensor:
            return frozen_norm(F.conv2d(y, state[f"{name(block, conv)}.weight"], **options), state, name(block, norm))

        y = layer(x, "conv1", "bn1", stride=first).relu()
        y = layer(y, "conv2", "bn2", stride=second, padding=dilation, dilation=dilation, groups=groups).relu()
        y = layer(y, "conv3", "bn3")
        shortcut = layer(x, "downsample.0", "downsample.1", stride=here) if block == 0 else x
        x = (y + shortcut).relu()
    return x
