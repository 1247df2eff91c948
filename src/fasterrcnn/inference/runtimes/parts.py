"""The two parts of the network that runtimes run, and what a runtime is.

Axes: b images, c channels, h w pixels or cells, r regions, s side of a pooled map, k classes, a anchors of a cell.
Everything that crosses the border of a runtime has its channels last, so that nobody copies a map.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from fasterrcnn.model.faster_rcnn import FasterRCNN


class DenseMaps(NamedTuple):
    """What the dense part gives, channels last, finest level first.

    Attributes:
        features: of the levels that regions are pooled from.
        logits: objectness of every anchor of every cell.
        deltas: four for every anchor.
    """

    features: list[Float[Tensor, "b _ _ c"]]
    logits: list[Float[Tensor, "b _ _ a"]]
    deltas: list[Float[Tensor, "b _ _ a4"]]


@runtime_checkable
class Runtime(Protocol):
    """Runs the two heavy parts; may be called from several threads at once."""

    name: str

    def dense(self, pixels: Float[Tensor, "b h w 3"]) -> DenseMaps:
        """Feature maps and RPN outputs of RGB in 0..1; they may be overwritten by this thread's next call."""

    def head(self, pooled: Float[Tensor, "r s s c"]) -> tuple[Float[Tensor, "r k_and_background"], Tensor]:
        """Class logits, and deltas (r, 4 k), of at least one region."""


class DensePart(nn.Module):
    """Backbone, neck and RPN as one module from one tensor to a flat tuple of tensors.

    Args:
        model: whose layers are used, not copied.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: FasterRCNN) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.rpn = model.rpn
        self.register_buffer("mean", model.mean)
        self.register_buffer("std", model.std)
        self.pooled_levels = len(model.roi_pooling.strides)

    def forward(self, pixels: Float[Tensor, "b h w 3"]) -> tuple[Tensor, ...]:
        """Feature maps, then objectness logits and deltas of every level."""
        features = self.backbone((pixels.permute(0, 3, 1, 2) - self.mean) / self.std)
        logits, deltas = self.rpn.maps(features)
        return tuple(m.permute(0, 2, 3, 1) for m in (*features[: self.pooled_levels], *logits, *deltas))

    def sort(self, outputs: Sequence[Tensor]) -> DenseMaps:
        """The flat tuple by its meaning."""
        levels = (len(outputs) - self.pooled_levels) // 2
        features, heads = list(outputs[: self.pooled_levels]), list(outputs[self.pooled_levels :])
        return DenseMaps(features, heads[:levels], heads[levels:])


class HeadPart(nn.Module):
    """The box head with channels last in, and deltas not sorted by class out."""

    def __init__(self, model: FasterRCNN) -> None:
        super().__init__()
        self.body = model.box_head.body
        self.class_logits = model.box_head.class_logits
        self.box_deltas = model.box_head.box_deltas

    def forward(self, pooled: Float[Tensor, "r s s c"]) -> tuple[Tensor, Tensor]:
        """Class logits and deltas."""
        features = self.body(pooled.permute(0, 3, 1, 2))
        return self.class_logits(features), self.box_deltas(features)


def part_of(model: FasterRCNN, part: str) -> nn.Module:
    """The part of that name, "dense" or "head", for conversion."""
    return (DensePart(model) if part == "dense" else HeadPart(model)).eval()


Made = TypeVar("Made")


class Lazy(Generic[Made]):
    """Something costly that is made once, at its first use, whichever thread comes first."""

    def __init__(self, make: Callable[[], Made]) -> None:
        self._make: Callable[[], Made] | None = make
        self._made: Made | None = None
        self._lock = threading.Lock()

    def __call__(self) -> Made:
        """The thing."""
        if self._made is None:
            with self._lock:
                if self._made is None:
                    assert self._make is not None
                    self._made, self._make = self._make(), None
        return self._made
