"""Files of Detectron2: recognised by their content, and the same detections as Detectron2's own semantics."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import reference_detectron2 as reference
import torch
from reference_bodies import State, random_image
from reference_detectron2 import Config
from torch import Tensor

from fasterrcnn import build
from fasterrcnn.detections import Detections
from fasterrcnn.inference.detector import Detector

SMALL = {"short": 144, "long": 230, "proposals": 80}
IMAGES = ((300, 133, 3), (180, 261, 2))
CONFIGS = {
    "R50-FPN": Config("FPN", fc=128, **SMALL),
    "R50-C4": Config("C4", **{**SMALL, "proposals": 40}),
    "R50-DC5": Config("DC5", fc=32, **SMALL),  # the first layer would have 411 MB
    "X50-32x4d-FPN": Config(
        "FPN", groups=32, width=4, stride_in_1x1=False, pixel_std=(57.375, 57.120, 58.395), fc=128, **SMALL
    ),
    "R50-FPN, torchvision's pixels": Config(
        "FPN",
        stride_in_1x1=False,
        input_format="RGB",
        pixel_mean=(123.675, 116.280, 103.530),
        pixel_std=(58.395, 57.120, 57.375),
        fc=128,
        **SMALL,
    ),
}


def write_pkl(tensors: State, path: Path) -> Path:
    """As the zoo's files are: numpy arrays in a pickle."""
    arrays = {key: value.numpy() for key, value in tensors.items()}
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2 Model Zoo"}))
    return path


def write_pth(tensors: State, path: Path) -> Path:
    """As training leaves it, the trainer's other things beside the tensors."""
    torch.save({"model": tensors, "iteration": 89999, "scheduler": {"last_epoch": 90000}}, path)
    return path


def random_checkpoint(config: Config) -> State:
    tensors = {key: value.double() for key, value in reference.random_tensors(config).items()}
    reference.calibrate(tensors, config, random_image(180, 260, seed=1))
    return {key: value.float() for key, value in tensors.items()}


def at_size(path: Path, config: Config, logged: list[str] | None = None) -> Detector:
    """Our detector of that file, for the reference's input size and number of proposals.

    In float64, as the reference: random networks enlarge float32's rounding to 0.0006 pixels, and a small mistake could
    not be recognised by it.
    """
    model, loaded = build.load_model(path, log=(logged if logged is not None else []).append)
    size = loaded.input.model_copy(update={"short_side": config.short, "long_side": config.long})
    model.proposals = replace(model.proposals, proposals=config.proposals)
    return Detector(model.double(), loaded.model_copy(update={"input": size}), device="cpu")


def check(found: Detections, expected: tuple[Tensor, Tensor, Tensor]) -> None:
    """The same detections one by one; scores that differ by rounding only may change places."""
    boxes, scores, classes = expected
    assert 10 <= len(scores) <= 100
    assert len(classes.unique()) >= 3
    assert float(scores.max() - scores.min()) > 0.2
    assert len(found) == len(scores)
    ours = torch.from_numpy(found.boxes).double()
    distance = torch.cdist(ours, boxes) + 1e6 * (torch.from_numpy(found.labels)[:, None] != classes)
    order = distance.argmin(dim=0)
    assert len(order.unique()) == len(order)
    torch.testing.assert_close(ours[order], boxes, rtol=0, atol=1e-4, check_dtype=False)
    torch.testing.assert_close(torch.from_numpy(found.scores)[order], scores, rtol=0, atol=1e-5, check_dtype=False)


SLOW = {"R50-C4", "R50-DC5", "R50-FPN, torchvision's pixels"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in CONFIGS])
def test_detections(name: str, tmp_path: Path) -> None:
    config = CONFIGS[name]
    tensors = random_checkpoint(config)
    if config.input_format == "RGB":  # such a file has to state it
        logged = {"pixel_mean": config.pixel_mean, "pixel_std": config.pixel_std}
        written = {**tensors, **{key: torch.tensor(value).view(3, 1, 1) for key, value in logged.items()}}
    else:
        written = tensors
    write = write_pkl if config.kind == "FPN" else write_pth
    path = write(written, tmp_path / "model_final.bin")
    detector = at_size(path, config)
    path.unlink()
    exact = {key: value.double() for key, value in tensors.items()}
    for height, width, seed in IMAGES if name == "R50-FPN" else IMAGES[:1]:
        rgb = random_image(height, width, seed)
        check(detector.predict(rgb, score=config.score), reference.detect(exact, config, rgb))
