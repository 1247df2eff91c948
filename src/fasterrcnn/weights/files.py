"""Weight files of any kind, told by their content: tensors out, code never run, memory in proportion to the file."""

from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from fasterrcnn.errors import WeightsError
from fasterrcnn.weights.numpy_pickles import Array, is_pickle, read_numpy
from fasterrcnn.weights.safetensors_files import looks_like, read_header, read_safetensors
from fasterrcnn.weights.state_dict import State
from fasterrcnn.weights.torch_files import is_legacy, read_torch

Kind = Literal["safetensors", "torch", "numpy"]

_WRAPPERS = ("model", "state_dict", "model_state_dict", "blobs")
"""Keys under which training scripts keep the weights beside the optimiser, and Caffe2 its arrays."""

_MAX_TENSORS = 20_000
_MAX_NAME = 1000
_MAX_PLAIN = 10_000
_MAX_DEPTH = 8
_STRANGERS = {
    b"<": "a web page or XML, probably what a site answered instead of the weights",
    b"version https://git-lfs": "a pointer of Git LFS, not the weights themselves: run git lfs pull",
    b"\x1f\x8b": "packed by gzip: unpack it first",
}


def kind_of(path: Path) -> Kind:
    """What a weight file is, told by its first bytes.

    Raises:
        WeightsError: there is no such file, or it is something else.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(264)
        file.seek(0)
        if looks_like(head, size):
            return "safetensors"
        if head.startswith(b"PK"):
            return "torch"
        if is_pickle(head):
            return "torch" if is_legacy(file) else "numpy"
    what = next((what for start, what in _STRANGERS.items() if head.lstrip().startswith(start)), None)
    if size == 0:
        what = "an empty file"
    elif head[257:262] == b"ustar":
        what = "a tar archive: unpack it first; torch files of this kind could run code and are refused"
    raise WeightsError(f"{path}: not a weight file: {what or 'neither safetensors nor a checkpoint of torch or numpy'}")


def read_metadata(path: Path) -> dict[str, str]:
    """The texts in the header of a safetensors file; nothing for other kinds.

    Raises:
        WeightsError: as `kind_of`, or the header is damaged.
    """
    if kind_of(path) != "safetensors":
        return {}
    try:
        with path.open("rb") as file:
            return read_header(file, path.stat().st_size).metadata
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None


def read_tensors(path: Path) -> tuple[State, dict[str, Any]]:
    """The named tensors of a weight file, and the plain values beside them.

    Reads safetensors, what `torch.save` wrote (zip archives and the older pickles), and pickles of numpy arrays as
    Detectron2's model zoo has them. Weights that lie under ``model``, ``state_dict``, ``model_state_dict`` or ``blobs``
    are taken out of there. Objects of training frameworks beside the weights are left out.

    Returns:
        Tensors on the CPU, by name; and what else the file says: a header's texts, or numbers, texts, lists and
        dicts from beside the weights (``epoch``, ``meta``).

    Raises:
        WeightsError: no weight file, damaged, or it holds what could run code; one line that begins with the path.
    """
    kind = kind_of(path)
    try:
        if kind == "safetensors":
            tensors, header, _ = read_safetensors(path)
            return tensors, dict(header.metadata)
        size = path.stat().st_size
        with path.open("rb") as file:
            content = read_numpy(file, size) if kind == "numpy" else read_torch(file, size)
        return _split(content, size)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None


def _split(content: Any, size: int) -> tuple[State, dict[str, Any]]:
    """Weights and what lies beside them."""
    weights = _entries(content)
    beside: dict[str, Any] = {}
    for wrapper in _WRAPPERS:
        if isinstance(weights.get(wrapper), dict):
            beside |= {key: value for key, value in weights.items() if isinstance(key, str) and key != wrapper}
            weights = _entries(weights[wrapper])
    if not weights:
        raise WeightsError("no named tensors inside")
    if len(weights) > _MAX_TENSORS:
        raise WeightsError(f"refused, {len(weights):,} tensors")
    state = {key: _tensor(key, value) for key, value in weights.items()}
    if sum(value.nbytes for value in state.values()) > 2 * size:
        raise WeightsError("refused, its tensors are many times as large as the file")
    first = dict(sorted(beside.items(), key=lambda entry: entry[0] != "meta"))  # before an optimiser's many numbers
    return state, _plain(first, [_MAX_PLAIN], _MAX_DEPTH) or {}


def _entries(content: Any) -> dict[Any, Any]:
    """A plain dict of what a dict holds; a pickle may have given its own attributes to an OrderedDict."""
    return dict(dict.items(content)) if isinstance(content, dict) else {}


def _tensor(key: Any, value: Any) -> Tensor:
    if isinstance(value, Array):
        value = value.to_tensor()
    if not isinstance(key, str) or not isinstance(value, Tensor):
        shown = repr(key)[:60] if isinstance(key, str | int) else f"a {type(key).__name__}"
        raise WeightsError(f"{shown} is a {type(value).__name__}, not a tensor")
    if len(key) > _MAX_NAME:
        raise WeightsError(f"refused, a tensor has a name of {len(key):,} characters")
    return value.detach()


def _plain(value: Any, left: list[int], depth: int) -> Any:
    """A copy of numbers, texts, lists and dicts; None for everything else, and where it is too much."""
    left[0] -= 1
    if left[0] < 0 or depth == 0:
        return None
    if isinstance(value, dict):
        return {
            key: _plain(item, left, depth - 1)
            for key, item in dict.items(value)
            if isinstance(key, str | int) and left[0] > 0 and not isinstance(item, Tensor | Array)
        }
    if isinstance(value, list | tuple):
        return [_plain(item, left, depth - 1) for item in value[: max(left[0], 0)]]
    return value if isinstance(value, str | int | float) else None
