import threading

import numpy as np
import pytest

from fasterrcnn.config import InputConfig
from fasterrcnn.errors import ImageError
from fasterrcnn.inference.batches import batches_by_size, load_batches, prefetch

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
    batches = batches_by_size([WIDE, tmp_path / "absent.png", TALL], 3, 3, SIZE)
    ((order, loaded),) = load_batches(batches)
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
