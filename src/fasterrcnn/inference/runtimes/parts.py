"""The two heavy parts of the network as modules for conversion, and stages made of two programs.

Axes: b images, c channels, h w pixels or cells, r regions, s side of a pooled map, k classes, a anchors of a cell.
Programs have channels last in and out, which is how the network's tensors lie in memory.
"""

import math
import threading
from collections.abc import Callable, Sequence
from typing import Generic, Literal, TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.model.stages import DenseOutputs, Stages

PartName = Literal["dense", "head"]
Program = Callable[[Tensor], Sequence[Tensor]]
"""Runs one part; may be called from several threads at once."""


class ProgramStages:
    """Stages that run as two programs, each made at its first use; see `fasterrcnn.model.stages.Stages`."""

    def __init__(self, model: FasterRCNN, make: Callable[[PartName], Program]) -> None:
        self._levels, self._classes = len(model.anchors.sizes), len(model.classes)
        self._dense = Lazy(lambda: make("dense"))
        self._head = Lazy(lambda: make("head"))

    def dense(self, pixels: Float[Tensor, "b 3 h w"]) -> DenseOutputs:
        """Feature maps of the levels that regions are pooled from, and RPN outputs."""
        maps = list(self._dense()(pixels.permute(0, 2, 3, 1)))
        pooled_levels = len(maps) - 2 * self._levels
        logits, deltas = maps[pooled_levels : -self._levels], maps[-self._levels :]
        return DenseOutputs(
            [level.permute(0, 3, 1, 2) for level in maps[:pooled_levels]],
            tuple((level.shape[1], level.shape[2]) for level in logits),
            [level.reshape(len(level), -1) for level in logits],
            [level.reshape(len(level), -1, 4) for level in deltas],
        )

    def head(self, pooled: Float[Tensor, "r c s s"]) -> tuple[Float[Tensor, "r _"], Float[Tensor, "r k 4"]]:
        """Class logits and box deltas."""
        logits, deltas = self._head()(pooled.permute(0, 2, 3, 1))
        return logits, deltas.view(-1, self._classes, 4)


class DensePart(nn.Module):
    """Backbone, neck and RPN of a model, not copied, as one module from one tensor to a flat tuple of tensors."""

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
        logits, deltas = self.rpn(features)
        grids = [(*level.permute(0, 2, 3, 1).shape[:3], -1) for level in features]
        maps = [level.permute(0, 2, 3, 1) for level in features[: self.pooled_levels]]
        return *maps, *(level.reshape(grid) for grid, level in zip(grids * 2, (*logits, *deltas), strict=True))


class HeadPart(nn.Module):
    """The box head with channels last in, and one row of deltas for all classes out."""

    def __init__(self, box_head: nn.Module) -> None:
        super().__init__()
        self.box_head = box_head

    def forward(self, pooled: Float[Tensor, "r s s c"]) -> tuple[Tensor, Tensor]:
        """Class logits and deltas."""
        logits, deltas = self.box_head(pooled.permute(0, 3, 1, 2))
        return logits, deltas.flatten(1)


def part_of(model: FasterRCNN, part: PartName) -> nn.Module:
    """The part of that name, for conversion."""
    return (DensePart(model) if part == "dense" else HeadPart(model.box_head)).eval()


def outputs_of(stages: Stages, pixels: Tensor, pooled: Tensor, levels: int) -> list[Tensor]:
    """All that stages give: maps of the levels that are pooled from, RPN outputs of each level, and the head's."""
    dense = stages.dense(pixels)
    return [*dense.features[:levels], *dense.logits, *dense.deltas, *stages.head(pooled)]


def relative_error(output: Tensor, exact: Tensor) -> float:
    """Root mean square of an error as a share of that of the exact output; not finite where an output is not."""
    error, size = (output - exact).square().mean().sqrt().item(), exact.square().mean().sqrt().item()
    return error / size if size else math.inf if error else 0.0


Value = TypeVar("Value")


class Lazy(Generic[Value]):
    """A costly value that is made once, at its first use, by the first thread that needs it."""

    def __init__(self, make: Callable[[], Value]) -> None:
        self._make: Callable[[], Value] | None = make
        self._value: Value | None = None
        self._lock = threading.Lock()

    def __call__(self) -> Value:
        """The value."""
        if self._value is None:
            with self._lock:
                if self._value is None:
                    assert self._make is not None
                    self._value, self._make = self._make(), None
        return self._value
