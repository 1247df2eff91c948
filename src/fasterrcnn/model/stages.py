"""The two heavy parts of a forward pass, which may run elsewhere, and the observer of its steps.

Axes: b images, c channels, h w pixels, a anchors of one level, r regions, s side of a pooled map, k classes.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


class DenseOutputs(NamedTuple):
    """What the network computes for the whole image, finest level first.

    Attributes:
        features: feature maps, at least those of the levels that regions are pooled from.
        sizes_hw: height and width of the map of every level that has anchors.
        logits: objectness of every anchor.
        deltas: box deltas (dx, dy, dw, dh) of every anchor.
    """

    features: list[Float[Tensor, "b c _ _"]]
    sizes_hw: tuple[tuple[int, int], ...]
    logits: list[Float[Tensor, "b _"]]
    deltas: list[Float[Tensor, "b _ 4"]]


@runtime_checkable
class Stages(Protocol):
    """Runs the two heavy parts of the network. The model is its own default; every runtime is another one.

    Tensors should be in channels_last memory: then no part has to copy a map.
    """

    def dense(self, pixels: Float[Tensor, "b 3 h w"]) -> DenseOutputs:
        """Feature maps and RPN outputs of RGB in 0..1; the next call in the same thread may overwrite them."""

    def head(
        self, pooled: Float[Tensor, "r c s s"]
    ) -> tuple[Float[Tensor, "r k_and_background"], Float[Tensor, "r k 4"]]:
        """Class logits, background last, and box deltas of at least one region."""


Observer = Callable[..., None]
"""Called after each step with the name of the step and its values, ``observe("rpn", logits=..., deltas=...)``.

The values are the very tensors that the network continues with: do not change them. Steps that process one image after
the other call the observer once for each image.

    features      maps: feature maps, finest first
    rpn           logits, deltas: of every anchor, level by level
    anchors       anchors: level by level
    candidates    index (b k): which of all anchors, level after level, are the best of their level; boxes (b k 4)
    proposals     of one image: boxes and scores of the candidates, clipped; good: which are large and likely enough;
                  survivors: those that NMS leaves, by falling score; kept: how many of these become proposals
    pooled        rois, pooled: maps of one size
    head          logits, deltas: of every region
    scored        of one image: rows, labels, scores, boxes: of every region and class above the threshold
    detections    of one image: kept: which of the scored boxes are reported; detections
"""
