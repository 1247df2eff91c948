"""Weight files of any kind, recognised by their content: tensors out, no code run, memory in proportion to the file."""

import json
import re
import sys
import zipfile
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor

from fasterrcnn.errors import WeightsError
from fasterrcnn.weights import safe_pickle
from fasterrcnn.weights.layout import State
from fasterrcnn.weights.wrappers import NamedTensors, about_place, find_named_tensors

WeightFileKind = Literal["safetensors", "torch", "numpy"]

_MAX_HEADER = 8 * 2**20
_MAX_TENSORS = 20_000
_MAX_NAME = 1000
_MAX_PLAIN = 10_000
_MAX_DEPTH = 8
_LEGACY = re.compile(rb"\x80.(\x95.{8})?\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19\.", re.DOTALL)
"""The pickle of a number at the beginning of what torch before 1.6 wrote."""

_OTHER_FILES = {
    b"<": "a web page or XML, probably what a site answered instead of the weights",
    b"version https://git-lfs": "a pointer of Git LFS, not the weights themselves: run git lfs pull",
    b"\x1f\x8b": "packed by gzip: unpack it first",
}


def weight_file_kind(path: Path) -> WeightFileKind:
    """The kind of a weight file, recognised by its first bytes; a `WeightsError` names what else it is."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(264)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < max(size, 2**32):
        return "safetensors"
    if head.startswith(b"PK") or _LEGACY.match(head):
        return "torch"
    if re.match(rb"\x80[\x02-\x05]", head):
        return "numpy"
    what = next((what for start, what in _OTHER_FILES.items() if head.lstrip().startswith(start)), None)
    if size == 0:
        what = "an empty file"
    elif head[257:262] == b"ustar":
        what = "a tar archive: unpack it first; torch files of this kind could run code and are refused"
    raise WeightsError(f"{path}: not a weight file: {what or 'neither safetensors nor a checkpoint of torch or numpy'}")


def read_metadata(path: Path) -> dict[str, str]:
    """The texts in the header of a safetensors file; nothing for other kinds."""
    if weight_file_kind(path) != "safetensors":
        return {}
    try:
        with path.open("rb") as file:
            return _read_header(file, path.stat().st_size)[1]
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None


def read_tensors(path: Path) -> tuple[State, dict[str, Any]]:
    """The named tensors of a weight file, and the plain values beside them; as `read_weights`."""
    weights = read_weights(path)
    return weights.tensors, weights.beside


def read_weights(path: Path) -> NamedTensors:
    """The named tensors of a weight file, and the plain values beside them.

    Reads safetensors, what `torch.save` wrote (zip archives and the older pickles), and pickles of numpy arrays as
    Detectron2's model zoo has them. Weights that lie under keys such as ``model`` or ``state_dict`` are taken out of
    there (`wrappers`); beside them are a header's texts, or numbers, texts, lists and dicts (``epoch``, ``meta``).
    Other objects are left out. A `WeightsError`, for what is no weight file, damaged, or could run code, is one line
    that begins with the path.
    """
    kind = weight_file_kind(path)
    try:
        if kind == "safetensors":
            tensors, _, metadata, _ = read_safetensors(path)
            return NamedTensors(tensors, dict(metadata))
        size = path.stat().st_size
        with path.open("rb") as file:
            content = _read_numpy(file, size) if kind == "numpy" else read_torch(file, size)
        return _split(content, size)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None


# ---- safetensors


def read_safetensors(path: Path) -> tuple[State, dict[str, Any], dict[str, str], memoryview]:
    """Tensors of a file by name, the header's table (dtype, shape, place of each), its texts, the tensors' bytes."""
    with path.open("rb") as file:
        table, metadata, start = _read_header(file, path.stat().st_size)
        file.seek(0)
        payload = file.read()
    with safe_pickle.errors_in_one_line("safetensors file"):
        tensors = safetensors.torch.load(payload)
    for name, tensor in tensors.items():
        if tensor.dtype not in safe_pickle.WEIGHT_DTYPES.values():
            raise WeightsError(f"refused, {name[:60]!r} is a tensor of {tensor.dtype}")
        safe_pickle.check_sizes(tensor.shape)
    return tensors, table, metadata, memoryview(payload)[start:]


def _read_header(file: BufferedIOBase, size: int) -> tuple[dict[str, Any], dict[str, str], int]:
    """The table of tensors, the texts, and where the bytes of the tensors begin."""
    length = int.from_bytes(file.read(8), "little")
    if length > min(_MAX_HEADER, size - 8):
        raise WeightsError(f"not a readable safetensors file (a header of {length:,} bytes)")
    with safe_pickle.errors_in_one_line("safetensors file"):
        table = json.loads(file.read(length).decode())
        metadata = table.pop("__metadata__", None) or {}
        if not all(isinstance(text, str) for text in metadata.values()):
            raise TypeError("its metadata are no texts")
    if len(table) > _MAX_TENSORS:
        raise WeightsError(f"refused, {len(table):,} tensors")
    return table, metadata, 8 + length


# ---- torch and numpy


def read_torch(file: BufferedIOBase, size: int, *, skip: bool = True) -> Any:
    """What a file of `torch.save` of that size holds: tensors and plain values.

    With `skip`, objects of training frameworks become empty stand-ins; otherwise they are refused.
    """
    is_legacy = _LEGACY.match(file.read(32))
    file.seek(0)
    with safe_pickle.errors_in_one_line("checkpoint"):
        return _read_legacy(file, size, skip) if is_legacy else _read_archive(file, size, skip)


def _read_archive(file: BufferedIOBase, size: int, skip: bool) -> Any:
    """A zip archive: one entry is the pickle, others are the storages."""
    with zipfile.ZipFile(file) as archive:
        _check_entries(archive, size)
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        roots = [name.removesuffix("data.pkl") for name in sizes if re.fullmatch(r"[^/]+/data\.pkl", name)]
        if len(roots) != 1:
            raise WeightsError("a zip archive, but not a checkpoint written by torch.save")
        root = roots[0]
        byte_order = archive.read(f"{root}byteorder").decode() if f"{root}byteorder" in sizes else "little"
        pickled, storages = BytesIO(archive.read(f"{root}data.pkl")), dict[str, Tensor]()
        content = safe_pickle.read_pickle(pickled, size, safe_pickle.TORCH_NAMES, skip=skip, storages=storages)
        for key, storage in storages.items():
            if sizes.get(f"{root}data/{key}") != storage.nbytes:
                raise WeightsError(f"not a readable checkpoint (storage {key[:60]!r} has not the bytes of its tensor)")
            with archive.open(f"{root}data/{key}") as entry:
                _read_into(storage, entry, byte_order)
        return content


def _check_entries(archive: zipfile.ZipFile, size: int) -> None:
    entries = archive.infolist()
    if len(entries) > _MAX_TENSORS:
        raise WeightsError(f"refused, {len(entries):,} entries in its archive")
    if len({entry.filename.lower() for entry in entries}) != len(entries):
        raise WeightsError("refused, two entries of its archive have one name")
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries):
        raise WeightsError("refused, its archive is packed or encrypted, as torch.save never does")
    if sum(entry.file_size for entry in entries) > size:
        raise WeightsError("refused, the entries of its archive lie over each other")
    if any(entry.compress_size != entry.file_size for entry in entries) or archive.comment:
        raise WeightsError("not a readable checkpoint (its archive contradicts itself)")


def _read_legacy(file: BufferedIOBase, size: int, skip: bool) -> Any:
    """Pickles in a row: a number, the version, the system, the content, the keys of the storages; then their bytes."""
    for _ in range(3):
        safe_pickle.read_pickle(file, size, {})
    storages: dict[str, Tensor] = {}
    content = safe_pickle.read_pickle(file, size, safe_pickle.TORCH_NAMES, skip=skip, storages=storages)
    keys = safe_pickle.read_pickle(file, size, {})
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or set(keys) != set(storages):
        raise WeightsError("not a readable checkpoint (its storages are not those of its tensors)")
    for key in keys:
        if int.from_bytes(file.read(8), "little") != storages[key].numel():
            raise WeightsError(f"not a readable checkpoint (storage {key[:60]!r} has two sizes)")
        _read_into(storages[key], file, "little")
    return content


def _read_into(storage: Tensor, file: Any, byte_order: str) -> None:
    content = storage.view(torch.uint8).numpy()
    if file.readinto(content) != len(content):
        raise ValueError("a storage ends before its last byte")
    if byte_order != sys.byteorder:
        content.view(f"u{storage.itemsize}").byteswap(inplace=True)


def _read_numpy(file: BufferedIOBase, size: int) -> Any:
    """A pickle of arrays and plain values; texts of Python 2 are read as latin1, as numpy does."""
    content = safe_pickle.read_pickle(file, size, safe_pickle.NUMPY_NAMES, encoding="latin1")
    if file.read(1):
        raise WeightsError("not a readable checkpoint (its pickle ends before the file)")
    return content


# ---- weights, and what lies beside them


def _split(content: Any, size: int) -> NamedTensors:
    place, named = find_named_tensors(content)
    if len(named) > _MAX_TENSORS:
        raise WeightsError(f"refused, {len(named):,} tensors")
    state = {key: _tensor_named(key, value) for key, value in named.items() if not _is_beside(key, value)}
    if sum(value.nbytes for value in state.values()) > 2 * size:
        raise WeightsError("refused, its tensors are many times as large as the file")
    around = {key: value for key, value in content.items() if value is not named}
    meta_first = dict(sorted(around.items(), key=lambda entry: entry[0] != "meta"))  # before an optimiser's numbers
    return NamedTensors(state, _plain_copy(meta_first, [_MAX_PLAIN], _MAX_DEPTH) or {}, about_place(place))


def _is_beside(key: Any, value: Any) -> bool:
    """Whether an entry among tensors is none of the network's: its name is no path to a module, or ends as states do"""
    is_tensor = isinstance(value, Tensor | safe_pickle.NumpyArray)
    return isinstance(key, str) and not is_tensor and ("." not in key or key.endswith("._extra_state"))


def _tensor_named(key: Any, value: Any) -> Tensor:
    if isinstance(value, safe_pickle.NumpyArray):
        value = value.tensor
    if not isinstance(key, str) or not isinstance(value, Tensor):
        shown = repr(key)[:60] if isinstance(key, str | int) else f"a {type(key).__name__}"
        raise WeightsError(f"{shown} is a {type(value).__name__}, not a tensor")
    if len(key) > _MAX_NAME:
        raise WeightsError(f"refused, a tensor has a name of {len(key):,} characters")
    return value.detach()


def _plain_copy(value: Any, left: list[int], depth: int) -> Any:
    """A copy of numbers, texts, lists and dicts; None for everything else, and where it is too much."""
    left[0] -= 1
    if left[0] < 0 or depth == 0:
        return None
    if isinstance(value, dict):
        return {
            key: _plain_copy(item, left, depth - 1)
            for key, item in value.items()
            if isinstance(key, str | int) and left[0] > 0 and not isinstance(item, Tensor | safe_pickle.NumpyArray)
        }
    if isinstance(value, list | tuple):
        return [_plain_copy(item, left, depth - 1) for item in value[: max(left[0], 0)]]
    return value if isinstance(value, str | int | float) else None
