"""Tensors by name: how families of checkpoints name those of one network, and how they are laid into it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from fasterrcnn.errors import WeightsError
from fasterrcnn.model.backbones.resnet import BLOCKS, Shape

State = dict[str, Tensor]


@dataclass(frozen=True)
class KeyMap:
    """Our names and a family's for the tensors of one network, read in both directions."""

    # (ours, theirs) of modules and of whole branches; the first that a tensor's name begins with counts. Tensors of a
    # module (weight, bias, running_mean...) and branches that are not listed have equal names
    branches: Sequence[tuple[str, str]]
    # (ours, theirs) of modules anywhere in these branches; at most one of them is in a name
    inside: Sequence[tuple[str, str]] = ()

    def theirs(self, key: str) -> str:
        """The family's name of one of our tensors; our own where it has none."""
        return _renamed(key, self.branches, self.inside)

    def ours(self, key: str) -> str:
        """Our name of one of the family's tensors; its own where we have none."""
        return _renamed(key, [pair[::-1] for pair in self.branches], [pair[::-1] for pair in self.inside])


def _renamed(key: str, branches: Sequence[tuple[str, str]], inside: Sequence[tuple[str, str]]) -> str:
    branch = next((pair for pair in branches if key.startswith(f"{pair[0]}.")), None)
    if branch is None:
        return key
    renamed = branch[1] + key.removeprefix(branch[0])
    for old, new in inside:
        if f".{old}." in renamed:
            return renamed.replace(f".{old}.", f".{new}.")
    return renamed


# ---- what the tensors of a file are


def resnet_shape(state: Mapping[str, Tensor], stages: Sequence[str]) -> Shape:
    """Depth and width of the ResNet in a file, by the blocks of two stages and a grouped convolution.

    `stages` are what the names of the first three stages begin with, the dot before the block's number included.
    """
    names = [{key.removeprefix(stage).split(".")[0] for key in state if key.startswith(stage)} for stage in stages[1:3]]
    counts = [sum(name.isdigit() for name in of_stage) for of_stage in names]
    is_deep = any(f"{stage}0.conv3.weight" in state for stage in stages)
    alike = (Shape(depth) for depth, blocks in BLOCKS.items() if list(blocks[1:3]) == counts)
    depth = next((shape.depth for shape in alike if shape.is_deep == is_deep), None)
    if depth is None:
        raise WeightsError(
            f"a ResNet with {counts[0]} and {counts[1]} blocks in its second and third stage is not known"
        )
    channels, of_a_group = shape_of(state, f"{stages[0]}0.conv2.weight", 4)[:2]
    return Shape(depth, channels // max(1, of_a_group), of_a_group)


def head_widths(state: Mapping[str, Tensor], layers: Sequence[str], predictor: str) -> tuple[int, ...]:
    """Features that come out of each fully connected layer of the box head: those that the next one takes in.

    `layers` are what the modules may be called, in order; as many are there as have a tensor. The last one leads to the
    predictor.
    """
    there = [layer for layer in layers if f"{layer}.weight" in state or f"{layer}.bias" in state]
    return tuple(shape_of(state, f"{layer}.weight", 2)[1] for layer in [*(there or layers[:1])[1:], predictor])


def shape_of(state: Mapping[str, Tensor], key: str, dimensions: int) -> tuple[int, ...]:
    """Shape of a tensor that the architecture follows from; it must be there and have that many dimensions."""
    if key not in state:
        raise WeightsError(f"does not fit any model: missing {key}")
    shape = tuple(state[key].shape)
    if len(shape) != dimensions:
        raise WeightsError(f"{key} has shape {shape}, and not {dimensions} dimensions")
    return shape


# ---- into a network


def check_fit(
    network: nn.Module, state: Mapping[str, Tensor], source: str, name_in_file: Callable[[str], str] = str
) -> State:
    """The tensors that fill a network: all of them are there, none is left over, shapes and numbers are right.

    The network may lie on the device "meta": so it is known what a file holds before memory is taken for it. A
    `WeightsError` names the source, and the tensor as the source calls it.
    """
    own = network.state_dict()
    given = {key: value for key, value in state.items() if key in own or not key.endswith("num_batches_tracked")}
    misfits = {
        "missing": [key for key in own if key not in given and not key.endswith("num_batches_tracked")],
        "left over": [key for key in given if key not in own],
    }
    parts = []
    for what, keys in misfits.items():
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            parts.append(f"{what} {', '.join(map(name_in_file, keys[:3]))}{more}")
    if parts:
        raise WeightsError(f"{source}: does not fit the model: {'; '.join(parts)}")
    check_tensors(given, own, source, name_in_file)
    return given


def check_tensors(
    given: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str, name_in_file: Callable[[str], str] = str
) -> None:
    """Refuse tensors of another shape than the network's own, and numbers that are not finite."""
    for key, value in given.items():
        if value.shape != own[key].shape:
            shapes = f"has shape {tuple(value.shape)}, the model needs {tuple(own[key].shape)}"
            raise WeightsError(f"{source}: {name_in_file(key)} {shapes}")
    for key, value in given.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise WeightsError(f"{source}: {name_in_file(key)} holds NaN or infinite numbers")
