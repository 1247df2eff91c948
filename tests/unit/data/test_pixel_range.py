"""The range of a data set, of files with ramps of values."""

import numpy as np
import pytest
from PIL import Image

from fasterrcnn.data.pixel_range import FittedPixelRange, check_pixel_values, fit_pixel_range
from fasterrcnn.images import read_image
from fasterrcnn.pixel_options import PixelOptions
from fasterrcnn.pixel_values import FULL_RANGE, ValueFacts


@pytest.fixture
def save(tmp_path):
    """Saves a ramp from one value to another, 100 x 100 pixels, and gives its path."""

    def save(name, low, high, dtype=np.uint16):
        Image.fromarray(np.linspace(low, high, 10_000).astype(dtype).reshape(100, 100)).save(tmp_path / name)
        return tmp_path / name

    return save


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [(0, 4095, np.uint16), (30000, 31020, np.uint16), (-1000, 3000, np.int32), (280, 310, np.float32)],
)
def test_fit_pixel_range__shows_at_least_a_hundred_levels(save, low, high, dtype):
    paths = [save("a.tif", low, high, dtype), save("b.tif", low, (low + high) / 2, dtype)]
    fitted = fit_pixel_range(paths)
    assert fitted.value_range == pytest.approx((low, high), abs=(high - low) / 500)
    assert (fitted.measured, fitted.faint) == (2, ())
    options = PixelOptions(fitted.value_range)
    assert all(len(np.unique(np.asarray(read_image(path, options)))) > 100 for path in paths)


def test_fit_pixel_range__full_range_needs_none(save):
    fitted = fit_pixel_range([save("a.png", 0, 65535)])
    assert fitted == FittedPixelRange(None, 1)
    assert fitted.lines() == ["pixel range: 1 image with more than 8 bits, all values as they are"]


def test_fit_pixel_range__eight_bits_do_not_count(save, tmp_path):
    Image.new("RGB", (9, 9), (200, 0, 0)).save(tmp_path / "colour.jpg")
    (tmp_path / "damaged.png").write_bytes(b"no image")
    eight = [tmp_path / "colour.jpg", tmp_path / "damaged.png", tmp_path / "absent.png"]
    assert fit_pixel_range(eight) == fit_pixel_range([]) == FittedPixelRange(None, 0)
    assert FittedPixelRange(None, 0).lines() == []
    deep = save("a.png", 1000, 2000)
    assert fit_pixel_range([*eight, deep]) == fit_pixel_range([deep])


def test_fit_pixel_range__names_images_that_do_not_fit(save):
    fitted = fit_pixel_range([save("a.png", 0, 65535), save("thermal.png", 30000, 31020)])
    assert [path.name for path in fitted.faint] == ["thermal.png"]
    assert "note: 1 of them use less than 32 of 256 grey levels in it, first " in fitted.lines()[1]


def test_fitted_pixel_range__one_line():
    line = "pixel range: 16 becomes black and 4080 white, measured on 3 images with more than 8 bits (--pixel-range)"
    assert FittedPixelRange((16, 4080), 3).lines() == [line]


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (
            ValueFacts(0, 4095, FULL_RANGE),
            "uses 16 of 256 grey levels (values 0 to 4095, as of 12-bit data in a 16-bit",
        ),
        (ValueFacts(0, 0.1, (0, 1)), "uses 26 of 256 grey levels (values 0 to 0.1); --pixel-range 0 0.1 shows them"),
        (
            ValueFacts(280, 310, None),
            "values 280 to 310, of which none is known to be black or white; --pixel-range 280",
        ),
    ],
)
def test_check_pixel_values(tmp_path, facts, words):
    (finding,) = check_pixel_values({tmp_path / "a.tif": facts})
    assert (finding.kind, finding.severity) == ("few-levels", "warning")
    assert finding.what.startswith(words)


def test_check_pixel_values__enough_levels(tmp_path):
    assert check_pixel_values({tmp_path / "a.tif": ValueFacts(0, 9000, FULL_RANGE)}) == []
    assert check_pixel_values({}) == []
