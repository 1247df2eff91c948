"""Reading checkpoints without running code from them, and laying tensors into a network with a full check."""

import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fasterrcnn.errors import WeightsError

State = dict[str, Tensor]

_MAGIC = (b"PK", b"\x80")
"""First bytes of a zip archive, and of a pickle (files from before torch 1.6)."""

_WRAPPERS = ("model", "state_dict", "model_state_dict")
"""Keys under which training scripts keep the weights beside the optimiser."""


def read_torch(path: Path) -> State:
    """The tensors that `read_checkpoint` finds."""
    return read_checkpoint(path)[0]


def read_checkpoint(path: Path) -> tuple[State, dict[str, Any]]:
    """Tensors of a ``torch.save`` file, read by the unpickler that knows tensors only; and what stood beside them.

    Raises:
        WeightsError: not such a file, torn, or it holds anything but named tensors.
    """
    with path.open("rb") as file:
        if not file.read(4).startswith(_MAGIC):
            raise WeightsError(f"{path}: not a checkpoint written by torch.save")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f"an object of {found[1]}" if found else "something that is no tensor"
        raise WeightsError(f"{path}: refused, it holds {what}, and loading that could run code") from None
    except Exception as error:  # a torn or hostile file fails in any way it likes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path}: not a readable checkpoint ({reason})") from None
    beside: dict[str, Any] = {}
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            beside |= {str(key): value for key, value in content.items() if key != wrapper}
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path}: no named tensors inside")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise WeightsError(f"{path}: {key!r} is a {type(value).__name__}, not a tensor")
    return dict(content), beside


def fill(
    network: nn.Module, state: Mapping[str, Tensor], source: str, name_in_file: Callable[[str], str] | None = None
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
    own = network.state_dict()
    given = {key: value for key, value in state.items() if key in own or not key.endswith("num_batches_tracked")}
    missing = [key for key in own if key not in given and not key.endswith("num_batches_tracked")]
    extra = [key for key in given if key not in own]
    called = name_in_file or str
    if missing or extra:
        parts = [f"missing {_some([called(key) for key in missing])}"] * bool(missing) + [
            f"left over {_some(extra)}"
        ] * bool(extra)
        raise WeightsError(f"{source}: does not fit the model: {'; '.join(parts)}")
    check_tensors(given, own, source, called)
    network.load_state_dict(given, strict=False)


def check_tensors(
    given: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str, called: Callable[[str], str] = str
) -> None:
    """Refuse tensors of another shape than the network's own, and numbers that are not finite."""
    for key, value in given.items():
        if value.shape != own[key].shape:
            raise WeightsError(
                f"{source}: {called(key)} has shape {tuple(value.shape)}, the model needs {tuple(own[key].shape)}"
            )
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise WeightsError(f"{source}: {called(key)} holds NaN or infinite numbers")


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
