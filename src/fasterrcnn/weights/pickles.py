"""Pickles followed on paper before anything reads them: no instruction is carried out.

A pickle is a program for a small machine with a stack and a memo. `inspect` walks through it with stand-ins for the
values and refuses what weights do not need: names outside the allowed ones, memo slots and texts beyond the file, and
values that grow by being used again. What passes is cheap for any unpickler.
"""

import pickletools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BufferedIOBase
from typing import IO, Any, Literal, NamedTuple, cast

from fasterrcnn.errors import WeightsError

MAX_STEPS = 500_000
"""Instructions of a pickle, and entries of tuples that are used again; a detector has twenty thousand,
a state of its training perhaps a hundred thousand."""

_MAX_DEPTH = 100
_MAX_NAME = 200
_MAX_INTEGER = 16  # bytes

_ITEM_BYTES = {
    "Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1, "Bool": 1,
}  # fmt: skip
STORAGES = {
    **{f"torch.{name}Storage": size for name, size in _ITEM_BYTES.items()},
    "torch.storage.UntypedStorage": 1,
    "torch.UntypedStorage": 1,
}
"""Storages of tensors and the bytes of an element; complex and quantized numbers are no weights of a detector."""

PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}
"""Modules of Python 2 that pickles of protocol 2 still name."""

_BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_PLAIN = {"NONE", "NEWTRUE", "NEWFALSE", "BINFLOAT", "EMPTY_LIST", "EMPTY_DICT", *_BYTES}
_TEXTS = {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"}
_INTEGERS = {"BININT", "BININT1", "BININT2", "LONG1", "INT"}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUT, _GET = {"PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}
_INTO = {"APPEND": 1, "SETITEM": 2, "BUILD": 1}
_MARKED = {"MARK", "TUPLE", "APPENDS", "SETITEMS"}
_OBJECTS = {"GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "BINPERSID"}
_FRAMING = {"PROTO", "FRAME", "STOP"}

Verdict = Literal["use", "skip", "refuse"]


@dataclass(frozen=True)
class Inspected:
    """What a pickle that passed holds.

    Attributes:
        value: the result, if it is a plain number or a short text.
        skipped: names of objects that are not to be built.
        storages: bytes of the storages that its tensors name, by key.
    """

    value: object
    skipped: frozenset[str]
    storages: dict[str, int]


def inspect(file: BufferedIOBase, size: int, judge: Callable[[str], Verdict]) -> Inspected:
    """Follow the next pickle of a file to its end.

    Args:
        file: where it begins; afterwards where it has ended.
        size: bytes of the file; nothing longer is asked for.
        judge: says of a full name, as ``collections.OrderedDict``, what to do about it.

    Raises:
        WeightsError: refused, or torn.
    """
    walk = _Walk(judge)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the standard library's, about backslashes in names
            for opcode, argument, _ in pickletools.genops(cast(IO[bytes], _Bounded(file, size))):
                walk.step(opcode.name, argument)
        (result,) = walk.stack
    except WeightsError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise WeightsError(f"not a readable checkpoint ({reason(error)})") from None
    value = result if isinstance(result, str | int) else None
    return Inspected(value, frozenset(walk.skipped), walk.storages)


def reason(error: object) -> str:
    """The first line of what an error says, at most 150 characters of it."""
    text = str(error).strip()
    return text.splitlines()[0][:150] if text else type(error).__name__


class _Bounded:
    """A file that gives at most what is left of it: room for what was asked would be made before it is read."""

    def __init__(self, file: BufferedIOBase, size: int) -> None:
        self.file, self.size = file, size
        self.readline, self.tell = file.readline, file.tell

    def read(self, count: int) -> bytes:
        return self.file.read(min(count, self.size - self.file.tell()))


class _Global(NamedTuple):
    name: str
    verdict: Verdict


class _Tuple(NamedTuple):
    """A tuple: its first items, and how many it holds if tuples in it are counted through."""

    items: tuple[Any, ...]
    size: int
    depth: int


_UNKNOWN = object()


@dataclass
class _Walk:
    """The machine, with stand-ins: numbers, short texts, names and tuples are known, the rest is not."""

    judge: Callable[[str], Verdict]
    stack: list[Any] = field(default_factory=list)
    marks: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)
    storages: dict[str, int] = field(default_factory=dict)
    steps: int = 0

    def step(self, name: str, argument: Any) -> None:
        """Carry one instruction out on paper."""
        self.steps += 1
        if self.steps > MAX_STEPS:
            self._charge(0)
        if name in _PLAIN:
            self.stack.append(_UNKNOWN)
        elif name in _TEXTS or name in _INTEGERS:
            self.stack.append(_small(argument))
        elif name in _PUT or name == "MEMOIZE":
            self._remember(len(self.memo) if name == "MEMOIZE" else int(argument))
        elif name in _GET:
            self._recall(int(argument))
        elif name in _TUPLES:
            self._tuple(self._pop(_TUPLES[name]))
        elif name in _INTO:
            self.stack.append(self._pop(1 + _INTO[name])[0])
        elif name in _MARKED:
            self._marked(name)
        elif name in _OBJECTS:
            self._object(name, argument)
        elif name not in _FRAMING:
            raise WeightsError(f"refused, its pickle has the instruction {name}, which weights do not need")

    def _marked(self, name: str) -> None:
        if name == "MARK":
            self.marks.append(self.stack)
            self.stack = []
            return
        items, self.stack = self.stack, self.marks.pop()
        if name == "TUPLE":
            self._tuple(items)
        elif not self.stack:
            raise ValueError("its pickle fills a list that is not there")

    def _object(self, name: str, argument: Any) -> None:
        if name == "BINPERSID":
            self._storage()
        elif name in ("REDUCE", "NEWOBJ"):
            self._call()
        else:
            self._global(argument.split(" ") if name == "GLOBAL" else self._pop(2))

    def _charge(self, steps: int) -> None:
        self.steps += steps
        if self.steps > MAX_STEPS:
            raise WeightsError(f"refused, its pickle takes over {MAX_STEPS:,} steps")

    def _pop(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise ValueError("its pickle takes more than there is")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def _remember(self, slot: int) -> None:
        if not 0 <= slot <= self.steps:
            raise WeightsError(f"refused, its pickle counts to {slot:,} after {self.steps:,} steps")
        self.memo[slot] = self.stack[-1]

    def _recall(self, slot: int) -> None:
        value = self.memo[slot]
        if isinstance(value, _Tuple):
            self._charge(value.size)  # where it is a key, all of it is hashed again
        self.stack.append(value)

    def _tuple(self, items: list[Any]) -> None:
        inner = [item for item in items if isinstance(item, _Tuple)]
        size = 1 + len(items) + sum(item.size for item in inner)
        depth = 1 + max((item.depth for item in inner), default=0)
        self._charge(size)
        if depth > _MAX_DEPTH:
            raise WeightsError(f"refused, its pickle has tuples in tuples, over {_MAX_DEPTH} deep")
        self.stack.append(_Tuple(tuple(items[:8]), size, depth))

    def _global(self, parts: list[Any]) -> None:
        if len(parts) != 2 or not all(isinstance(part, str) and 0 < len(part) <= _MAX_NAME for part in parts):
            raise WeightsError("refused, its pickle asks for an object whose name it puts together")
        module, name = parts
        full = f"{PYTHON_2.get(module, module)}.{name}"
        verdict = self.judge(full)
        if verdict == "refuse":
            shown = full if full.isprintable() else ascii(full)
            raise WeightsError(f"refused, it holds an object of {shown}, and loading that could run code")
        if verdict == "skip":
            self.skipped.add(full)
        self.stack.append(_Global(full, verdict))

    def _call(self) -> None:
        target, arguments = self._pop(2)
        if not isinstance(target, _Global) or not isinstance(arguments, _Tuple):
            raise WeightsError("refused, its pickle calls what is no known class")
        first = arguments.items[0] if arguments.items else None
        if target.name == "builtins.getattr" and not (isinstance(first, _Global) and first.verdict == "skip"):
            raise WeightsError("refused, it holds an object of getattr, and loading that could run code")
        if target.name == "_codecs.encode" and arguments.items[1:] not in (("latin1",), ("latin-1",)):
            raise WeightsError("refused, it encodes text by something else than latin1")
        if target.name == "collections.OrderedDict" and arguments.items:
            self._charge(self.steps)  # its content is not known here: at most all that came before
        self.stack.append(_UNKNOWN)

    def _storage(self) -> None:
        (given,) = self._pop(1)
        items = given.items if isinstance(given, _Tuple) else ()
        if len(items) not in (5, 6) or items[0] != "storage":
            raise WeightsError("refused, its pickle refers to something outside that is no storage of a tensor")
        kind, key, count = items[1], items[2], items[4]
        if not isinstance(kind, _Global) or kind.name not in STORAGES:
            raise WeightsError("refused, it holds a storage of unknown numbers")
        if not isinstance(key, str) or not isinstance(count, int) or count < 0:
            raise WeightsError("not a readable checkpoint (a storage without a name or a size)")
        size = count * STORAGES[kind.name]
        if self.storages.setdefault(key, size) != size:
            raise WeightsError(f"not a readable checkpoint (storage {key!r} has two sizes)")
        self.stack.append(_UNKNOWN)


def _small(value: Any) -> Any:
    """Integers and names as they are; texts that can be no name are not kept."""
    if isinstance(value, int) and value.bit_length() > 8 * _MAX_INTEGER:
        raise WeightsError(f"refused, its pickle has an integer of {value.bit_length()} bits")
    return value if isinstance(value, int) or len(value) <= _MAX_NAME else _UNKNOWN
