"""Detectron2's model zoo: pickles of dicts of numpy arrays. Nothing but arrays and plain values is built.

Neither numpy's own constructors nor any other code that the file names is called: small stand-ins take what the pickle
says of an array and check it against its bytes.
"""

import math
import pickle
import re
from collections import OrderedDict
from io import BufferedIOBase
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fasterrcnn.errors import WeightsError
from fasterrcnn.weights.pickles import PYTHON_2, Verdict, inspect, reason

_NUMBERS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1")
_MAX_DIMENSIONS = 8


class Array:
    """An array as the pickle tells of it; `value` is there once its bytes have been checked."""

    value: np.ndarray[Any, np.dtype[Any]] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take (version, shape, numbers, whether in Fortran's order, bytes)."""
        _, shape, numbers, fortran, raw = state
        self.value = _array(raw, numbers, shape, "F" if fortran else "C")

    def to_tensor(self) -> Tensor:
        """A copy that can be written to, in this machine's byte order."""
        if self.value is None:
            raise WeightsError("not a readable checkpoint (an array without content)")
        return torch.from_numpy(self.value.astype(self.value.dtype.newbyteorder("=")))


class _Numbers:
    """A numpy dtype: one of the simple numbers, in either byte order."""

    def __init__(self, kind: str, *_: object) -> None:
        if kind not in _NUMBERS:
            raise WeightsError(f"refused, it holds an array of {str(kind)[:20]!r}, which are no weights")
        self.dtype = np.dtype(kind)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take the byte order; whatever else numpy keeps there is for numbers that are not simple."""
        if any(part is not None for part in state[2:5]):
            raise WeightsError("refused, it holds an array of structures, which are no weights")
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Kind:
    """The class of arrays, which the pickle names and nothing uses."""


def _array(raw: Any, numbers: Any, shape: Any, order: Any) -> np.ndarray[Any, np.dtype[Any]]:
    raw = raw.encode("latin1") if isinstance(raw, str) else raw  # written by Python 2
    if not isinstance(raw, bytes | bytearray) or not isinstance(numbers, _Numbers) or not isinstance(shape, tuple):
        raise WeightsError("not a readable checkpoint (an array that is none)")
    if len(shape) > _MAX_DIMENSIONS or not all(type(side) is int and 0 <= side <= 2**40 for side in shape):
        raise WeightsError(f"not a readable checkpoint (an array of shape {str(shape)[:60]})")
    if math.prod(shape) * numbers.dtype.itemsize != len(raw):
        raise WeightsError(f"not a readable checkpoint (an array of shape {shape} from {len(raw):,} bytes)")
    return np.frombuffer(raw, numbers.dtype).reshape(shape, order="F" if order == "F" else "C")


def _reconstruct(*_: object) -> Array:
    return Array()


def _from_buffer(raw: Any, numbers: Any, shape: Any, order: Any) -> Array:
    array = Array()
    array.value = _array(raw, numbers, shape, order)
    return array


def _scalar(numbers: Any, raw: Any) -> Any:
    return _array(raw, numbers, (), "C").item()


def _no_bytes() -> bytes:
    return b""


def _encode(text: Any, _: str) -> bytes:
    if not isinstance(text, str):
        raise WeightsError("not a readable checkpoint (bytes from what is no text)")
    return text.encode("latin1")


_BUILDERS: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "_codecs.encode": _encode,
    "builtins.bytes": _no_bytes,
    "numpy.ndarray": _Kind,
    "numpy.dtype": _Numbers,
    **{
        f"numpy.{core}.{name}": builder
        for core in ("core", "_core")
        for name, builder in {
            "multiarray._reconstruct": _reconstruct,
            "multiarray.scalar": _scalar,
            "numeric._frombuffer": _from_buffer,
        }.items()
    },
}


class _Unpickler(pickle.Unpickler):
    """Knows the builders above and no other name."""

    def find_class(self, module: str, name: str) -> Any:
        """The builder of that name."""
        builder = _BUILDERS.get(f"{PYTHON_2.get(module, module)}.{name}")
        if builder is None:
            raise WeightsError(f"refused, it holds an object of {module}.{name}, and loading that could run code")
        return builder

    def persistent_load(self, _: object) -> Any:
        """There is nothing outside of the file."""
        raise WeightsError("refused, its pickle refers to something outside of the file")


def judge(name: str) -> Verdict:
    """Only what arrays are made of."""
    return "use" if name in _BUILDERS else "refuse"


def read_numpy(file: BufferedIOBase, size: int) -> Any:
    """What a pickle of arrays holds: dicts of `Array` and plain values; texts of Python 2 are read as latin1.

    Raises:
        WeightsError: torn, or it holds what could run code.
    """
    if inspect(file, size, judge).storages:
        raise WeightsError("not a checkpoint written by torch.save (its pickle stands alone)")
    if file.read(1):
        raise WeightsError("not a readable checkpoint (its pickle ends before the file)")
    file.seek(0)
    try:
        return _Unpickler(file, encoding="latin1").load()
    except WeightsError:
        raise
    except Exception as error:  # a torn or hostile file fails in any way it likes
        raise WeightsError(f"not a readable checkpoint ({reason(error)})") from None


def is_pickle(head: bytes) -> bool:
    """Whether a file that begins so is a pickle of protocol 2 or later."""
    return re.match(rb"\x80[\x02-\x05]", head) is not None
