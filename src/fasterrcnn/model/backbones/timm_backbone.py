"""Any convolutional network of timm as a backbone: its feature maps from stride 4 or 8 to stride 32.

Axes: b images, h w cells.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fasterrcnn.errors import UsageError, require

_PROBE = 128
"""Side of the image that a new backbone is tried on."""


class TimmBackbone(nn.Module):
    """A timm network without its classifier.

    Args:
        name: timm's name of the network.
        strides: pixels per cell of the maps that are returned, finest first.
        frozen_norm: fix the statistics and the affine part of its batch norms.
    """

    def __init__(self, name: str, strides: Sequence[int], *, frozen_norm: bool = True) -> None:
        super().__init__()
        timm = require("timm", "timm")
        if not timm.is_model(name):
            close = ", ".join(timm.list_models(f"*{name.split('_', maxsplit=1)[0]}*")[:5]) or "see timm.list_models()"
            raise UsageError(f"timm has no network {name!r}; close: {close}")
        try:
            with torch.device("meta"):  # only its description is needed, not its weights
                probe: Any = timm.create_model(name, features_only=True, pretrained=False)
        except (RuntimeError, AttributeError, TypeError) as error:
            raise UsageError(f"timm's {name} cannot give feature maps: {error}") from error
        reductions = list(probe.feature_info.reduction())
        self.indices = tuple(reductions.index(stride) for stride in strides if stride in reductions)
        if len(self.indices) != len(strides):
            raise UsageError(f"timm's {name} has maps of strides {reductions}, not {list(strides)}")
        network: Any = timm.create_model(name, features_only=True, pretrained=False, out_indices=self.indices)
        self.strides = tuple(strides)
        self.channels = tuple(network.feature_info.channels())
        self.network: nn.Module = timm.layers.freeze_batch_norm_2d(network) if frozen_norm else network
        self._check(name)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """The chosen maps, finest first."""
        return list(self.network(x))

    def stages(self) -> list[nn.Module]:
        """Layers from the input on: the order in which a network is frozen."""
        children: list[nn.Module] = []
        for name, child in self.network.named_children():
            # EfficientNets and the like keep all their stages in one list.
            children += child.children() if name in ("blocks", "stages") else [child]
        return [child for child in children if any(True for _ in child.parameters())]

    @torch.no_grad()
    def _check(self, name: str) -> None:
        """Refuse networks that give maps of another layout or need one size of image, as many transformers do."""
        self.network.eval()
        try:
            maps = self.network(torch.zeros(1, 3, _PROBE, _PROBE))
        except (AssertionError, RuntimeError) as error:
            raise UsageError(f"timm's {name} does not take images of any size ({error})") from None
        self.network.train()
        expected = [(1, c, _PROBE // s, _PROBE // s) for c, s in zip(self.channels, self.strides, strict=True)]
        if [tuple(m.shape) for m in maps] != expected:
            raise UsageError(f"timm's {name} gives no plain feature maps; choose a convolutional network")
