"""Runs of a tiny network on a few drawn images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fasterrcnn.demo.scenes import write_scenes
from fasterrcnn.training import run_folder
from fasterrcnn.training.fit import Run, fit

MODEL = {"preset": "timm:test_efficientnet", "backbone": {"neck_channels": 32}, "regions": {"widths": [32]}}


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Pascal VOC set of five scenes of 96 x 96: three to train on, one to validate, one to test."""
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, train=3, val=1, test=1, seed=0, size_hw=(96, 96))
    return folder


@pytest.fixture(scope="session")
def tiny_options() -> dict[str, Any]:
    """Arguments of `fit` for a network of some thousand random parameters."""
    return {"model": MODEL, "weights": None, "short_side": 64, "logger": "none"}


@pytest.fixture
def train(scenes: Path, tmp_path: Path, tiny_options: dict[str, Any]) -> Callable[..., Run]:
    """Trains the tiny network on the scenes: ``train("name of the run", epochs=2)``."""

    def train(name: str, *, data: Any = scenes, **options: Any) -> Run:
        return fit(data, output=tmp_path / name, **{**tiny_options, "epochs": 1, **options})

    return train


@pytest.fixture(scope="session")
def start(scenes: Path, tiny_options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of one epoch, to start others from."""
    return fit(scenes, output=tmp_path_factory.mktemp("start") / "run", epochs=1, **tiny_options)


@pytest.fixture
def real_curves() -> None:
    """Requested by tests that need the curves of a run."""


@pytest.fixture(autouse=True)
def _no_curves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty file instead of curves: drawing them takes longer than the rest of a tiny run."""
    if "real_curves" not in request.fixturenames:
        monkeypatch.setattr(run_folder, "write_curves", lambda rows, path: path.touch())
