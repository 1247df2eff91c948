"""Our own checkpoints: safetensors with the whole `ModelConfig` in the header.

The header's ``fasterrcnn`` entry is JSON: ``{"format": 1, "model": ModelConfig, "notes": {...}, "sha256": ...}``. It
holds classes, preset and preprocessing, so a file is enough to build the detector again. The hash covers tensors and
header.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors.torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from fasterrcnn.config import ModelConfig
from fasterrcnn.errors import WeightsError
from fasterrcnn.weights.checkpoint import State

_ENTRY = "fasterrcnn"
_FORMAT = 1
EXTRA = "extra/"
"""Tensors whose names begin so are no weights: the same network prepared for a runtime, for example."""


def save(
    path: Path,
    network: nn.Module,
    config: ModelConfig,
    notes: Mapping[str, Any] | None = None,
    extra: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a checkpoint: beside the target first, flushed, then renamed, so that no torn file is ever seen.

    Args:
        path: the file to write; an existing one is replaced.
        network: the weights, as built from the configuration.
        config: what the network was built from, classes included.
        notes: JSON values worth keeping: data set, epoch, source of the start weights.
        extra: tensors that are no weights; `load` gives them back with `EXTRA` before their names.
    """
    tensors = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    tensors |= {EXTRA + key: value for key, value in (extra or {}).items()}
    header = {"format": _FORMAT, "model": config.model_dump(mode="json"), "notes": dict(notes or {})}
    digest = _digest(safetensors.torch.save(tensors), header)
    write_whole(path, safetensors.torch.save(tensors, {_ENTRY: json.dumps({**header, "sha256": digest})}))


def write_whole(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file beside its place, flush it to the disk, then rename it: it is there whole or not at all.

    Raises:
        OSError: the disk is full, or the folder cannot be written; the file that was there before stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from None  # a full disk does not name the file
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def load(path: Path) -> tuple[State, ModelConfig, dict[str, Any]]:
    """Tensors, configuration and notes of a checkpoint written by `save`.

    Raises:
        WeightsError: not a safetensors file, not one of this library, or damaged.
    """
    try:
        payload = path.read_bytes()
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({str(error).splitlines()[0]})") from None
    if _ENTRY not in metadata:
        raise WeightsError(f'{path}: a safetensors file, but not of this library (no "{_ENTRY}" in its header)')
    try:
        header = json.loads(metadata[_ENTRY])
        if header["format"] != _FORMAT:
            raise WeightsError(f"{path}: written in format {header['format']}; this release reads {_FORMAT}")
        digest = header.pop("sha256", None)
        if digest is not None and digest != _digest(payload, header):
            raise WeightsError(f"{path}: damaged, its content is not what was written")
        return tensors, ModelConfig.model_validate(header["model"]), header["notes"]
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise WeightsError(f"{path}: its header is damaged ({str(error).splitlines()[0]})") from None


def _digest(payload: bytes, header: Mapping[str, Any]) -> str:
    """SHA-256 of a safetensors file's tensors, of its table that names them, and of our own header."""
    start = 8 + int.from_bytes(payload[:8], "little")
    table = {name: entry for name, entry in json.loads(payload[8:start]).items() if name != "__metadata__"}
    digest = hashlib.sha256(memoryview(payload)[start:])
    digest.update(json.dumps([table, header], sort_keys=True).encode())
    return digest.hexdigest()
