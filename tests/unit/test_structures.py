import math

import pytest
import torch
from torch.testing import assert_close

from fasterrcnn.structures import ByteBatch, ImageBatch, Losses, Target, move, no_boxes


def test_no_boxes():
    assert no_boxes().shape == (0, 4)
    assert no_boxes().dtype == torch.float32


def test_image_batch__sizes():
    batch = ImageBatch(torch.zeros(2, 3, 32, 64), [(30, 60), (32, 10)])
    assert len(batch) == 2
    assert batch.padded_hw == (32, 64)
    assert batch.to("cpu").sizes_hw == batch.sizes_hw


def test_target__ignored_regions_are_optional():
    target = Target(no_boxes(), torch.zeros(0, dtype=torch.int64))
    assert target.ignored.shape == (0, 4)
    assert target.to("cpu").ignored.shape == (0, 4)


def test_losses__total_and_names():
    losses = Losses(*(torch.tensor(value) for value in (1.0, 2.0, 4.0, 8.0)))
    assert_close(losses.total, torch.tensor(15.0))
    assert [name for name, _ in losses] == ["objectness", "rpn_boxes", "classes", "boxes"]
    expected = {"objectness": 1.0, "rpn_boxes": 2.0, "classes": 4.0, "boxes": 8.0, "total": 15.0}
    assert losses.as_floats() == expected


def test_losses__weights_are_no_loss():
    parts = [torch.tensor(value) for value in (1.0, 2.0, 4.0, 8.0)]
    losses = Losses(*parts, weights=torch.tensor([5.0, 5.0, 7.0, 9.0]))
    assert_close(losses.total, torch.tensor(15.0))
    assert len(list(losses)) == 4
    assert "weights" not in losses.as_floats()
    assert_close(Losses(*parts).weights, torch.ones(4))


def test_losses__floats_of_nan():
    losses = Losses(torch.tensor(math.nan), torch.zeros(()), torch.zeros(()), torch.zeros(()))
    assert math.isnan(losses.as_floats()["total"])


FILL = (0.485, 0.456, 0.406)


def byte_batch(batch_of) -> tuple[ImageBatch, ByteBatch]:
    batch = batch_of((40, 60), (64, 33))
    return batch, ByteBatch.of(batch, FILL)


def test_byte_batch__half_a_level_apart_and_the_padding_exact(batch_of):
    batch, in_bytes = byte_batch(batch_of)
    assert in_bytes.pixels.dtype == torch.uint8
    assert in_bytes.pixels.numel() == batch.pixels.numel()
    again = in_bytes.to("cpu")
    assert again.sizes_hw == batch.sizes_hw
    assert (again.pixels - batch.pixels).abs().max() <= 0.5 / 255 + 1e-6
    assert torch.equal(again.pixels[0, :, 40:], batch.pixels[0, :, 40:])
    assert torch.equal(again.pixels[1, :, :, 33:], batch.pixels[1, :, :, 33:])
    assert again.pixels.is_contiguous(memory_format=torch.channels_last)


def test_byte_batch__images_of_bytes_stay_exact():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    batch = ImageBatch(levels.float() / 255, [(16, 16)])
    assert torch.equal(ByteBatch.of(batch, FILL).to("cpu").pixels, batch.pixels)


def test_pin_memory__of_everything_in_a_batch(batch_of, monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    batch, in_bytes = byte_batch(batch_of)
    target = Target(no_boxes(), torch.zeros(0, dtype=torch.int64))
    assert batch.pin_memory() == batch
    assert in_bytes.pin_memory() == in_bytes
    assert target.pin_memory() == target
    assert [id(t) for t in pinned] == [
        id(t) for t in (batch.pixels, in_bytes.pixels, target.boxes, target.labels, target.ignored)
    ]


@pytest.mark.parametrize(("device", "waits"), [("cuda:1", False), ("cpu", True), ("mps", True)])
def test_move__only_a_cuda_gpu_lets_the_cpu_go_on(monkeypatch, device, waits):
    calls = []
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *_, **options: calls.append(options) or tensor)
    move(torch.zeros(1), device)
    assert calls == [{"non_blocking": not waits}]
