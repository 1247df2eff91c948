"""No tensor on a wrong device, and few places where the CPU waits for the GPU: held on a pretended GPU."""

import copy
from collections import Counter

import pytest
import torch

from fasterrcnn import presets
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.structures import ImageBatch, Target
from tests.unit.pretended_gpu import PretendedGpu

CLASSES = ("cat", "dog", "owl")
CROWD = torch.tensor([[40.0, 40.0, 60.0, 60.0]])
OBJECTS = torch.tensor([[4.0, 4.0, 30.0, 30.0], [20.0, 25.0, 60.0, 50.0]])
FAST = {"mobilenetv3-large-320-fpn", "efficientnet-lite0-fpn"}


@pytest.fixture(autouse=True)
def _no_cuda(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "enabled", False)
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)


@pytest.fixture(params=[pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in presets.names()])
def network(request, shrink, lively) -> FasterRCNN:
    """Each preset, with small inputs."""
    return lively(shrink(presets.get(request.param, CLASSES)))


def targets_of(count: int) -> list[Target]:
    """Images with two objects, with a crowd, and with nothing, in turns."""
    nothing = torch.zeros(0, dtype=torch.int64)
    kinds = [
        Target(OBJECTS, torch.tensor([1, 0])),
        Target(OBJECTS[:1], torch.tensor([2]), CROWD),
        Target(OBJECTS[:0], nothing),
    ]
    return [kinds[index % 3] for index in range(count)]


def waits_of_losses(network: FasterRCNN, batch: ImageBatch, **options) -> Counter[str]:
    """What waits in the losses of a batch; the second time, when all that is kept has been made."""
    gpu = PretendedGpu()
    with gpu, torch.no_grad():
        model = gpu.moved(copy.deepcopy(network))
        on_gpu = ImageBatch(gpu.put(batch.pixels), batch.sizes_hw)
        targets = [Target(gpu.put(t.boxes), gpu.put(t.labels), gpu.put(t.ignored)) for t in targets_of(len(batch))]
        generators = [torch.Generator().manual_seed(number) for number in range(len(batch))]
        for _ in range(2):
            gpu.waits.clear()
            losses = model.losses(on_gpu, targets, generator=generators, **options)
        waits = gpu.waits.copy()
        assert losses.total.device == gpu.device
        assert losses.weights.device == gpu.device
        assert bool(losses.total.isfinite())
    return waits


def waits_of_detecting(network: FasterRCNN, batch: ImageBatch, **changes) -> Counter[str]:
    """What waits in detecting, likewise."""
    gpu = PretendedGpu()
    with gpu, torch.no_grad():
        model = gpu.moved(copy.deepcopy(network))
        on_gpu = ImageBatch(gpu.put(batch.pixels), batch.sizes_hw)
        for _ in range(2):
            gpu.waits.clear()
            detections = model(on_gpu, **changes)
        waits = gpu.waits.copy()
    assert sum(len(image.boxes) for image in detections) > 0
    assert all(image.boxes.device.type == "cpu" for image in detections)
    return waits


def fixed_and_per_image(of_three: Counter[str], of_six: Counter[str]) -> tuple[float, float, dict[str, int]]:
    """Waits of any batch, waits of each image, and the places of both for the message of a failure."""
    per_image = (of_six.total() - of_three.total()) / 3
    return of_three.total() - 3 * per_image, per_image, dict(of_six)


SIX = [(64, 64)] * 6


def test_losses__waits(network, batch_of):
    three, six = (waits_of_losses(network, batch_of(*SIX[:count])) for count in (3, 6))
    fixed, per_image, places = fixed_and_per_image(three, six)
    assert per_image <= 3, places
    assert fixed <= 4, places


def test_detecting__waits(network, batch_of):
    three, six = (waits_of_detecting(network, batch_of(*SIX[:count])) for count in (3, 6))
    fixed, per_image, places = fixed_and_per_image(three, six)
    assert per_image <= 4, places
    assert fixed <= 5, places
