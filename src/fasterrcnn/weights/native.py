"""Our own checkpoints: safetensors with the whole `ModelConfig` in the header.

The header's ``fasterrcnn`` entry is JSON: ``{"format": 1, "model": ModelConfig, "notes": {...}}``. It holds
classes, preset and preprocessing, so a file is enough to build the detector again.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import nn

from fasterrcnn.config import ModelConfig
from fasterrcnn.errors import WeightsError
from fasterrcnn.weights.checkpoint import State

_ENTRY = "fasterrcnn"
_FORMAT = 1


def save(path: Path, network: nn.Module, config: ModelConfig, notes: Mapping[str, Any] | None = None) -> None:
    """Write a checkpoint: beside the target first, flushed, then renamed, so that no torn file is ever seen.

    Args:
        path: the file to write; an existing one is replaced.
        network: the weights, as built from the configuration.
        config: what the network was built from, classes included.
        notes: JSON values worth keeping: data set, epoch, source of the start weights.
    """
    header = {"format": _FORMAT, "model": config.model_dump(mode="json"), "notes": dict(notes or {})}
    tensors = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    payload = safetensors.torch.save(tensors, {_ENTRY: json.dumps(header)})
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def load(path: Path) -> tuple[State, ModelConfig, dict[str, Any]]:
    """Tensors, configuration and notes of a checkpoint written by `save`.

    Raises:
        WeightsError: not a safetensors file, or not one of this library.
    """
    try:
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
        return tensors, ModelConfig.model_validate(header["model"]), header["notes"]
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise WeightsError(f"{path}: its header is damaged ({str(error).splitlines()[0]})") from None
