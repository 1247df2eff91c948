"""MobileNetV3-Large (Howard et al. 2019) as a backbone, from torchvision's layers.

Axes: b images, h w cells.
"""

from functools import partial

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.mobilenetv3 import mobilenet_v3_large

from fasterrcnn.model.backbones.norms import Norm, make_norm

_OUTPUTS = (13, 16)
"""Layers whose maps torchvision's detectors use: the first of the last stage, and the last; both of stride 32."""


class MobileNetV3Large(nn.Module):
    """The convolutional part of MobileNetV3-Large; two maps of stride 32 with 160 and 960 channels."""

    def __init__(self, *, norm: Norm) -> None:
        super().__init__()
        self.channels = (160, 960)
        self.strides = (32, 32)
        self.layers: nn.Sequential = mobilenet_v3_large(norm_layer=partial(make_norm, norm)).features

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """The two maps."""
        maps = []
        for number, layer in enumerate(self.layers):
            x = layer(x)
            if number in _OUTPUTS:
                maps.append(x)
        return maps

    def stages(self) -> list[nn.Module]:
        """Layers from the input on: the order in which a network is frozen."""
        # torchvision counts a stage from each layer that halves the resolution.
        return [self.layers[a:b] for a, b in ((0, 2), (2, 4), (4, 7), (7, 13), (13, 17))]
