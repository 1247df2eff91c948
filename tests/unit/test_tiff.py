"""TIFF files that Pillow cannot read; where tifffile is not installed, something in its place gives their values."""

import struct
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fasterrcnn.data.pixel_range import fit_pixel_range
from fasterrcnn.errors import ImageError
from fasterrcnn.images import decode_image, has_deep_pixels, read_header, read_image, read_stretched
from fasterrcnn.pixel_options import PixelOptions

VALUES = np.arange(2 * 3 * 5, dtype=np.uint16).reshape(2, 3, 5) * 100
"""2 high, 3 wide, 5 bands."""


def write_tiff(path, values):
    """An uncompressed TIFF of 16 bits, as GDAL writes it."""
    height, width, bands = values.shape
    pixels = values.astype("<u2").tobytes()
    bits = struct.pack(f"<{bands}H", *[16] * bands)
    places = {"bits": 8, "pixels": 8 + len(bits), "tags": 8 + len(bits) + len(pixels)}
    tags = [
        *((256, 3, 1, width), (257, 3, 1, height), (258, 3, bands, places["bits"]), (259, 3, 1, 1), (262, 3, 1, 1)),
        *((273, 4, 1, places["pixels"]), (277, 3, 1, bands), (278, 3, 1, height), (279, 4, 1, len(pixels))),
        *((284, 3, 1, 1), (338, 3, 1, 0)),
    ]
    head = b"II*\0" + struct.pack("<I", places["tags"])
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    path.write_bytes(head + bits + pixels + directory)
    return path


@pytest.fixture
def tifffile(monkeypatch):
    """Replaces tifffile; its only page can be changed."""
    page = SimpleNamespace(imagelength=2, imagewidth=3, axes="YXS", tags={}, asarray=lambda: VALUES)

    class TiffFile:
        def __init__(self, source):
            self.pages = [page]

        def __enter__(self):
            return self

        def __exit__(self, *error): ...

    module = ModuleType("tifffile")
    module.TiffFile = TiffFile
    monkeypatch.setitem(sys.modules, "tifffile", module)
    return page


@pytest.fixture
def path(tmp_path):
    return write_tiff(tmp_path / "sentinel.tif", VALUES)


def test_read_image__many_bands(path, tifffile):
    image = read_image(path, PixelOptions((0, 2550), (4, 3, 2)))
    assert image.size == (3, 2)
    assert image.getpixel((0, 0)) == (30, 20, 10)
    assert decode_image(path.read_bytes(), PixelOptions((0, 2550), (4, 3, 2))).getpixel((0, 0)) == (30, 20, 10)


def test_read_image__bands_stored_one_by_one(path, tifffile):
    tifffile.axes, tifffile.asarray = "SYX", lambda: np.moveaxis(VALUES, -1, 0)
    assert read_image(path, PixelOptions((0, 2550), (4, 3, 2))).getpixel((0, 0)) == (30, 20, 10)


def test_read_image__many_bands_turned_upright(path, tifffile):
    tifffile.tags = {274: SimpleNamespace(value=6)}
    assert read_header(path).size_hw == (3, 2)
    image = read_image(path, PixelOptions((0, 2550), (1, 1, 1)))
    assert image.size == (2, 3)
    assert image.getpixel((1, 0)) == (0, 0, 0)  # the stored top left corner


def test_read_image__bands_have_to_be_named(path, tifffile):
    with pytest.raises(ImageError, match=r"sentinel\.tif: it has 5 bands; name those for red, green and blue: --bands"):
        read_image(path)


def test_read_stretched__shows_the_first_bands(path, tifffile):
    image, facts = read_stretched(path)
    assert image.size == (3, 2)
    assert facts.high == pytest.approx(2700, abs=5)
    assert has_deep_pixels(path)


def test_fit_pixel_range__of_the_chosen_bands(path, tifffile):
    tifffile.asarray = lambda: VALUES * np.array([1, 1, 1, 1, 10], np.uint16)
    assert fit_pixel_range([path], (1, 1, 1)).value_range == (0, 2500)
    assert fit_pixel_range([path], (5, 5, 5)).value_range == (4000, 29000)
    assert fit_pixel_range([path], (6, 1, 1)).value_range is None


@pytest.mark.parametrize(("axes", "dtype", "words"), [("ZYX", np.uint16, "axes ZYX"), ("YXS", complex, "complex128")])
def test_read_image__no_plane_of_numbers(path, tifffile, axes, dtype, words):
    tifffile.axes, tifffile.asarray = axes, lambda: VALUES.astype(dtype)
    with pytest.raises(ImageError, match=f"sentinel.*{words}"):
        read_image(path, PixelOptions(bands=(1, 2, 3)))


def test_read_image__size_is_checked_before_it_is_decoded(path, tifffile):
    tifffile.imagewidth = 10**9
    with pytest.raises(ImageError, match=r"1000000000 x 2 is more than .* pixels; cut it into tiles"):
        read_image(path, PixelOptions(bands=(1, 2, 3)))


@pytest.mark.parametrize("read", [read_image, read_header, read_stretched])
def test_read__without_tifffile(path, monkeypatch, read):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(ImageError, match=r'sentinel\.tif: .*of many bands.*pip install "fasterrcnn\[tiff\]"'):
        read(path)


def test_read_image__colours_of_sixteen_bits(tmp_path, tifffile):
    # Pillow reads the upper 8 bits alone: with a range, tifffile gives all of them.
    path = write_tiff(tmp_path / "colours.tif", VALUES[..., :3])
    path.write_bytes(path.read_bytes().replace(struct.pack("<HHII", 262, 3, 1, 1), struct.pack("<HHII", 262, 3, 1, 2)))
    path.write_bytes(path.read_bytes().replace(struct.pack("<HHII", 338, 3, 1, 0), struct.pack("<HHII", 339, 3, 1, 1)))
    tifffile.asarray = lambda: VALUES[..., :3]
    with Image.open(path) as image:
        assert image.mode == "RGB"
    assert read_image(path).getpixel((2, 1)) == (9, 10, 10)  # 2500, 2600 and 2700 // 256
    assert read_image(path, PixelOptions((0, 2550))).getpixel((2, 1)) == (250, 255, 255)
