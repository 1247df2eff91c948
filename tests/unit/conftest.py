"""Tiny detectors with random weights that nevertheless detect, and images for them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from fasterrcnn import presets
from fasterrcnn.build import assemble
from fasterrcnn.config import ModelConfig
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.ops.image import make_batch
from fasterrcnn.structures import ImageBatch
from fasterrcnn.weights import native
from fasterrcnn.weights.layout import State

CLASSES = ("cat", "dog", "owl")


def _shrink(config: ModelConfig) -> ModelConfig:
    """The same architecture with small inputs, few proposals and a narrow head."""
    counts = {"candidates": 60, "proposals": 30, "training_candidates": 60, "training_proposals": 40}
    regions = {
        "widths": (32,) * len(config.regions.widths),
        "assign": config.regions.assign.model_copy(update={"count": 16}),
    }
    rpn = {"assign": config.rpn.assign.model_copy(update={"count": 32})}
    return config.model_copy(
        update={
            "input": config.input.model_copy(update={"short_side": 64, "long_side": 96}),
            "proposals": config.proposals.model_copy(update={**counts, "min_score": 0.0}),
            "regions": config.regions.model_copy(update=regions),
            "rpn": config.rpn.model_copy(update=rpn),
        }
    )


def _pixels(image_hw: tuple[int, int], seed: int) -> torch.Tensor:
    """RGB in 0..1 with blobs of several sizes."""
    generator = torch.Generator().manual_seed(seed)
    layers = [torch.rand(1, 3, cells, cells, generator=generator) for cells in (2, 5, 13)]
    whole = [F.interpolate(layer, size=image_hw, mode="bilinear", align_corners=False) for layer in layers]
    return torch.cat(whole).mean(dim=0)


def _batch(*sizes_hw: tuple[int, int]) -> ImageBatch:
    images = [_pixels(size, seed) for seed, size in enumerate(sizes_hw)]
    return make_batch(images, fill=(0.485, 0.456, 0.406), size_divisor=32)


@torch.no_grad()
def _enliven(model: FasterRCNN) -> None:
    """Scale the outputs so that scores spread and boxes move, as those of a trained network."""
    batch = _batch((64, 64), (64, 64))
    features = model.features(batch.pixels)
    logits, deltas = model.rpn(features)
    model.rpn.objectness.weight *= 2 / torch.cat(logits, dim=1).std()
    model.rpn.deltas.weight *= 0.2 / torch.cat(deltas, dim=1).std()
    regions = [found.boxes for found in model.propose(features, batch)]
    class_logits, box_deltas = model.classify(features, regions)
    factor = 2 / class_logits.std(dim=0).mean()
    model.box_head.class_logits.weight *= factor
    model.box_head.class_logits.bias -= class_logits.mean(dim=0) * factor
    model.box_head.box_deltas.weight *= 1 / box_deltas.std()


def _build(config: ModelConfig) -> FasterRCNN:
    """The network with the same lively weights in every run, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = assemble(config).eval()
    _enliven(model)
    return model


@pytest.fixture(scope="session")
def shrink() -> Callable[[ModelConfig], ModelConfig]:
    return _shrink


@pytest.fixture(scope="session")
def make_pixels() -> Callable[[tuple[int, int], int], torch.Tensor]:
    return _pixels


@pytest.fixture(scope="session")
def batch_of() -> Callable[..., ImageBatch]:
    return _batch


@pytest.fixture(scope="session")
def lively() -> Callable[[ModelConfig], FasterRCNN]:
    return _build


@pytest.fixture(scope="session")
def tiny_config() -> ModelConfig:
    """80,000 parameters of a backbone under a pyramid of 32 channels; three classes."""
    config = _shrink(presets.get("timm:test_efficientnet", CLASSES))
    return config.model_copy(update={"backbone": config.backbone.model_copy(update={"neck_channels": 32})})


@pytest.fixture(scope="session")
def tiny_model(tiny_config: ModelConfig) -> FasterRCNN:
    """A shared network: tests do not change it."""
    return _build(tiny_config)


@pytest.fixture(scope="session")
def checkpoint(tiny_config: ModelConfig, tiny_model: FasterRCNN, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    native.save_checkpoint(path, tiny_model, tiny_config)
    return path


@pytest.fixture(scope="session")
def photo() -> Callable[[tuple[int, int], int], Image.Image]:
    """Pillow images, different from seed to seed."""

    def draw(image_hw: tuple[int, int], seed: int = 0) -> Image.Image:
        values = (_pixels(image_hw, seed) * 255).round().byte().permute(1, 2, 0)
        return Image.fromarray(np.ascontiguousarray(values.numpy()))

    return draw


def _weightless(config: ModelConfig) -> State:
    """Our names and shapes; each tensor is one number, 0.5, seen as many: it takes no memory."""
    with torch.device("meta"):
        state = assemble(config).state_dict()
    whole = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    return {key: torch.full((1,) * value.dim(), 0.5).expand(value.shape) for key, value in whole.items()}


@pytest.fixture(scope="session")
def weightless() -> Callable[[ModelConfig], State]:
    """Tensors of a whole detector that take no memory."""
    return _weightless


@pytest.fixture(autouse=True)
def _same_threads() -> Iterator[None]:
    """Torch's number of threads does not stay from test to test: some sums depend on it."""
    before = torch.get_num_threads()
    yield
    if torch.get_num_threads() != before:
        torch.set_num_threads(before)


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Torch's number of threads, on which the method of some products and sums depends."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)
