"""No tensor on a wrong device, and few places where the CPU waits for the GPU: held on a pretended GPU."""

import copy
import dataclasses
import math
from collections import Counter

import pytest
import torch
from tests.unit.pretended_gpu import PretendedGpu
from torch.testing import assert_close

from fasterrcnn import presets
from fasterrcnn.data.dataset import BatchPlan
from fasterrcnn.inference.benchmark import compare_detections
from fasterrcnn.inference.detector import Detector
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.model.postprocess import PostProcess
from fasterrcnn.structures import ImageBatch, Losses, Target
from fasterrcnn.training.data import Step
from fasterrcnn.training.validation import Validation

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


@pytest.mark.parametrize("nms", ["class", "agnostic", "soft-linear", "soft-gaussian"])
@pytest.mark.parametrize("min_side", [1e-2, 0.0])
def test_detecting__waits_of_every_nms(tiny_model, batch_of, nms, min_side):
    rules = PostProcess(score_threshold=0.1, nms=nms, min_side=min_side, classes=(0, 2))
    three, six = (waits_of_detecting(tiny_model, batch_of(*SIX[:count]), postprocess=rules) for count in (3, 6))
    fixed, per_image, places = fixed_and_per_image(three, six)
    assert per_image <= 4, places
    assert fixed <= 5, places


@pytest.mark.parametrize("nms", ["class", "soft-gaussian"])
def test_detecting__same_as_on_the_cpu(tiny_model, batch_of, nms):
    """Bad boxes are not left out before NMS there, but come last in it: what is detected is the same."""
    batch, gpu = batch_of((64, 64), (50, 90), (64, 64)), PretendedGpu()
    rules = PostProcess(score_threshold=0.1, nms=nms)
    proposals = dataclasses.replace(tiny_model.proposals, min_score=0.4, min_side=4.0)
    with torch.no_grad():
        expected = tiny_model(batch, postprocess=rules, proposals=proposals)
    with gpu, torch.no_grad():
        model = gpu.moved(copy.deepcopy(tiny_model))
        actual = model(ImageBatch(gpu.put(batch.pixels), batch.sizes_hw), postprocess=rules, proposals=proposals)
    assert sum(len(image.boxes) for image in expected) > 3
    for image, other in zip(actual, expected, strict=True):
        assert_close(image.labels, other.labels)
        assert_close(image.scores, other.scores)
        assert_close(image.boxes, other.boxes)


def test_losses__same_as_on_the_cpu(tiny_model, batch_of):
    """Equal seeds draw the same anchors and regions on every device."""
    batch, targets, gpu = batch_of((64, 64), (64, 96), (64, 64)), targets_of(3), PretendedGpu()
    expected = tiny_model.losses(batch, targets, generator=torch.Generator().manual_seed(3))
    with gpu, torch.no_grad():
        model = gpu.moved(copy.deepcopy(tiny_model))
        on_gpu = [Target(gpu.put(t.boxes), gpu.put(t.labels), gpu.put(t.ignored)) for t in targets]
        pixels = gpu.put(batch.pixels)
        generator = torch.Generator().manual_seed(3)
        actual = model.losses(ImageBatch(pixels, batch.sizes_hw), on_gpu, generator=generator)
        values = [value.cpu() for _, value in actual]
    for value, (name, other) in zip(values, expected, strict=True):
        assert_close(value, other.detach(), msg=lambda text, name=name: f"{name}: {text}")


LOSS_OPTIONS = [
    {"box_loss": "giou"},
    {"box_loss": "l1", "label_smoothing": 0.1, "focal_gamma": 2.0},
    {"class_weights": (1.0, 2.0, 0.5, 1.0)},
]


@pytest.mark.parametrize("options", LOSS_OPTIONS)
def test_losses__waits_of_every_kind(tiny_model, batch_of, options):
    model = copy.deepcopy(tiny_model)
    model.region_loss = dataclasses.replace(model.region_loss, **options)
    three, six = (waits_of_losses(model, batch_of(*SIX[:count])) for count in (3, 6))
    fixed, per_image, places = fixed_and_per_image(three, six)
    assert per_image <= 3, places
    assert fixed <= 5, places


