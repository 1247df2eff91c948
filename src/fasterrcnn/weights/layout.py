"""How families of checkpoints name the tensors of one network: one table of modules, read in both directions."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from fasterrcnn.config import ModelConfig
from fasterrcnn.errors import WeightsError
from fasterrcnn.model.backbones.resnet import BLOCKS, Shape


@dataclass(frozen=True)
class KeyMap:
    """Names of the modules with tensors.

    Attributes:
        modules: our name -> the family's. Tensors of a module (weight, bias, running_mean...) have equal names.
    """

    modules: Mapping[str, str]

    def theirs(self, key: str) -> str:
        """The family's name of one of our tensors; our own where it has none."""
        return _renamed(key, self.modules)

    def ours(self, key: str) -> str:
        """Our name of one of the family's tensors; its own where we have none."""
        return _renamed(key, self._inverse)

    @cached_property
    def _inverse(self) -> dict[str, str]:
        return {theirs: ours for ours, theirs in self.modules.items()}


def _renamed(key: str, modules: Mapping[str, str]) -> str:
    module, _, tensor = key.rpartition(".")
    return f"{modules[module]}.{tensor}" if module in modules else key


def bottlenecks(shape: Shape, stage: int) -> Iterator[tuple[str, str]]:
    """Modules of a ResNet stage (1..4): torchvision's name, then Detectron2's, both from the block's number on."""
    for block in range(BLOCKS[shape.depth][stage - 1]):
        for number in (1, 2, 3):
            yield f"{block}.conv{number}", f"{block}.conv{number}"
            yield f"{block}.bn{number}", f"{block}.conv{number}.norm"
    yield "0.downsample.0", "0.shortcut"
    yield "0.downsample.1", "0.shortcut.norm"


def resnet_shape(state: Mapping[str, Tensor], stages: Sequence[str]) -> Shape:
    """Depth and width of the ResNet in a file, recognised by the blocks of two stages and by a grouped convolution.

    Args:
        state: tensors of the file.
        stages: what the names of the first three stages begin with, the dot before the block's number included.

    Raises:
        WeightsError: a needed tensor is missing, or there is no such ResNet.
    """
    counts = [_blocks(state, stage) for stage in stages[1:3]]
    depth = next((depth for depth, blocks in BLOCKS.items() if list(blocks[1:3]) == counts), None)
    if depth is None:
        raise WeightsError(
            f"a ResNet with {counts[0]} and {counts[1]} blocks in its second and third stage is not known"
        )
    channels, of_a_group = shape_of(state, f"{stages[0]}0.conv2.weight", 4)[:2]
    return Shape(depth, channels // max(1, of_a_group), of_a_group)


def _blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    matches = (re.match(rf"{re.escape(prefix)}(\d+)\.", key) for key in state)
    return len({match[1] for match in matches if match})


def head_widths(state: Mapping[str, Tensor], layers: Sequence[str], predictor: str) -> tuple[int, ...]:
    """Features that come out of each fully connected layer of the box head: those that the next one takes in.

    Args:
        state: tensors of the file.
        layers: what the modules may be called, in order; as many are there as have a tensor.
        predictor: module that the last one leads to.

    Raises:
        WeightsError: the tensor of a next layer is missing or no matrix.
    """
    there = [layer for layer in layers if f"{layer}.weight" in state or f"{layer}.bias" in state]
    return tuple(shape_of(state, f"{layer}.weight", 2)[1] for layer in [*(there or layers[:1])[1:], predictor])


def shape_of(state: Mapping[str, Tensor], key: str, dimensions: int) -> tuple[int, ...]:
    """Shape of a tensor that the architecture follows from.

    Raises:
        WeightsError: it is missing, or has another number of dimensions.
    """
    if key not in state:
        raise WeightsError(f"does not fit any model: missing {key}")
    shape = tuple(state[key].shape)
    if len(shape) != dimensions:
        raise WeightsError(f"{key} has shape {shape}, and not {dimensions} dimensions")
    return shape


def changed(config: ModelConfig, **parts: Mapping[str, object]) -> ModelConfig:
    """The configuration with some fields of its parts set otherwise: ``changed(c, regions={"aligned": True})``."""
    update = {part: getattr(config, part).model_copy(update=dict(fields)) for part, fields in parts.items()}
    return config.model_copy(update=update)


def with_numerics_in_common(config: ModelConfig) -> ModelConfig:
    """The numbers that Detectron2 and MMDetection agree on for an architecture."""
    pyramid = config.backbone.neck == "fpn"
    counts = {"candidates": 1000, "proposals": 1000, "training_candidates": 2000, "training_proposals": 1000}
    if not pyramid:
        counts = {"candidates": 6000, "proposals": 1000, "training_candidates": 12000, "training_proposals": 2000}
    return changed(
        config,
        backbone={"norm_eps": 1e-5},
        anchors={"strides": (4, 8, 16, 32, 64) if pyramid else (16,), "rounded": False},
        rpn={"beta": 0.0},
        proposals={**counts, "min_side": 0.0},
        regions={"sampling_ratio": 0, "aligned": True, "beta": 0.0},
        postprocess={"min_side": 0.0},
    )
