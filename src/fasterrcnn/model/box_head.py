"""The second stage's network: what is in a region, and how to correct its box.

Axes: r regions, c channels, s side of the pooled map, f features, k classes.
"""

from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from fasterrcnn.model.backbones.norms import Norm, make_norm


class BoxHead(nn.Module):
    """Features of a region, then its class logits and one box correction per class.

    Args:
        body: (r, c, s, s) -> (r, f).
        in_features: f.
        num_classes: K, without background.
    """

    def __init__(self, body: nn.Module, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.body = body
        self.class_logits = nn.Linear(in_features, num_classes + 1)
        self.box_deltas = nn.Linear(in_features, 4 * num_classes)
        for layer, std in ((self.class_logits, 0.01), (self.box_deltas, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(
        self, pooled: Float[Tensor, "r c s s"]
    ) -> tuple[Float[Tensor, "r k_and_background"], Float[Tensor, "r k 4"]]:
        """Class logits, background last, and deltas (dx, dy, dw, dh) for each class; background has none."""
        features = self.body(pooled)
        return self.class_logits(features), self.box_deltas(features).unflatten(1, (-1, 4))


def fully_connected_body(
    in_channels: int, output_size: int, widths: Sequence[int], *, convs: int = 0, norm: Norm | None = None
) -> nn.Sequential:
    """3x3 convolutions with norm (none by default), then fully connected layers, each with ReLU."""
    layers: list[nn.Module] = []
    for _ in range(convs):
        conv = nn.Conv2d(in_channels, in_channels, 3, padding=1, bias=norm is None)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        layers.append(conv)
        if norm is not None:
            layers.append(make_norm(norm, in_channels))
        layers.append(nn.ReLU(inplace=True))
    layers.append(nn.Flatten())
    for features, width in pairwise([in_channels * output_size**2, *widths]):
        layers += [nn.Linear(features, width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class StageBody(nn.Module):
    """A stage of the backbone used as head, then the mean over the map (He et al. 2016, appendix A)."""

    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, pooled: Float[Tensor, "r c s s"]) -> Float[Tensor, "r f"]:
        """Mean features of each region."""
        mean: Tensor = self.stage(pooled).mean(dim=(2, 3))
        return mean
