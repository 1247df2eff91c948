"""Files of `torch.save`: the zip archives of today, and the rows of pickles from before torch 1.6.

Container and pickle are checked first; then `torch.load` reads them with ``weights_only``. Objects of training
frameworks that lie beside the weights become empty stand-ins.
"""

import pickle
import re
import warnings
import zipfile
from io import BufferedIOBase, BytesIO
from typing import IO, Any, cast

import torch

from fasterrcnn.errors import WeightsError
from fasterrcnn.weights.pickles import STORAGES, Inspected, Verdict, inspect, reason

_LEGACY = 0x1950A86A20F9469CFC6C
"""The number in the first pickle of a file from before torch 1.6."""

_MAX_ENTRIES = 20_000
_DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
_REBUILD = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter")
_USED = {
    "collections.OrderedDict",
    "_codecs.encode",
    "torch.Size",
    *STORAGES,
    *(f"torch.{name}" for name in _DTYPES),
    *(f"torch._utils.{name}" for name in _REBUILD),
}
_SKIPPED = re.compile(
    r"(mmcv|mmdet|mmengine|mmcls|mmpretrain|addict|yacs|fvcore|detectron2|omegaconf|easydict)\.[\w.]+"
    r"|numpy\.(_?core\.multiarray\.(scalar|_reconstruct)|ndarray|dtype(\[\w+\])?|dtypes\.\w+)"
    r"|(argparse\.Namespace|pathlib\.\w*Path|datetime\.(datetime|timedelta|date)|builtins\.getattr|torch\.device)"
)


class Skipped:
    """Stands for an object that is no weight; takes anything and does nothing."""

    def __new__(cls, *_: object, **__: object) -> "Skipped":
        """Whatever the object was made with."""
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Whatever it held."""


def judge(name: str) -> Verdict:
    """What to do about an object that a checkpoint names: frameworks' bookkeeping is skipped, the unknown refused."""
    if name in _USED:
        return "use"
    return "skip" if _SKIPPED.fullmatch(name) else "refuse"


def is_legacy(file: BufferedIOBase) -> bool:
    """Whether the pickle at the beginning of a file is that of torch before 1.6."""
    head = BytesIO(file.read(64))
    file.seek(0)
    try:
        return inspect(head, 64, lambda name: "refuse").value == _LEGACY
    except WeightsError:
        return False


def read_torch(file: BufferedIOBase, size: int, *, skip: bool = True) -> Any:
    """What a file of `torch.save` holds: tensors and plain values.

    Args:
        file: at its beginning.
        size: its bytes.
        skip: objects of training frameworks become `Skipped`; otherwise they are refused.

    Raises:
        WeightsError: no such file, torn, or it holds what could run code.
    """
    found = _check_legacy(file, size) if is_legacy(file) else _check_archive(file, size)
    if found.skipped and not skip:
        raise WeightsError(f"refused, it holds an object of {min(found.skipped)}, and loading that could run code")
    file.seek(0)
    stand_ins: list[Any] = [(Skipped, name) for name in found.skipped - {"torch.device"}]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
            warnings.simplefilter("ignore")
            return torch.load(cast(IO[bytes], file), map_location="cpu", weights_only=True, mmap=False)
    except pickle.UnpicklingError as error:
        held = re.search(r"GLOBAL (\S+)", str(error))
        what = f"an object of {held[1]}" if held else "something that is no tensor"
        raise WeightsError(f"refused, it holds {what}, and loading that could run code") from None
    except Exception as error:  # a torn or hostile file fails in any way it likes
        raise WeightsError(f"not a readable checkpoint ({reason(error)})") from None


def _check_archive(file: BufferedIOBase, size: int) -> Inspected:
    """The pickle of a zip archive, after a look at every entry: torch stores them as they are, one after the other."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            _check_entries(archive, entries, size)
            sizes = {entry.filename: entry.file_size for entry in entries}
            roots = [name.removesuffix("data.pkl") for name in sizes if re.fullmatch(r"[^/]+/data\.pkl", name)]
            if len(roots) != 1:
                raise WeightsError("a zip archive, but not a checkpoint written by torch.save")
            content = archive.read(f"{roots[0]}data.pkl")
            found = inspect(BytesIO(content), len(content), judge)
    except WeightsError:
        raise
    except Exception as error:  # a torn or hostile archive fails in any way it likes
        raise WeightsError(f"not a readable checkpoint ({reason(error)})") from None
    for key, count in found.storages.items():
        if sizes.get(f"{roots[0]}data/{key}") != count:
            raise WeightsError(f"not a readable checkpoint (the bytes of storage {key!r} are not those of its tensor)")
    return found


def _check_entries(archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo], size: int) -> None:
    if len(entries) > _MAX_ENTRIES:
        raise WeightsError(f"refused, {len(entries):,} entries in its archive")
    if len({entry.filename.lower() for entry in entries}) != len(entries):
        raise WeightsError("refused, two entries of its archive have one name")
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries):
        raise WeightsError("refused, its archive is packed or encrypted, as torch.save never does")
    if sum(entry.file_size for entry in entries) > size:
        raise WeightsError("refused, the entries of its archive lie over each other")
    if any(entry.compress_size != entry.file_size for entry in entries) or archive.comment:
        raise WeightsError("not a readable checkpoint (its archive contradicts itself)")


def _check_legacy(file: BufferedIOBase, size: int) -> Inspected:
    """The pickles in a row: magic number, protocol, system, content, keys of the storages; then their bytes."""
    inspected = [inspect(file, size, judge) for _ in range(5)]
    content = inspected[3]
    if sum(content.storages.values()) > size - file.tell():
        raise WeightsError("not a readable checkpoint (its storages are longer than the file)")
    return content
