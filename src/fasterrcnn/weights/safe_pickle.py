"""Pickles of weights, read without running code.

A pickle is a program for a machine with a stack and a memo. The machine here is Python's own, cut down to the
instructions that weights need. What a pickle calls by name is taken from a table, `TORCH_NAMES` or `NUMPY_NAMES`, which
leads to functions and classes of this file; nothing is imported. Limits keep time and memory in proportion to the file.
"""

import math
import pickle
import pickletools
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedIOBase
from types import FunctionType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from fasterrcnn.errors import WeightsError, first_line

MAX_STEPS = 500_000
"""Instructions of a pickle, and what calls and keys add; a detector needs twenty thousand,
a state of its training perhaps a hundred thousand."""

_MAX_DIMENSIONS = 8
_MAX_DEPTH = 100
_MAX_SIZE = 2**40

WEIGHT_DTYPES = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool,
}  # fmt: skip
"""Numbers of tensors, by the names of their storages; complex and quantized ones are no weights of a detector."""


@contextmanager
def errors_in_one_line(kind: str) -> Iterator[None]:
    """Turn every error of the block into a `WeightsError`: a damaged or hostile file fails in any way it likes."""
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:
        raise WeightsError(f"not a readable {kind} ({first_line(error)})") from None


def read_pickle(
    file: BufferedIOBase,
    size: int,
    names: Mapping[str, object],
    *,
    skip: bool = False,
    storages: dict[str, Tensor] | None = None,
    encoding: str = "utf-8",
) -> Any:
    """The value of the next pickle in a file.

    What is built is in proportion to the bytes of the whole file, `size`. The pickle may name what is in `names`; with
    `skip`, objects of training frameworks become empty stand-ins, otherwise they are refused. `storages` takes the
    storages of tensors by their keys, for the caller to fill. The encoding is of texts that Python 2 wrote. What is
    damaged, beyond the limits, or could run code is a `WeightsError`.
    """
    machine = _Unpickler(_BoundedFile(file, size), encoding=encoding)
    machine.names, machine.skip, machine.storages = names, skip, storages
    machine.storage_bytes_left, machine.copied_bytes_left = size, 3 * size  # honest files copy an array twice
    with errors_in_one_line("checkpoint"):
        return machine.load()


class _BoundedFile:
    """A file that is asked for no more than it has, since memory is taken for what is asked for."""

    def __init__(self, file: BufferedIOBase, size: int) -> None:
        self.file, self.size, self.readline = file, size, file.readline

    def read(self, count: int) -> bytes:
        content = self.file.read(min(count, self.size))
        if len(content) < count:
            raise EOFError("its pickle ends before its last instruction")
        return content


