"""bfloat16 beside float32, with a small detector that is trained here: coloured squares before grey noise."""

import numpy as np
import pytest
import torch
from torch import Tensor

import fasterrcnn
from fasterrcnn.build import assemble
from fasterrcnn.inference.devices import has_fast_bf16
from fasterrcnn.ops.image import make_batch
from fasterrcnn.structures import Target
from fasterrcnn.weights import native

COLOURS = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.2, 0.9]])
IMAGE_HW = (64, 96)
STEPS, IMAGES, LEARNING_RATE = 350, 4, 4e-3


def draw(seed: int) -> tuple[Tensor, Target]:
    """Two squares of 14 to 28 pixels, one in each half of the image; RGB in 0..1."""
    rng = torch.Generator().manual_seed(seed)
    pixels = 0.4 + 0.2 * torch.rand(1, *IMAGE_HW, generator=rng).repeat(3, 1, 1)
    labels = torch.randint(3, (2,), generator=rng)
    boxes = []
    for place, label in enumerate(labels.tolist()):
        side, x, y = (int(low + torch.randint(14, (), generator=rng)) for low in (14, 48 * place, 0))
        pixels[:, y : y + side, x : x + side] = COLOURS[label, :, None, None]
        boxes.append([x, y, x + side, y + side])
    return pixels, Target(torch.tensor(boxes, dtype=torch.float32), labels)


@pytest.fixture(scope="module")
def trained(tiny_config, tmp_path_factory):
    """The file of a detector that finds the squares."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = assemble(tiny_config).eval()
        optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS, pct_start=0.2)
        for step in range(STEPS):
            pixels, targets = zip(*(draw(IMAGES * step + number) for number in range(IMAGES)), strict=True)
            batch = make_batch(list(pixels), fill=tiny_config.input.mean, size_divisor=32)
            losses = model.losses(batch, list(targets), generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            losses.total.backward()
            optimizer.step()
            schedule.step()
    path = tmp_path_factory.mktemp("trained") / "squares.safetensors"
    native.save_checkpoint(path, model, tiny_config)
    return path


def distances(detections: fasterrcnn.Detections, expected: fasterrcnn.Detections) -> list[float]:
    """How far each box is from the nearest one with its label, in pixels."""
    return [
        min((float(np.abs(box - other).max()) for other in expected.boxes[expected.labels == label]), default=np.inf)
        for box, label in zip(detections.boxes, detections.labels, strict=True)
    ]


@pytest.mark.slow  # it trains for a quarter of a minute
@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_bf16__detections_of_a_trained_detector(trained, runtime):
    """A few boxes move further: of two proposals with nearly equal scores, NMS takes the other one."""
    if runtime == "openvino":
        pytest.importorskip("openvino")
        if not has_fast_bf16(torch.device("cpu")):
            pytest.skip("OpenVINO has no bfloat16 on this processor")
    images = [(draw(seed)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8) for seed in range(10**6, 10**6 + 60)]
    exact = fasterrcnn.load(trained, device="cpu").predict(images, score=0.5)
    half = fasterrcnn.load(trained, device="cpu", runtime=runtime, precision="bf16").predict(images, score=0.5)
    count = sum(map(len, exact))
    assert count > 100  # or it has not learned to find 120 squares
    assert abs(sum(map(len, half)) - count) <= 0.02 * count
    moved = [distance for ours, theirs in zip(half, exact, strict=True) for distance in distances(ours, theirs)]

    assert np.median(moved) < 0.2
    assert np.quantile(moved, 0.95) < 1
