"""Backbones: a backbone (ResNet-50, MobileNetV3, any timm network) and a neck (a feature pyramid, or none)."""

from collections import OrderedDict
from typing import Protocol, cast

from torch import nn


class Body(Protocol):
    """What a backbone needs besides being a module that turns images into a list of maps."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def stages(self) -> list[nn.Module]:
        """Stages from the input on: the order in which a network is frozen."""


class Backbone(nn.Sequential):
    """Normalised images in, feature maps out, finest first: a body, then a neck.

    Args:
        body: a module that is a `Body`.
        neck: maps in, maps out.
        channels: of every map that goes out.

    Attributes:
        strides: pixels per cell of the body's maps, which are those that regions are pooled from.
    """

    body: nn.Module
    neck: nn.Module

    def __init__(self, body: nn.Module, neck: nn.Module, channels: int) -> None:
        super().__init__(OrderedDict(body=body, neck=neck))
        self.channels = channels
        self.strides = cast(Body, body).strides

    @property
    def depth(self) -> int:
        """Number of stages of the body that can be frozen one after the other."""
        return len(cast(Body, self.body).stages())

    def freeze(self, stages: int) -> None:
        """Freeze the first ``stages`` stages of the body and train the others; the stem is the first."""
        for number, stage in enumerate(cast(Body, self.body).stages()):
            stage.requires_grad_(number >= stages)