class _Unpickler(pickle._Unpickler):
    """On its stack are only plain values, tensors, and what the table of names leads to."""

    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]
    names: Mapping[str, object]
    skip: bool
    storages: dict[str, Tensor] | None
    storage_bytes_left: int
    copied_bytes_left: int
    steps = 0

    def charge(self, steps: int) -> None:
        self.steps += steps
        if self.steps > MAX_STEPS:
            raise WeightsError(f"refused, its pickle takes over {MAX_STEPS:,} steps")

    def charge_key(self, key: Any, depth: int = 0) -> None:
        """Count what hashing takes: all of a tuple, each time; more for keys whose hashes could be made to collide."""
        if depth > _MAX_DEPTH:
            raise WeightsError(f"refused, its pickle has tuples in tuples, over {_MAX_DEPTH} deep")
        is_small = isinstance(key, int) and key.bit_length() < 61  # such a number is its own hash
        self.charge(1 if is_small or isinstance(key, str | bytes) else 50)
        for item in key if isinstance(key, tuple) else ():
            self.charge_key(item, depth + 1)

    def charge_arguments(self, arguments: tuple[Any, ...]) -> None:
        """Count what a function reads and copies: a pickle can hand it the same text again and again."""
        self.charge(len(arguments))
        self.copied_bytes_left -= sum(len(value) for value in arguments if isinstance(value, str | bytes | bytearray))
        if self.copied_bytes_left < 0:
            raise WeightsError("refused, its pickle makes many copies of its bytes")

    def find_class(self, module: str, name: str) -> Any:
        self.charge_arguments((module, name))
        full = f"{module.replace('__builtin__', 'builtins')}.{name}"  # Python 2
        if full in self.names:
            return self.names[full]
        if self.skip and _is_skipped(full):
            return Skipped(full[:300])
        shown = full[:300] if full.isascii() and full.isprintable() else ascii(full[:50])
        raise WeightsError(f"refused, it holds an object of {shown}, and loading that could run code")

    def persistent_load(self, pid: Any) -> Any:
        if self.skip and isinstance(pid, tuple) and len(pid) == 4 and pid[0] == "module":
            return pid[1]  # the class of a whole model, with its source, as old torch wrote it
        if self.storages is None or not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
            raise WeightsError("refused, its pickle refers to something outside that is no storage of a tensor")
        _, dtype, key, _, count, *part = pid
        if not isinstance(dtype, torch.dtype):
            raise WeightsError("refused, it holds a storage of unknown numbers")
        if not isinstance(key, str) or type(count) is not int or not 0 <= count <= _MAX_SIZE:
            raise WeightsError("not a readable checkpoint (a storage without a name or a size)")
        if key not in self.storages:
            self.storage_bytes_left -= count * dtype.itemsize
            if self.storage_bytes_left < 0:
                raise WeightsError("not a readable checkpoint (its storages are longer than the file)")
            self.storages[key] = torch.empty(count, dtype=dtype)
        if self.storages[key].nbytes != count * dtype.itemsize:
            raise WeightsError(f"not a readable checkpoint (storage {key[:60]!r} has two sizes)")
        return self.storages[key].view(dtype)[part[0][1] if part and part[0] else 0 :]

    def load_bytearray8(self) -> None:
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))

    def load_empty_set(self) -> None:
        self.append(self.find_class("builtins", "set"))

    def load_frozenset(self) -> None:
        self.pop_mark()
        self.append(self.find_class("builtins", "frozenset"))

    def load_additems(self) -> None:
        self.pop_mark()

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.fill(self.stack[-1], [(key, value)])

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self.fill(self.stack[-1], zip(items[::2], items[1::2], strict=True))

    def fill(self, target: Any, pairs: Iterable[Any]) -> None:
        if not isinstance(target, dict | Skipped):
            raise ValueError("its pickle fills a dict that is not there")
        for key, value in pairs:
            self.charge_key(key)
            if isinstance(target, dict):
                target[key] = value

    def load_reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, FunctionType | type | Skipped) or not isinstance(arguments, tuple):
            raise WeightsError("refused, its pickle calls what is no known class")
        self.charge_arguments(arguments)
        self.append(OrderedDict() if function is OrderedDict else function(*arguments))
        if function is OrderedDict and arguments:
            self.fill(self.stack[-1], *arguments)

    load_newobj = load_reduce

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, _NumpyDtype | NumpyArray) and isinstance(state, tuple):
            self.charge_arguments(state)
            target.set_state(*state)
        elif isinstance(target, OrderedDict):
            vars(target)["_metadata"] = state.get("_metadata")  # versions of the modules of a state dict
        elif not isinstance(target, Skipped):
            raise ValueError("its pickle gives a state to what has none")


def _counted(instruction: Callable[[_Unpickler], None]) -> Callable[[_Unpickler], None]:
    def run(machine: _Unpickler) -> None:
        machine.charge(1)
        instruction(machine)

    return run


class _Instructions(dict[int, Any]):
    def __missing__(self, code: int) -> Any:
        name = next((opcode.name for opcode in pickletools.opcodes if ord(opcode.code) == code), hex(code))
        raise WeightsError(f"refused, its pickle has the instruction {name}, which weights do not need")


