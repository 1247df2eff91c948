"""Ranges and levels, counted by hand."""

import numpy as np
import pytest

from fasterrcnn.pixel_options import PixelOptions
from fasterrcnn.pixel_values import (
    FULL_RANGE,
    PixelError,
    ValueFacts,
    choose_bands,
    common_range,
    default_range,
    levels_used,
    measure,
    own_range,
    to_levels,
    to_rgb,
)


def test_to_levels__full_range_is_a_division_by_257():
    values = np.arange(65536, dtype=np.uint16)
    assert (to_levels(values, FULL_RANGE) == values // 257).all()


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32, np.float32, np.float64])
def test_to_levels__range(dtype):
    values = np.array([0, 100, 151, 202, 355, 900], dtype)
    assert to_levels(values, (100, 355)).tolist() == [0, 0, 51, 102, 255, 255]


def test_to_levels__what_is_no_number():
    values = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 5], np.float32)
    assert to_levels(values, (0, 10)).tolist() == [0, 255, 0, 255, 0, 127]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([3], np.uint16), FULL_RANGE),
        (np.array([0, 255], np.int32), (0, 255)),
        (np.array([0, 256], np.int32), FULL_RANGE),
        (np.array([0, 0.5, np.nan], np.float32), (0, 1)),
        (np.array([0, 1.5, np.inf], np.float32), (0, 255)),
        (np.array([np.nan], np.float32), (0, 1)),
        (np.zeros((0, 4), np.float32), (0, 1)),
    ],
)
def test_default_range(values, expected):
    assert default_range(values) == expected


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.array([-1, 5], np.int32), "integer values from -1 to 5"),
        (np.array([0, 65536], np.int32), "integer values from 0 to 65536"),
        (np.array([7, 256], np.float32), "float values from 7 to 256"),
    ],
)
def test_default_range__unknown(values, words):
    with pytest.raises(PixelError, match=f"{words}; name those that become black and white: --pixel-range"):
        default_range(values)


def test_own_range__dead_and_hot_pixels_do_not_count():
    values = np.full(10_000, 500, np.uint16)
    values[:5000] = 400
    values[0], values[-1] = 0, 65535
    assert own_range(values) == (400, 500)


def test_own_range__nothing_to_measure():
    assert own_range(np.full((4, 4), 7, np.uint16)) is None
    assert own_range(np.full((4, 4), np.nan, np.float32)) is None
    assert own_range(np.zeros((0, 4), np.float32)) is None


def test_measure__levels_by_default():
    twelve_bits = measure(np.array([0, 4095] * 8, np.uint16))
    assert twelve_bits == ValueFacts(0, 4095, FULL_RANGE)
    assert twelve_bits.levels == 16
    assert measure(np.array([300, 310] * 8, np.float32)).levels == 0


def test_common_range__of_a_few_images_the_extremes():
    facts = [ValueFacts(low, low + 100, FULL_RANGE) for low in (10, 40, 20)]
    assert common_range(facts) == (10, 140)


def test_common_range__of_many_images_not_the_most_extreme():
    facts = [ValueFacts(1000, 2000, FULL_RANGE)] * 500 + [ValueFacts(0, 65535, FULL_RANGE)]
    assert common_range(facts) == (1000, 2000)


def test_levels_used():
    assert levels_used((0, 4095), FULL_RANGE) == 16
    assert levels_used((1000, 2000), (1000, 2000)) == 256
    assert levels_used((0, 10), (1000, 2000)) == 1


def test_choose_bands():
    values = np.arange(5).reshape(1, 1, 5)
    assert choose_bands(values, (5, 1, 2)).tolist() == [[[4, 0, 1]]]
    assert choose_bands(values[..., :4], None).tolist() == [[[0, 1, 2]]]
    assert choose_bands(values[..., :2], None).tolist() == [[0]]
    assert choose_bands(values[..., 0], (1, 1, 1)).tolist() == [[[0, 0, 0]]]


@pytest.mark.parametrize(
    ("bands", "words"),
    [
        (None, "it has 5 bands; name those for red, green and blue: --bands"),
        ((6, 1, 1), "it has 5 bands, not those of --bands 6 1 1"),
        ((0, 1, 1), "it has 5 bands, not those"),
    ],
)
def test_choose_bands__no_such_band(bands, words):
    with pytest.raises(PixelError, match=words):
        choose_bands(np.zeros((1, 1, 5)), bands)


def test_to_rgb__eight_bits_keep_their_values():
    image = to_rgb(np.array([[7]], np.uint8), PixelOptions((0, 10)))
    assert (image.mode, image.getpixel((0, 0))) == ("RGB", (7, 7, 7))
