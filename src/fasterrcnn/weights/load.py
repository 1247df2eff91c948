"""Files of weights of every family: opened by their content, and written in the layouts that can be written."""

import hashlib
import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fasterrcnn import presets
from fasterrcnn.config import ModelConfig
from fasterrcnn.errors import UsageError, WeightsError
from fasterrcnn.files import write_bytes
from fasterrcnn.weights import detectron2, mmdetection, native, torchvision
from fasterrcnn.weights.catalog import named
from fasterrcnn.weights.detectron2 import BackboneStyle
from fasterrcnn.weights.layout import State
from fasterrcnn.weights.safe_read import read_weights
from fasterrcnn.weights.wrappers import unwrap_names

WeightFormat = Literal["fasterrcnn", "torchvision", "detectron2"]


@dataclass(frozen=True)
class WeightFile:
    """A file of weights that was read and recognised."""

    path: Path
    family: str  # "fasterrcnn" (ours), "torchvision", "Detectron2" or "MMDetection"; "tensors" for what is no detector
    state: State  # tensors; those of detectors under our names and in our orders, others as they are in the file
    # what detector it is, classes and numerics included; None for what is no detector
    config: ModelConfig | None = None
    about: str = ""  # what else was recognised, in a few words
    name_in_file: Callable[[str], str] = str  # from our name of a tensor to that in the file

    @property
    def line(self) -> str:
        """What the file is, in one line."""
        if self.config is None:
            return f"{self.path}: {len(self.state)} tensors that are no detector"
        classes = self.config.classes
        few = ", ".join(classes[:3]) + ("..." if len(classes) > 3 else "")
        parts = [f"{self.config.preset} of {self.family}", f"{len(classes)} classes ({few})", self.about]
        return f"{self.path}: {', '.join(part for part in parts if part)}"


def open_weights(path: Path, *, preset: str | None = None, style: BackboneStyle | None = None) -> WeightFile:
    """Read a file and recognise it by its content; preset and style are those of `fasterrcnn.load`.

    A `WeightsError` names a file that cannot be read, or is a detector of no known architecture.
    """
    if native.is_ours(path):
        state, config, _ = native.load_checkpoint(path)
        return WeightFile(path, "fasterrcnn", state, config)
    weights = read_weights(path)
    try:
        weights = unwrap_names(weights)
        file = recognise(path, weights.tensors, weights.beside, preset, style)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    return replace(file, about=", ".join(about for about in (file.about, weights.about) if about))


def recognise(
    path: Path, state: State, metadata: Mapping[str, Any], preset: str | None = None, style: BackboneStyle | None = None
) -> WeightFile:
    """What the tensors of a file are; `metadata` is what stands beside them, the rest as in `open_weights`.

    The message of a `WeightsError`, for a detector of no known architecture, does not name the file.
    """
    if torchvision.is_torchvision_detector(state):
        config = torchvision.recognise_torchvision(state, preset)
        config = named(config, _classes(state, "roi_heads.box_predictor.cls_score.weight"))
        own, names = torchvision.from_torchvision(state), torchvision.torchvision_names(convs=config.regions.convs > 0)
        return WeightFile(path, "torchvision", own, config, "", names.theirs)
    if detectron2.is_detectron2_detector(state):
        config, pixels = detectron2.recognise_detectron2(state, style)
        config = named(config, _classes(state, "roi_heads.box_predictor.cls_score.weight"))
        own = detectron2.from_detectron2(state, config, bgr=pixels.bgr)
        return WeightFile(path, "Detectron2", own, config, str(pixels), detectron2.detectron2_key_map(config).theirs)
    if mmdetection.is_mmdetection_detector(state):
        config, pixels = mmdetection.recognise_mmdetection(state, metadata, style)
        count = _classes(state, "roi_head.bbox_head.fc_cls.weight")
        config = named(config, count, mmdetection.mmdetection_class_names(metadata))
        own = mmdetection.from_mmdetection(state, bgr=pixels.bgr)
        return WeightFile(path, "MMDetection", own, config, str(pixels), mmdetection.MMDETECTION_NAMES.theirs)
    if detectron2.is_detectron2_body(state) and "cls_score_w" in state:
        raise WeightsError("a detector of the first Detectron; load and save it with Detectron2, and take that file")
    return WeightFile(path, "tensors", state)


def _classes(state: State, key: str) -> int:
    """Classes without background, which has a row, too; the tensor must be there and have a row for one."""
    if key not in state:
        raise WeightsError(f"does not fit any model: missing {key}")
    if state[key].dim() != 2 or len(state[key]) < 2:
        raise WeightsError(f"{key} has shape {tuple(state[key].shape)}, and not (classes and background, features)")
    return len(state[key]) - 1


def weight_format_of(path: Path, wanted: WeightFormat | None) -> WeightFormat:
    """The kind of file to write, as given or by its name: .safetensors ours, .pth torchvision's, .pkl Detectron2's."""
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

    The state has our names, and was checked by a network of that configuration. Our files name their source. Where the
    family has no such network, it is a `UsageError`.
    """
    if target == "fasterrcnn":
        with source.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        origin = {"file": source.path.name, "family": source.family, "sha256": digest}
        native.save_state(path, state, config, {"source": origin})
        return []
    if target == "torchvision":
        written = _torch_bytes(torchvision.to_torchvision(state, config))
        family_config, options = presets.get(config.preset), []
    else:
        theirs = detectron2.to_detectron2(state, config)
        written = _arrays_bytes(theirs) if path.suffix == ".pkl" else _torch_bytes({"model": theirs})
        family_config, options = detectron2.with_detectron2_numerics(config), detectron2.detectron2_options(config)
    write_bytes(path, written)
    notes = [f"the file has no names of classes; in order they are {', '.join(config.classes)}"]
    others = native.differences(config, family_config).items()
    numbers = "; ".join(f"{name} is {own}, not {other}" for name, (own, other) in others)
    if numbers:
        notes.append(f"the file does not hold them, and the family's own code has it otherwise: {numbers}")
    return [*notes, *options]


def _torch_bytes(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def _arrays_bytes(state: Mapping[str, Tensor]) -> bytes:
    """A pickle that Detectron2's checkpointer takes for one of its zoo."""
    arrays = {key: value.detach().cpu().contiguous().numpy() for key, value in state.items()}
    return pickle.dumps({"model": arrays, "__author__": "fasterrcnn"}, protocol=4)
