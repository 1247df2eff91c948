"""Necks: what stands between a backbone and the detector's two stages.

Axes: b images, c channels, h w cells, l levels.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fasterrcnn.model.backbones.norms import Norm, make_norm


class FeaturePyramid(nn.Module):
    """Feature pyramid network (Lin et al. 2017, section 3): strong features at every resolution.

    Gives one map per backbone map, and one more at twice the coarsest stride.

    Args:
        in_channels: channels of the backbone's maps, finest first.
        out_channels: channels of every map that goes out.
        norm: normalisation after each convolution; None has biases instead.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int, *, norm: Norm | None = None) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(_conv(c, out_channels, 1, norm) for c in in_channels)
        self.output = nn.ModuleList(_conv(out_channels, out_channels, 3, norm) for _ in in_channels)

    def forward(self, maps: Sequence[Float[Tensor, "b _ _ _"]]) -> list[Float[Tensor, "b _ _ _"]]:
        """Maps of the pyramid, finest first."""
        top_down = self.lateral[-1](maps[-1])
        pyramid = [self.output[-1](top_down)]
        for level in range(len(maps) - 2, -1, -1):
            lateral = self.lateral[level](maps[level])
            top_down = lateral + F.interpolate(top_down, size=lateral.shape[-2:], mode="nearest")
            pyramid.insert(0, self.output[level](top_down))
        return [*pyramid, F.max_pool2d(pyramid[-1], kernel_size=1, stride=2)]


class Reduction(nn.Module):
    """A 1x1 convolution that brings every map to one number of channels."""

    def __init__(self, in_channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_conv(c, out_channels, 1, None) for c in in_channels)

    def forward(self, maps: Sequence[Float[Tensor, "b _ _ _"]]) -> list[Float[Tensor, "b _ _ _"]]:
        """The maps with fewer channels and ReLU."""
        return [F.relu(conv(m)) for conv, m in zip(self.convs, maps, strict=True)]


def _conv(in_channels: int, out_channels: int, kernel: int, norm: Norm | None) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=norm is None)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return nn.Sequential(conv) if norm is None else nn.Sequential(conv, make_norm(norm, out_channels))
