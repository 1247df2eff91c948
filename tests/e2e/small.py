"""A detector that is quick to build, save and load."""

from collections.abc import Sequence

from fasterrcnn import presets
from fasterrcnn.config import ModelConfig

PRESET = "timm:test_efficientnet"
CHANNELS = 32
"""Of the pyramid and of the head."""


def small_config(classes: Sequence[str]) -> ModelConfig:
    """The preset with small inputs, few channels and a narrow head."""
    config = presets.get(PRESET, classes)
    return config.model_copy(
        update={
            "input": config.input.model_copy(update={"short_side": 64, "long_side": 96}),
            "backbone": config.backbone.model_copy(update={"neck_channels": CHANNELS}),
            "regions": config.regions.model_copy(update={"widths": (CHANNELS,)}),
        }
    )
