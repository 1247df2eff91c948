"""The way of one image file through `predict`: how many files of the library it enters."""

import sys
from pathlib import Path

import pytest
from PIL import Image

import fasterrcnn
from fasterrcnn import presets
from fasterrcnn.build import assemble

ROOT = Path(fasterrcnn.__file__).parent
MAX_FILES = 12


HEAVY = [pytest.param(name, marks=pytest.mark.slow) for name in ("resnet50-c4", "timm:regnety_004")]


@pytest.mark.parametrize("preset", ["resnet50-fpn", "efficientnet-lite0-fpn", *HEAVY])
def test_predict__files_entered(preset, tmp_path):
    if not preset.startswith("resnet"):
        pytest.importorskip("timm")
    config = presets.get(preset, ["a", "b"])
    small = {
        "input": config.input.model_copy(update={"short_side": 128, "long_side": 224}),
        "regions": config.regions.model_copy(update={"widths": (32,) * len(config.regions.widths)}),
    }
    config = config.model_copy(update=small)
    detector = fasterrcnn.Detector(assemble(config), config, device="cpu")
    path = tmp_path / "image.png"
    Image.new("RGB", (96, 64), (90, 120, 60)).save(path)
    detector.predict(path)  # preparations
    entered: dict[str, set[str]] = {}

    def enter(frame, event, _argument):
        file = Path(frame.f_code.co_filename)
        if event == "call" and file.is_relative_to(ROOT):
            entered.setdefault(file.relative_to(ROOT).as_posix(), set()).add(frame.f_code.co_name)

    sys.setprofile(enter)
    try:
        detector.predict(path)
    finally:
        sys.setprofile(None)
    assert "forward" in entered["model/faster_rcnn.py"]
    assert len(entered) <= MAX_FILES, sorted(entered.items())
