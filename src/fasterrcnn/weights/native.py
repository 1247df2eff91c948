"""Our own checkpoints: safetensors with the whole `ModelConfig` in the header.

The header's ``fasterrcnn`` entry is JSON: ``{"format": 1, "model": ModelConfig, "notes": {...}, "sha256": ...}``. It
holds classes, preset and preprocessing, so a file is enough to build the detector again. The hash covers tensors and
header.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from pydantic import ValidationError
from torch import nn

from fasterrcnn import presets
from fasterrcnn.config import EARLIER_BODY, ModelConfig, ProposalConfig, changed
from fasterrcnn.errors import UsageError, WeightsError
from fasterrcnn.files import write_bytes
from fasterrcnn.weights.layout import State
from fasterrcnn.weights.safe_read import read_metadata, read_safetensors

_ENTRY = "fasterrcnn"
_FORMAT = 1
_EARLIER_KEY = re.compile(rf"\b(backbone|box_head)\.{EARLIER_BODY}\.")
EXTRA = "extra/"
"""Tensors whose names begin so are no weights but parts for a runtime, for example; `load_checkpoint` omits them."""


def save_checkpoint(
    path: Path, network: nn.Module, config: ModelConfig, notes: Mapping[str, Any] | None = None
) -> None:
    """Write a checkpoint: beside the target first, flushed, then renamed, so that no torn file is ever seen.

    Notes are JSON values worth keeping: data set, epoch, source of the start weights.
    """
    save_state(path, network.state_dict(), config, notes)


def save_state(path: Path, state: State, config: ModelConfig, notes: Mapping[str, Any] | None = None) -> None:
    """As `save_checkpoint`, from the tensors of a network; there may be others, whose names begin with `EXTRA`."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    header = {"format": _FORMAT, "model": config.model_dump(mode="json"), "notes": dict(notes or {})}
    payload = safetensors.torch.save(tensors)
    start = 8 + int.from_bytes(payload[:8], "little")
    digest = _digest(memoryview(payload)[start:], json.loads(payload[8:start]), header)
    write_bytes(path, safetensors.torch.save(tensors, {_ENTRY: json.dumps({**header, "sha256": digest})}))


def is_ours(path: Path) -> bool:
    """Whether a file is a checkpoint of this library, by its header."""
    return _ENTRY in read_metadata(path)


def load_checkpoint(path: Path) -> tuple[State, ModelConfig, dict[str, Any]]:
    """Tensors, configuration and notes of a checkpoint of this library; a `WeightsError` for other or damaged files."""
    try:
        tensors, table, metadata, content = read_safetensors(path)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    if _ENTRY not in metadata:
        raise WeightsError(f'{path}: a safetensors file, but not of this library (no "{_ENTRY}" in its header)')
    try:
        header = json.loads(metadata[_ENTRY])
        if header["format"] != _FORMAT:
            raise WeightsError(f"{path}: written in format {header['format']}; this release reads {_FORMAT}")
        digest = header.pop("sha256", None)
        if digest is not None and digest != _digest(content, table, header):
            raise WeightsError(f"{path}: damaged, its content is not what was written")
        weights = {upgrade_key(key): value for key, value in tensors.items() if not key.startswith(EXTRA)}
        return weights, ModelConfig.model_validate(header["model"]), header["notes"]
    except (ValueError, KeyError, TypeError, ValidationError, RecursionError) as error:
        raise WeightsError(f"{path}: its header is damaged ({str(error).splitlines()[0]})") from None


def upgrade_key(key: str) -> str:
    """Today's name of a tensor; files of version 0.1 have another word for the bodies of backbone and box head."""
    return _EARLIER_KEY.sub(r"\1.body.", key)


def _digest(content: memoryview, table: Mapping[str, Any], header: Mapping[str, Any]) -> str:
    """SHA-256 of a safetensors file's tensors, of its table that names them, and of our own header."""
    digest = hashlib.sha256(content)
    digest.update(json.dumps([table, header], sort_keys=True).encode())
    return digest.hexdigest()


NUMERIC_FIELDS = {
    "input": ("resize", "antialias", "mean", "std", "size_divisor", "bands"),
    "backbone": ("stride_in_1x1", "norm_eps"),
    "anchors": ("strides", "rounded"),
    "rpn": ("beta",),
    "proposals": tuple(ProposalConfig.model_fields),
    "regions": ("pooling", "sampling_ratio", "aligned", "levels", "delta_weights", "box_loss", "beta"),
    "postprocess": ("min_side",),
}
"""Fields of each part of a `ModelConfig` that weights were trained with, and that no tensor's shape follows from."""


DETECTOR_FIELDS = {
    "input": ("short_side", "long_side"),
    "backbone": ("norm", "neck_channels", "neck_norm"),
    "rpn": ("convs",),
    "regions": ("output_size", "convs", "convs_norm", "widths"),
}
"""What else of a detector of the same preset belongs to its tensors: layers, and the input size that its anchors suit.
Its sizes and ratios of anchors do, too."""


def with_numerics_of(config: ModelConfig, trained: ModelConfig) -> ModelConfig:
    """The configuration with a trained one's numbers, but for those that were set to other values than the preset's.

    Of a detector of the same preset, the `DETECTOR_FIELDS` and all of its anchors are taken as well.
    """
    try:
        default = presets.get(config.preset)
    except UsageError:  # a network of the user's own
        default = config
    same = trained.preset == config.preset
    parts: dict[str, Any] = {}
    for part, numbers in NUMERIC_FIELDS.items():
        own, old, preset = getattr(config, part), getattr(trained, part), getattr(default, part)
        names = (*numbers, *DETECTOR_FIELDS.get(part, ())) if same else numbers
        if part == "anchors" and (own.sizes, own.ratios) != (old.sizes, old.ratios):
            if not same or (own.sizes, own.ratios) != (preset.sizes, preset.ratios):
                continue  # strides and rounding go with the sizes
            names = tuple(type(own).model_fields)
        parts[part] = {name: getattr(old, name) for name in names if getattr(own, name) == getattr(preset, name)}
    return changed(config, **parts)


def differences(config: ModelConfig, other: ModelConfig) -> dict[str, tuple[Any, Any]]:
    """Numbers in which two configurations differ: "part.field" -> the first's, the second's."""
    pairs = {
        f"{part}.{name}": (getattr(getattr(config, part), name), getattr(getattr(other, part), name))
        for part, names in NUMERIC_FIELDS.items()
        for name in names
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
