"""Laying tensors into a network with a full check."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from fasterrcnn.errors import WeightsError

State = dict[str, Tensor]


def fill_network(
    network: nn.Module, state: Mapping[str, Tensor], source: str, name_in_file: Callable[[str], str] = str
) -> None:
    """Copy every tensor into the network; the two must hold the same names and shapes.

    Args:
        network: what is filled.
        state: tensors under the network's names.
        source: the file, for messages.
        name_in_file: what the file calls a tensor of the network, for messages.

    Raises:
        WeightsError: a tensor is missing, left over, of another shape or not finite; the message names it.
    """
    given = check_names(network, state, source, name_in_file)
    check_tensors(given, network.state_dict(), source, name_in_file)
    network.load_state_dict(given, strict=False)


def check_names(
    network: nn.Module, state: Mapping[str, Tensor], source: str, name_in_file: Callable[[str], str] = str
) -> State:
    """The tensors that the network takes, once all of them are there, none is left over and the shapes are the same.

    The network may lie on the device "meta": so it is known what a file holds before memory is taken for it.

    Raises:
        WeightsError: the message names the tensor.
    """
    own = network.state_dict()
    given = {key: value for key, value in state.items() if key in own or not key.endswith("num_batches_tracked")}
    missing = [key for key in own if key not in given and not key.endswith("num_batches_tracked")]
    extra = [key for key in given if key not in own]
    if missing or extra:
        parts = [f"missing {_some([name_in_file(key) for key in missing])}"] * bool(missing) + [
            f"left over {_some(extra)}"
        ] * bool(extra)
        raise WeightsError(f"{source}: does not fit the model: {'; '.join(parts)}")
    _check_shapes(given, own, source, name_in_file)
    return given


def check_tensors(
    given: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str, name_in_file: Callable[[str], str] = str
) -> None:
    """Refuse tensors of another shape than the network's own, and numbers that are not finite."""
    _check_shapes(given, own, source, name_in_file)
    for key, value in given.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise WeightsError(f"{source}: {name_in_file(key)} holds NaN or infinite numbers")


def _check_shapes(
    given: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str, name_in_file: Callable[[str], str]
) -> None:
    for key, value in given.items():
        if value.shape != own[key].shape:
            shapes = f"has shape {tuple(value.shape)}, the model needs {tuple(own[key].shape)}"
            raise WeightsError(f"{source}: {name_in_file(key)} {shapes}")


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