@pytest.fixture
def detector_on_gpu(tiny_model, tiny_config, monkeypatch) -> tuple[Detector, PretendedGpu]:
    """A detector whose network lies on the pretended GPU."""
    gpu, detector = PretendedGpu(), Detector(tiny_model, tiny_config, device="cpu")
    with gpu:
        gpu.moved(detector.model)
        detector._stages = detector._make_stages()
    detector.device = gpu.device
    # Tensors made in inference mode cannot pretend.
    monkeypatch.setattr(Detector, "_pass", torch.no_grad()(Detector._pass.__wrapped__))
    return detector, gpu


SLOW = [
    pytest.param(merge, augment, marks=pytest.mark.slow)
    for merge in ("nms", "ios", "soft")
    for augment in (None, "flip")
    if (merge, augment) != ("soft", None)
]


@pytest.mark.parametrize(("merge", "augment"), [("soft", None), *SLOW])
def test_predict__waits_of_tiles(detector_on_gpu, tiny_model, tiny_config, photo, merge, augment):
    """What tiles give is merged on the CPU: there is one copy for a batch of tiles."""
    detector, gpu = detector_on_gpu
    options = {"tile": 64, "overlap": 0.3, "merge": merge, "augment": augment, "score": 0.3, "batch_size": 4}
    image = photo((120, 150), 1)
    with gpu:
        detector.predict(image, **options)
        gpu.waits.clear()
        detections = detector.predict(image, **options)
    tiles = detector._complete(options, image).tiling.tiles((120, 150), tiny_config.input)
    assert gpu.waits.total() <= 6 * len(tiles) + 5 * math.ceil(len(tiles) / 4), gpu.waits
    assert not [place for place in gpu.waits if "fusion" in place or "tiling" in place], gpu.waits
    expected = Detector(tiny_model, tiny_config, device="cpu").predict(image, **options)
    assert len(expected) > 3
    # Convolutions are fused on the CPU, and regions are pooled by another kernel on a GPU: both round otherwise.
    deviation = compare_detections(detections, expected)
    assert deviation.boxes < 1e-3
    assert not deviation.alone


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_validation_and_record__no_float64_on_the_device(kind, tiny_model, batch_of):
    """Apple's GPUs have no float64; one copy brings the sums of a batch to the CPU."""
    gpu = PretendedGpu(kind)
    with gpu, torch.no_grad():
        values = [gpu.put(torch.tensor(float(number))) for number in range(4)]
        losses = Losses(*values, gpu.put(torch.ones(4)))
        validation = Validation.__new__(Validation)
        validation.clear()
        validation.add(Step(BatchPlan((), 1), ImageBatch(gpu.put(torch.zeros(0, 3, 32, 32)), []), []), losses, [])
    assert gpu.waits.total() == 1
    assert validation._sums.tolist() == [0, 1, 2, 3, 1, 1, 1, 1]


def test_pretended_gpu__refuses_and_counts():
    """What the other tests rely on."""
    gpu, mps = PretendedGpu(), PretendedGpu("mps")
    with gpu:
        numbers = gpu.put(torch.arange(4.0))
        with pytest.raises(RuntimeError, match="same device: add"):
            numbers + torch.ones(4)
        assert (numbers + 1).sum().device == gpu.device
        assert gpu.waits.total() == 0
        for wait in (
            numbers.sum().item,
            numbers.tolist,
            numbers.cpu,
            lambda: numbers[numbers > 1],
            (numbers > 1).nonzero,
            lambda: torch.tensor([1.0], device=gpu.device),
            lambda: torch.ones(2).to(gpu.device),
            lambda: numbers[[0, 1]],
        ):
            gpu.waits.clear()
            wait()
            assert gpu.waits.total() == 1, gpu.waits
        gpu.waits.clear()
        torch.ones(2).to(gpu.device, non_blocking=True)
        assert gpu.waits.total() == 0
    with mps, pytest.raises(TypeError, match="MPS"):
        mps.put(torch.ones(2)).double()