_ALLOWED = """
    PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 INT LONG1 BINFLOAT
    BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8
    EMPTY_LIST EMPTY_DICT EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 APPEND APPENDS SETITEM SETITEMS
    EMPTY_SET ADDITEMS FROZENSET
    PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE NEWOBJ BUILD BINPERSID
"""
_Unpickler.dispatch = _Instructions()
for _code in (ord(getattr(pickle, name)) for name in _ALLOWED.split()):
    _method = cast(Any, pickle._Unpickler.dispatch[_code]).__name__
    _Unpickler.dispatch[_code] = cast(Any, _counted(getattr(_Unpickler, _method)))  # those above replace Python's


# ---- what a pickle may name


class Skipped:
    """Stands for a class or an object that is no weight, by its full name; it takes any arguments and items."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *_: object) -> "Skipped":
        """An object of the class: the same stand-in."""
        return self

    def append(self, _: object) -> None:
        """Take an item, as lists do."""

    extend = append


_SKIPPED_NAMES = re.compile(
    r"torch\.(optim|nn|distributed|amp|cuda\.amp|utils\.data|ao|fx)\.[\w.]+|torch\.device|torch\._C\.Generator"
    r"|numpy\.(_?core\.multiarray\.(scalar|_reconstruct)|ndarray|dtype(\[\w+\])?|dtypes\.\w+|random\.\w+\.\w+)"
    r"|argparse\.Namespace|pathlib\.[\w.]*Path|datetime\.(datetime|timedelta|timezone|date)|types\.SimpleNamespace"
    r"|functools\.partial"
    r"|collections\.(Counter|defaultdict|deque)|builtins\.(set|frozenset|slice|object|dict|list|tuple|int|float|str|bool)"
    r"|copyreg\._reconstructor|enum\.\w+|uuid\.UUID|decimal\.Decimal"
)
_PLAIN_NAME = re.compile(r"[A-Za-z_][\w.]*", re.ASCII)


def _is_skipped(name: str) -> bool:
    """Whether a stand-in is made: for a harmless class of Python, torch or numpy, and any name of other modules.

    A stand-in runs nothing. Other names of Python, torch and numpy are refused: files that mean harm call these.
    """
    if _SKIPPED_NAMES.fullmatch(name):
        return True
    module = name.partition(".")[0]
    is_of_others = module not in sys.stdlib_module_names and module not in ("torch", "numpy")
    return is_of_others and _PLAIN_NAME.fullmatch(name) is not None


def _getattr(owner: object, _: object) -> Skipped:
    if not isinstance(owner, Skipped):
        raise WeightsError("refused, it holds an object of getattr, and loading that could run code")
    return owner


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise WeightsError("refused, it encodes text by something else than latin1")
    return text.encode("latin1")


def check_sizes(sizes: Any = ()) -> torch.Size:
    """The shape or the strides of a tensor, as a file gives them."""
    if not isinstance(sizes, tuple) or len(sizes) > _MAX_DIMENSIONS:
        raise WeightsError(f"refused, it holds a tensor whose shape is no tuple of at most {_MAX_DIMENSIONS} sizes")
    if not all(type(size) is int and 0 <= size <= _MAX_SIZE for size in sizes):
        raise WeightsError("refused, it holds a tensor whose shape, strides or offset are no sizes")
    return torch.Size(sizes)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, requires_grad: Any = False, *more: Any) -> Tensor:
    if not isinstance(storage, Tensor):
        raise ValueError("a tensor without a storage")
    shape, stride, (offset,) = check_sizes(shape), check_sizes(stride), check_sizes((offset,))
    flags = list(more[1:])  # after the hooks
    dtype = flags.pop(0) if flags and isinstance(flags[0], torch.dtype) else storage.dtype
    if any(flags):
        raise ValueError("a tensor with flags of complex numbers")
    first, whole = storage.storage_offset() + offset, storage.untyped_storage()
    last = first + sum((side - 1) * step for side, step in zip(shape, stride, strict=True))
    if 0 not in shape and (last + 1) * dtype.itemsize > whole.nbytes():
        raise ValueError("a tensor is longer than its storage")
    return torch.empty(0, dtype=dtype).set_(whole, first, shape, stride).requires_grad_(requires_grad)


class _NumpyDtype:
    """One of the simple numbers, in either byte order."""

    def __init__(self, kind: Any, *_: object) -> None:
        if not isinstance(kind, str) or kind not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1"):
            shown = ascii(kind[:20]) if isinstance(kind, str) else type(kind).__name__
            raise WeightsError(f"refused, it holds an array of {shown}, which are no weights")
        self.dtype = np.dtype(kind)

    def set_state(self, _: Any, order: Any, *parts: Any) -> None:
        if any(part is not None for part in parts[:3]):
            raise WeightsError("refused, it holds an array of structures, which are no weights")
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(order)


class NumpyArray:
    """An array in a pickle."""

    # a copy that can be written to, in this machine's byte order; None if the pickle gave no content
    tensor: Tensor | None = None

    def __init__(self, *_: object) -> None:
        """Without content, whatever the pickle gives."""

    def set_state(self, _: Any, shape: Any, dtype: Any, fortran: Any, raw: Any) -> None:
        """Take the content as numpy gives it to its arrays."""
        array = _array(raw, dtype, shape, "F" if fortran else "C")
        self.tensor = torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))


def _array(raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray[Any, np.dtype[Any]]:
    raw = raw.encode("latin1") if isinstance(raw, str) else raw  # written by Python 2
    if not isinstance(raw, bytes | bytearray) or not isinstance(dtype, _NumpyDtype):
        raise ValueError("an array without bytes or dtype")
    if math.prod(check_sizes(shape)) * dtype.dtype.itemsize != len(raw):
        raise ValueError(f"an array of shape {shape} from {len(raw):,} bytes")
    return np.frombuffer(raw, dtype.dtype).reshape(shape, order="F" if order == "F" else "C")


def _array_from_buffer(raw: Any, dtype: Any, shape: Any, order: Any) -> NumpyArray:
    array = NumpyArray()
    array.set_state(1, shape, dtype, order == "F", raw)
    return array


_PLAIN_NAMES: dict[str, object] = {"collections.OrderedDict": OrderedDict, "_codecs.encode": _encode}

TORCH_NAMES: dict[str, object] = {
    **_PLAIN_NAMES,
    **{f"torch.{name}Storage": dtype for name, dtype in WEIGHT_DTYPES.items()},
    **{str(dtype): dtype for dtype in WEIGHT_DTYPES.values()},
    **dict.fromkeys(("torch.UntypedStorage", "torch.storage.UntypedStorage"), torch.uint8),
    **{f"torch._utils._rebuild_{name}": _tensor for name in ("tensor", "tensor_v2", "tensor_v3")},
    **dict.fromkeys(
        ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"),
        lambda tensor, requires_grad, *_: nn.Parameter(tensor, requires_grad),
    ),
    "torch.Size": check_sizes,
    "builtins.getattr": _getattr,
}
"""What a pickle of `torch.save` may name."""

NUMPY_NAMES: dict[str, object] = {
    **_PLAIN_NAMES,
    "builtins.bytes": lambda: b"",
    "numpy.dtype": _NumpyDtype,
    "numpy.ndarray": NumpyArray,
    **dict.fromkeys(("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"), NumpyArray),
    **dict.fromkeys(
        ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
        lambda dtype, raw: _array(raw, dtype, (), "C").item(),
    ),
    **dict.fromkeys(("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"), _array_from_buffer),
}
"""What a pickle of numpy arrays may name."""
