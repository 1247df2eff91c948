"""Component 2, the region proposal network: for every anchor, is there an object, and where exactly?

Axes: b images, c channels, h w cells, a anchors of one level (cells in row order, then the anchors of a cell).
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn


class RegionProposalNetwork(nn.Module):
    """A small network that slides over the feature maps (Ren et al. 2015, section 3.1).

    Args:
        in_channels: channels of every feature map.
        anchors_per_cell: how many anchors the generator puts around a cell.
        convs: 3x3 convolutions before the two 1x1 outputs.
    """

    def __init__(self, in_channels: int, anchors_per_cell: int, *, convs: int = 1) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(in_channels, in_channels, 3, padding=1) for _ in range(convs))
        self.objectness = nn.Conv2d(in_channels, anchors_per_cell, 1)
        self.deltas = nn.Conv2d(in_channels, 4 * anchors_per_cell, 1)
        for layer in (*self.convs, self.objectness, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(
        self, features: Sequence[Float[Tensor, "_ c _ _"]]
    ) -> tuple[list[Float[Tensor, "b _"]], list[Float[Tensor, "b _ 4"]]]:
        """Objectness logits and box deltas (dx, dy, dw, dh) of every anchor, level by level."""
        logits, deltas = [], []
        for level in features:
            hidden = level
            for conv in self.convs:
                hidden = conv(hidden).relu_()
            # (b, anchors, h, w) -> (b, h * w * anchors): a view where memory is channels_last
            logits.append(self.objectness(hidden).permute(0, 2, 3, 1).flatten(1))
            deltas.append(self.deltas(hidden).permute(0, 2, 3, 1).reshape(level.shape[0], -1, 4))
        return logits, deltas
