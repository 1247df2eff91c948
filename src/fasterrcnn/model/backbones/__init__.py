"""Backbones: a trunk (ResNet-50, MobileNetV3, any timm network) and a neck (a feature pyramid, or none)."""

from typing import Protocol, cast

from jaxtyping import Float
from torch import Tensor, nn


class Trunk(Protocol):
    """What a trunk offers besides being a module that turns images into a list of maps."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def stages(self) -> list[nn.Module]:
        """Parts from the input on: the order in which a network is frozen."""


class Backbone(nn.Module):
    """Images in, feature maps out, finest first.

    Args:
        trunk: a module that is a `Trunk`.
        neck: maps in, maps out.
        channels: of every map that goes out.

    Attributes:
        strides: pixels per cell of the trunk's maps, which are those that regions are pooled from.
    """

    def __init__(self, trunk: nn.Module, neck: nn.Module, channels: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.neck = neck
        self.channels = channels
        self.strides = cast(Trunk, trunk).strides

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Feature maps of normalised pixels."""
        maps: list[Tensor] = self.neck(self.trunk(pixels))
        return maps

    @property
    def depth(self) -> int:
        """Parts of the trunk that can be frozen one after the other."""
        return len(cast(Trunk, self.trunk).stages())

    def freeze(self, stages: int) -> None:
        """Let only what comes after the first ``stages`` parts of the trunk learn: the stem is the first."""
        for number, stage in enumerate(cast(Trunk, self.trunk).stages()):
            stage.requires_grad_(number >= stages)
