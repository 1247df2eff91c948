"""ResNet and ResNeXt without pooling and classifier (He et al. 2016; Xie et al. 2017), as a list of feature maps.

Axes: b images, c channels, h w cells.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fasterrcnn.model.backbones.norms import FrozenBatchNorm2d, Norm, make_norm

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Blocks of each stage, by depth of the network."""


@dataclass(frozen=True)
class Shape:
    """Depth and width of a ResNet.

    Attributes:
        depth: number of weighted layers, a key of `BLOCKS`.
        groups: of the 3x3 convolutions (ResNeXt).
        width: channels of a group in the first stage; it doubles from stage to stage.
    """

    depth: int
    groups: int = 1
    width: int = 64

    @classmethod
    def of(cls, name: str) -> "Shape | None":
        """The network of that name: "resnet101", "resnext101-32x8d", "wide-resnet50-2"; None for any other name."""
        parsed = re.fullmatch(r"resnet(\d+)|resnext(\d+)-(\d+)x(\d+)d|wide-resnet(\d+)-(\d+)", name)
        if parsed is None or int(parsed[1] or parsed[2] or parsed[5]) not in BLOCKS:
            return None
        if parsed[5]:
            return cls(int(parsed[5]), width=64 * int(parsed[6]))
        return cls(int(parsed[1])) if parsed[1] else cls(int(parsed[2]), int(parsed[3]), int(parsed[4]))

    def __str__(self) -> str:
        if self.groups == 1:
            return f"resnet{self.depth}" if self.width == 64 else f"wide-resnet{self.depth}-{self.width // 64}"
        return f"resnext{self.depth}-{self.groups}x{self.width}d"

    @property
    def is_deep(self) -> bool:
        """Whether its blocks are bottlenecks; those of 18 and 34 layers are two 3x3 convolutions each."""
        return self.depth >= 50

    def channels(self, stage: int) -> int:
        """Channels of the map of stage 1 to 4."""
        channels: int = (256 if self.is_deep else 64) * 2 ** (stage - 1)
        return channels


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut (He et al. 2016, figure 5).

    Args:
        in_channels: channels that come in.
        channels: channels of the 3x3 convolution.
        out_channels: channels that go out.
        stride: of the 3x3 convolution, or of the first 1x1 with ``stride_in_1x1`` (Caffe weights).
        dilation: of the 3x3 convolution.
        norm: normalisation after each convolution.
        groups: of the 3x3 convolution.
        stride_in_1x1: where the stride lies.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        out_channels: int,
        *,
        stride: int,
        dilation: int,
        groups: int,
        norm: Norm,
        stride_in_1x1: bool,
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = nn.Conv2d(in_channels, channels, 1, first, bias=False)
        self.bn1 = make_norm(norm, channels)
        self.conv2 = nn.Conv2d(
            channels, channels, 3, second, padding=dilation, dilation=dilation, groups=groups, bias=False
        )
        self.bn2 = make_norm(norm, channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = make_norm(norm, out_channels)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, make_norm(norm, out_channels))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        """The shortcut plus what the three convolutions add."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        y += self.downsample(x)
        return F.relu(y, inplace=True)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al. 2016, figure 5); arguments as of `Bottleneck`."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, dilation: int, norm: Norm) -> None:
        super().__init__()
        options: dict[str, Any] = {"padding": dilation, "dilation": dilation, "bias": False}
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, **options)
        self.bn1 = make_norm(norm, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, **options)
        self.bn2 = make_norm(norm, out_channels)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, make_norm(norm, out_channels))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        """The shortcut plus what the two convolutions add."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        y += self.downsample(x)
        return F.relu(y, inplace=True)


def make_stage(
    number: int, shape: Shape, *, norm: Norm, stride: int, dilation: int = 1, stride_in_1x1: bool = False
) -> nn.Sequential:
    """Stage ``number`` (1..4) of the network; the stride lies in its first block, the dilation in all of them."""
    out_channels = shape.channels(number)
    in_channels = 64 if number == 1 else out_channels // 2
    layers: list[nn.Module] = []
    for block in range(BLOCKS[shape.depth][number - 1]):
        block_stride = stride if block == 0 else 1
        if not shape.is_deep:
            layers.append(BasicBlock(in_channels, out_channels, stride=block_stride, dilation=dilation, norm=norm))
            in_channels = out_channels
            continue
        layers.append(
            Bottleneck(
                in_channels,
                shape.groups * shape.width * 2 ** (number - 1),
                out_channels,
                stride=block_stride,
                dilation=dilation,
                groups=shape.groups,
                norm=norm,
                stride_in_1x1=stride_in_1x1,
            )
        )
        in_channels = out_channels
    stage = nn.Sequential(*layers)
    initialise(stage)
    return stage


class ResNet(nn.Module):
    """Stem and stages of a ResNet.

    Args:
        shape: depth and width.
        outputs: the stages whose maps are returned, rising; later stages are not built.
        norm: normalisation after each convolution.
        dilated: stage 4 keeps stride 16 and dilates all of its blocks by 2 (DC5).
        stride_in_1x1: put the stride into the first 1x1 convolution, as the original Caffe weights do.
    """

    def __init__(
        self,
        shape: Shape,
        outputs: Sequence[int],
        *,
        norm: Norm,
        dilated: bool = False,
        stride_in_1x1: bool = False,
    ) -> None:
        super().__init__()
        self.outputs = tuple(outputs)
        self.channels = tuple(map(shape.channels, outputs))
        self.strides = tuple(16 if dilated and stage == 4 else 2 ** (stage + 1) for stage in outputs)
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = make_norm(norm, 64)
        initialise(self)
        for stage in range(1, max(outputs) + 1):
            dilate = dilated and stage == 4
            layer = make_stage(
                stage,
                shape,
                norm=norm,
                stride=1 if stage == 1 or dilate else 2,
                dilation=2 if dilate else 1,
                stride_in_1x1=stride_in_1x1,
            )
            self.add_module(f"layer{stage}", layer)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Maps of the chosen stages, finest first."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x)), inplace=True), 3, 2, padding=1)
        maps = []
        for number, stage in enumerate(self.stages()[1:], start=1):
            x = stage(x)
            if number in self.outputs:
                maps.append(x)
        return maps

    def stages(self) -> list[nn.Module]:
        """Stem and stages from the input on: the order in which a network is frozen."""
        stem = nn.ModuleList([self.conv1, self.bn1])
        return [stem, *(self.get_submodule(f"layer{n}") for n in range(1, max(self.outputs) + 1))]


@torch.no_grad()
def initialise(network: nn.Module) -> None:
    """He et al. 2015 for every convolution; frozen norms damp the residual branches.

    A random network whose norms are not trained would double its variance in every block; with a branch gain of
    1/4 the whole of ResNet-50 grows by a factor below 2. Pre-trained weights overwrite both.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, Bottleneck | BasicBlock):
            last = module.bn3 if isinstance(module, Bottleneck) else module.bn2
            if isinstance(last, FrozenBatchNorm2d):
                last.weight.fill_(0.25)
