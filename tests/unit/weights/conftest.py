"""Tensors of whole detectors in every family's layout, without memory."""

from collections.abc import Callable
from functools import cache

import pytest

from fasterrcnn import presets
from fasterrcnn.config import ModelConfig
from fasterrcnn.weights import detectron2, mmdetection, torchvision
from fasterrcnn.weights.layout import State


def _files(weightless: Callable[[ModelConfig], State], family: str, preset: str, classes: int) -> State:
    config = presets.get(preset, [f"class_{i}" for i in range(classes)])
    state = weightless(config)
    if family == "torchvision":
        return torchvision.to_torchvision(state, config)
    if family == "detectron2":
        whole = detectron2.to_detectron2(state, config)
        return {
            key: value for key, value in whole.items() if not key.startswith(("pixel_", "proposal_generator.anchor"))
        }
    return {mmdetection.MMDETECTION_NAMES.theirs(key): value for key, value in state.items()}


@pytest.fixture(scope="session")
def files(weightless: Callable[[ModelConfig], State]) -> Callable[..., State]:
    """Tensors of a file of some family ("torchvision", "detectron2", "mmdetection") for one of our presets."""

    @cache
    def made(family: str, preset: str, classes: int) -> State:
        return _files(weightless, family, preset, classes)

    return lambda family, preset, classes=80: dict(made(family, preset, classes))
