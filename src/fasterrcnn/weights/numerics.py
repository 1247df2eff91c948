"""Numbers that belong to weights: a network that goes on from a checkpoint takes over those it was trained with."""

from typing import Any

from fasterrcnn import presets
from fasterrcnn.config import ModelConfig
from fasterrcnn.errors import UsageError

FIELDS = {
    "input": ("resize", "antialias", "mean", "std", "size_divisor"),
    "backbone": ("stride_in_1x1", "norm_eps"),
    "anchors": ("strides", "rounded"),
    "rpn": ("beta",),
    "proposals": (
        "candidates",
        "proposals",
        "training_candidates",
        "training_proposals",
        "nms_threshold",
        "min_score",
        "min_side",
        "ranked_by",
    ),
    "regions": ("pooling", "sampling_ratio", "aligned", "levels", "delta_weights", "box_loss", "beta"),
    "postprocess": ("min_side",),
}
"""Fields of each part of a `ModelConfig` that weights were trained with, and that no tensor's shape follows from."""


def taken_over(config: ModelConfig, trained: ModelConfig) -> ModelConfig:
    """The configuration with a trained one's numbers, but for those that were said to be other than the preset's."""
    try:
        usual = presets.get(config.preset)
    except UsageError:  # a network of the user's own
        usual = config
    parts: dict[str, Any] = {}
    for part, names in FIELDS.items():
        own, old, preset = getattr(config, part), getattr(trained, part), getattr(usual, part)
        if part == "anchors" and (own.sizes, own.ratios) != (old.sizes, old.ratios):
            continue  # strides and rounding go with the sizes
        changes = {name: getattr(old, name) for name in names if getattr(own, name) == getattr(preset, name)}
        parts[part] = own.model_copy(update=changes)
    return config.model_copy(update=parts)


def differences(config: ModelConfig, other: ModelConfig) -> dict[str, tuple[Any, Any]]:
    """Numbers in which two configurations differ: "part.field" -> the first's, the second's."""
    pairs = {
        f"{part}.{name}": (getattr(getattr(config, part), name), getattr(getattr(other, part), name))
        for part, names in FIELDS.items()
        for name in names
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
