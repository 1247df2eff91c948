"""Detectron2's pickles of arrays, read and written; reading knows arrays and plain values, and runs nothing else."""

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fasterrcnn.errors import WeightsError
from fasterrcnn.weights.checkpoint import State

_ARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric", "numpy")
_KNOWN = {
    (module, name) for module in _ARRAYS for name in ("_reconstruct", "_frombuffer", "ndarray", "dtype", "scalar")
}
_KNOWN |= {("_codecs", "encode"), ("collections", "OrderedDict")}


class _Arrays(pickle.Unpickler):
    """Knows what arrays are made of, and no other name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it holds an object of {module}.{name}, and loading that could run code")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read(path: Path) -> tuple[State, dict[str, Any]] | None:
    """Tensors and other entries of a pickle of named arrays; None for a pickle of another kind, as old torch wrote.

    Raises:
        WeightsError: torn, or it holds more than arrays and plain values.
    """
    try:
        with path.open("rb") as file:
            content = _Arrays(file, encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{path}: refused, {error}") from None
    except Exception as error:  # a torn or hostile file fails in any way it likes
        raise WeightsError(f"{path}: not a readable pickle ({type(error).__name__})") from None
    if not isinstance(content, Mapping):
        return None
    arrays = content
    for wrapper in ("model", "blobs"):
        if isinstance(content.get(wrapper), Mapping):
            arrays = content[wrapper]
    state = {str(key): _tensor(value) for key, value in arrays.items() if isinstance(value, np.ndarray)}
    if not state:
        raise WeightsError(f"{path}: no named arrays inside")
    return state, {str(key): value for key, value in content.items() if not isinstance(value, Mapping | np.ndarray)}


def written(state: Mapping[str, torch.Tensor]) -> bytes:
    """The bytes of a file that Detectron2's checkpointer takes for one of its zoo."""
    arrays = {key: value.detach().cpu().contiguous().numpy() for key, value in state.items()}
    file = io.BytesIO()
    pickle.dump({"model": arrays, "__author__": "fasterrcnn"}, file, protocol=4)
    return file.getvalue()


def _tensor(array: NDArray[np.generic]) -> torch.Tensor:
    if array.dtype.kind not in "fiub":
        return torch.zeros(0)
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
