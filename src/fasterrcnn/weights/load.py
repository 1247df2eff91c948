"""Opens a file of weights by its content: ours, torchvision's, Detectron2's, MMDetection's, or a backbone."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fasterrcnn.config import ModelConfig
from fasterrcnn.errors import WeightsError
from fasterrcnn.weights import detectron2, mmdetection, native, torchvision
from fasterrcnn.weights.catalog import named
from fasterrcnn.weights.detectron2 import BackboneStyle
from fasterrcnn.weights.safe_read import read_tensors
from fasterrcnn.weights.state_dict import State


def _as_it_is(key: str) -> str:
    return key


@dataclass(frozen=True)
class WeightFile:
    """A file of weights that was read and recognised.

    Attributes:
        path: the file.
        family: "fasterrcnn" (ours), "torchvision", "Detectron2" or "MMDetection"; "tensors" for what is no detector.
        state: tensors; those of detectors under our names and in our orders, others as they are in the file.
        config: what detector it is, classes and numerics included; None for what is no detector.
        about: what else was recognised, in a few words.
        name_in_file: from our name of a tensor to that in the file.
    """

    path: Path
    family: str
    state: State
    config: ModelConfig | None = None
    about: str = ""
    name_in_file: Callable[[str], str] = _as_it_is

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
    """Read a file and recognise it.

    Args:
        path: .safetensors, .pth or .pkl; the content decides, not the name.
        preset: architecture of a torchvision file that its keys leave open ("mobilenetv3-large-320-fpn").
        style: "caffe" or "pytorch": colours and strides of a Detectron2 or MMDetection file that does not state them.

    Raises:
        WeightsError: the file cannot be read, or is a detector of no known architecture.
    """
    if native.is_ours(path):
        state, config, _ = native.load_checkpoint(path)
        return WeightFile(path, "fasterrcnn", state, config)
    state, metadata = read_tensors(path)
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    try:
        return recognise(path, state, metadata, preset, style)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None


def recognise(
    path: Path, state: State, metadata: Mapping[str, Any], preset: str | None = None, style: BackboneStyle | None = None
) -> WeightFile:
    """What the tensors of a file are.

    Args:
        path: the file.
        state: its tensors.
        metadata: what stands beside them.
        preset: as in `open_weights`.
        style: as in `open_weights`.

    Raises:
        WeightsError: a detector, but of no known architecture; the message does not name the file.
    """
    if torchvision.is_torchvision_detector(state):
        config = named(
            torchvision.recognise_torchvision(state, preset),
            _classes(state, "roi_heads.box_predictor.cls_score.weight"),
        )
        convs = config.regions.convs
        own = torchvision.from_torchvision(state)
        return WeightFile(
            path, "torchvision", own, config, "", lambda key: torchvision.torchvision_name(key, convs=convs)
        )
    if detectron2.is_detectron2_detector(state):
        config, pixels = detectron2.recognise_detectron2(state, style)
        config = named(config, _classes(state, "roi_heads.box_predictor.cls_score.weight"))
        own = detectron2.from_detectron2(state, config, bgr=pixels.bgr)
        return WeightFile(path, "Detectron2", own, config, str(pixels), detectron2.detectron2_key_map(config).theirs)
    if mmdetection.is_mmdetection_detector(state):
        config, pixels = mmdetection.recognise_mmdetection(state, metadata, style)
        count = _classes(state, "roi_head.bbox_head.fc_cls.weight")
        config = named(config, count, mmdetection.mmdetection_class_names(metadata))
        own = mmdetection.from_mmdetection(state, config, bgr=pixels.bgr)
        return WeightFile(path, "MMDetection", own, config, str(pixels), mmdetection.mmdetection_key_map(config).theirs)
    if detectron2.is_caffe2_detector(state):
        raise WeightsError("a detector of the first Detectron; load and save it with Detectron2, and take that file")
    return WeightFile(path, "tensors", state)


def _classes(state: State, key: str) -> int:
    """Classes without background, which has a row, too.

    Raises:
        WeightsError: the tensor is missing, or has no class in it.
    """
    if key not in state:
        raise WeightsError(f"does not fit any model: missing {key}")
    if state[key].dim() != 2 or len(state[key]) < 2:
        raise WeightsError(f"{key} has shape {tuple(state[key].shape)}, and not (classes and background, features)")
    return len(state[key]) - 1


def sha256_of(path: Path) -> str:
    """The hash of a file, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
