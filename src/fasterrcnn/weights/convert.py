"""Detectors from one kind of file to another: ours, torchvision's, Detectron2's."""

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fasterrcnn import presets
from fasterrcnn.config import ModelConfig
from fasterrcnn.errors import UsageError
from fasterrcnn.files import write_bytes
from fasterrcnn.weights import detectron2, native, torchvision
from fasterrcnn.weights.load import WeightFile, sha256_of
from fasterrcnn.weights.state_dict import State

WeightFormat = Literal["fasterrcnn", "torchvision", "detectron2"]


def weight_format_of(path: Path, wanted: WeightFormat | None) -> WeightFormat:
    """The kind of file to write: as given, else by its name: .safetensors ours, .pth torchvision's, .pkl Detectron2's.

    Raises:
        UsageError: the name has no such suffix, or that of another kind than was given.
    """
    kinds: dict[str, tuple[WeightFormat, ...]] = {
        ".safetensors": ("fasterrcnn",),
        ".pth": ("torchvision", "detectron2"),
        ".pkl": ("detectron2",),
    }
    possible = kinds.get(path.suffix)
    if possible is None:
        raise UsageError(f"{path}: call it .safetensors (ours), .pth (torchvision, Detectron2) or .pkl (Detectron2)")
    if wanted is not None and wanted not in possible:
        raise UsageError(f"{path}: a file of {wanted} is not called {path.suffix}")
    return wanted or possible[0]


def write_detector(
    source: WeightFile, state: State, config: ModelConfig, path: Path, target: WeightFormat
) -> list[str]:
    """Write a detector, whole or not at all, and give notes about what the file cannot hold.

    Args:
        source: where it comes from; its name and hash go into our header.
        state: tensors under our names, as checked by a network of that configuration.
        config: of the detector, classes included.
        path: the file to write.
        target: what kind of file.

    Raises:
        UsageError: the family has no such network.
    """
    if target == "fasterrcnn":
        origin = {"file": source.path.name, "family": source.family, "sha256": sha256_of(source.path)}
        native.save_state(path, state, config, {"source": origin})
        return []
    if target == "torchvision":
        write_bytes(path, _torch_bytes(torchvision.to_torchvision(state, config)))
        return [*_classes_note(config), *_numbers_note(config, presets.get(config.preset))]
    theirs = detectron2.to_detectron2(state, config)
    written = _arrays_bytes(theirs) if path.suffix == ".pkl" else _torch_bytes({"model": theirs})
    write_bytes(path, written)
    family_config = detectron2.with_detectron2_numerics(config)
    return [*_classes_note(config), *_numbers_note(config, family_config), *detectron2.detectron2_options(config)]


def _torch_bytes(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def _arrays_bytes(state: Mapping[str, Tensor]) -> bytes:
    """A pickle that Detectron2's checkpointer takes for one of its zoo."""
    arrays = {key: value.detach().cpu().contiguous().numpy() for key, value in state.items()}
    return pickle.dumps({"model": arrays, "__author__": "fasterrcnn"}, protocol=4)


def _classes_note(config: ModelConfig) -> list[str]:
    return [f"the file has no names of classes; in order they are {', '.join(config.classes)}"]


def _numbers_note(config: ModelConfig, family_config: ModelConfig) -> list[str]:
    numbers = [
        f"{name} is {own}, not {other}" for name, (own, other) in native.differences(config, family_config).items()
    ]
    return (
        [f"the file does not hold them, and the family's own code has it otherwise: {'; '.join(numbers)}"]
        if numbers
        else []
    )
