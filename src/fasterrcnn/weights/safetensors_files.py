"""safetensors files: the table of tensors is checked against the file before any of them is made."""

import json
import math
from io import BufferedIOBase
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
from torch import Tensor

from fasterrcnn.errors import WeightsError
from fasterrcnn.weights.pickles import reason

_MAX_HEADER = 8 * 2**20
_MAX_TENSORS = 20_000
_MAX_DIMENSIONS = 8
_ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip


class Header(NamedTuple):
    """The beginning of a file.

    Attributes:
        table: name of a tensor -> its dtype, shape and place.
        metadata: texts by name.
        start: where the tensors' bytes begin.
    """

    table: dict[str, dict[str, Any]]
    metadata: dict[str, str]
    start: int


def looks_like(head: bytes, size: int) -> bool:
    """Whether a file of that size that begins so is meant as safetensors: a length, then JSON."""
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < max(size, 2**32)


def read_header(file: BufferedIOBase, size: int) -> Header:
    """The header of a file, checked: dtypes known, shapes as long as their bytes, tensors one after the other.

    Args:
        file: at its beginning.
        size: its bytes.

    Raises:
        WeightsError: not such a file, torn, or its table contradicts itself.
    """
    length = int.from_bytes(file.read(8), "little")
    if length > min(_MAX_HEADER, size - 8):
        raise WeightsError(f"not a readable safetensors file (a header of {length:,} bytes)")
    try:
        table = json.loads(file.read(length).decode())
        metadata = table.pop("__metadata__", None) or {}
        if not all(isinstance(text, str) for text in metadata.values()):
            raise WeightsError("not a readable safetensors file (its metadata are no texts)")
        _check_table(table, size - 8 - length)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise WeightsError(f"not a readable safetensors file ({reason(error)})") from None
    return Header(table, metadata, 8 + length)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], Header, bytes]:
    """All tensors of a file, its header, and its bytes.

    Raises:
        WeightsError: as `read_header`.
    """
    with path.open("rb") as file:
        header = read_header(file, path.stat().st_size)
        file.seek(0)
        payload = file.read()
    try:
        return safetensors.torch.load(payload), header, payload
    except Exception as error:  # its own kind of error, and whatever a hostile table leads to
        raise WeightsError(f"not a readable safetensors file ({reason(error)})") from None


def _check_table(table: dict[str, dict[str, Any]], size: int) -> None:
    if len(table) > _MAX_TENSORS:
        raise WeightsError(f"refused, {len(table):,} tensors")
    places = [(0, 0)]
    for name, entry in table.items():
        shape, (begin, end) = entry["shape"], entry["data_offsets"]
        if not all(type(number) is int and 0 <= number <= 2**40 for number in (begin, end, *shape)):
            raise WeightsError(f"not a readable safetensors file (shape or place of {name[:60]!r})")
        if len(shape) > _MAX_DIMENSIONS or entry["dtype"] not in _ITEM_BYTES:
            raise WeightsError(f"refused, {name[:60]!r} is a tensor of {entry['dtype']} in {len(shape)} dimensions")
        if math.prod(shape) * _ITEM_BYTES[entry["dtype"]] != end - begin:
            raise WeightsError(f"not a readable safetensors file (shape and bytes of {name[:60]!r} differ)")
        places.append((begin, end))
    places.sort()
    if any(after[0] != before[1] for before, after in pairwise(places)) or places[-1][1] != size:
        raise WeightsError("not a readable safetensors file (its tensors overlap, leave gaps or pass its end)")
