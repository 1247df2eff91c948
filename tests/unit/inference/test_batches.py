import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from fasterrcnn.config import InputConfig
from fasterrcnn.errors import ImageError, UsageError
from fasterrcnn.inference import batches
from fasterrcnn.inference.batches import (
    batches_by_size,
    default_batch_size,
    load_batches,
    prefetch,
)
from fasterrcnn.inference.sources import batch_of_images, load_image

SIZE = InputConfig(short_side=64, long_side=128)
WIDE, TALL = np.zeros((64, 128, 3), np.uint8), np.zeros((128, 64, 3), np.uint8)


def numbers(images, batch_size, window):
    return [[number for number, _ in batch] for batch in batches_by_size(images, batch_size, window, SIZE)]


def test_batches__shapes_go_together():
    images = [WIDE, TALL, WIDE, TALL, WIDE]
    assert numbers(images, 2, 5) == [[0, 2], [4, 1], [3]]
    assert numbers(images, 1, 5) == [[0], [1], [2], [3], [4]]
    assert numbers([], 2, 5) == []


def test_batches__order_changes_within_the_window_only():
    images = [WIDE, TALL, WIDE, TALL, WIDE, TALL]
    assert numbers(images, 2, 4) == [[0, 2], [1, 3], [4, 5]]


def test_batches__no_more_than_a_window_is_taken_ahead():
    taken = []

    def images():
        for number in range(100):
            taken.append(number)
            yield WIDE

    next(batches_by_size(images(), 2, 6, SIZE))
    assert len(taken) == 6


def test_load_batches__errors_take_their_place(tmp_path):
    ((order, loaded),) = load_batches(batches_by_size([WIDE, tmp_path / "absent.png", TALL], 3, 3, SIZE))
    by_number = dict(zip(order, loaded, strict=True))
    assert isinstance(by_number[1], ImageError)
    assert (by_number[0].hw, by_number[2].hw) == ((64, 128), (128, 64))


def test_prefetch__order_errors_and_one_ahead():
    made = []

    def items():
        for number in range(5):
            made.append((number, threading.current_thread().name))
            yield number
        raise ValueError("the end")

    ahead = prefetch(items())
    assert next(ahead) == 0
    assert next(ahead) == 1
    assert len(made) <= 3
    with pytest.raises(ValueError, match="the end"):
        assert list(ahead) == [2, 3, 4]
    assert all(name.startswith("fasterrcnn-prefetch") for _, name in made)
    assert list(prefetch(iter(()))) == []


def test_prefetch__can_be_left():
    ahead = prefetch(iter(range(10)))
    next(ahead)
    ahead.close()
    assert not any(thread.name.startswith("fasterrcnn-prefetch") for thread in threading.enumerate())


@pytest.fixture
def four_cores(monkeypatch):
    monkeypatch.setattr(batches, "processors", lambda: 4)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.clone())


@pytest.mark.usefixtures("four_cores")
def test_load_batches__a_gpu_is_fed_by_several_threads(monkeypatch):
    """All four images are being decoded before the first is done; their order stays, errors included."""
    together = threading.Barrier(4, timeout=30)

    def decode(image, options):
        together.wait()
        return image if isinstance(image, ImageError) else load_image(image, options)

    monkeypatch.setattr(batches, "_load", decode)
    error = ImageError("bad")
    images = [WIDE, TALL, error, WIDE]
    ((order, loaded),) = load_batches([tuple(enumerate(images))], device=torch.device("cuda"))
    assert order == [0, 1, 2, 3]
    assert loaded[2] is error
    assert [image.hw for image in loaded if image is not error] == [WIDE.shape[:2], TALL.shape[:2], WIDE.shape[:2]]


@pytest.mark.usefixtures("four_cores")
def test_load_batches__a_gpu_reads_pinned_memory(monkeypatch):
    pinned = torch.zeros(3, 2, 2, dtype=torch.uint8)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda _: pinned)
    for kind, is_pinned in (("cuda", True), ("cpu", False)):
        ((_, (loaded,)),) = load_batches([((0, WIDE),)], device=torch.device(kind))
        assert (loaded.pixels is pinned) == is_pinned


@pytest.mark.usefixtures("four_cores")
def test_load_batches__other_errors_are_raised_in_their_place():
    loading = load_batches(
        [((0, WIDE),), ((1, TALL), (2, "text" * 3), (3, np.zeros((2, 2, 7))))], device=torch.device("cuda")
    )
    assert next(loading)[0] == [0]
    with pytest.raises(UsageError, match="an array must be height x width"):
        next(loading)


@pytest.mark.parametrize(
    ("source", "on_cuda"),
    [(["a.jpg"], 8), ("folder", 8), (Path("film.mp4"), 8), (WIDE, 8), (0, 1), (iter(["a.jpg"]), 1)],
)
def test_default_batch_size(source, on_cuda):
    assert default_batch_size(source, torch.device("cuda")) == on_cuda
    assert default_batch_size(source, torch.device("cpu")) == 1


@pytest.mark.parametrize("resize", ["torch", "pillow", "opencv"])
def test_batch_of_images__bytes_are_sent_and_resized_on_the_device(resize):
    """On "meta", which has no pixels: what needs them must come before."""
    config = SIZE.model_copy(update={"resize": resize})
    pixels = load_image(np.zeros((128, 256, 3), np.uint8)).pixels
    batch = batch_of_images([pixels], config, torch.device("meta"))
    assert (batch.pixels.device.type, batch.padded_hw) == ("meta", (64, 128))
