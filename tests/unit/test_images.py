"""Files of many kinds against Pillow."""

import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch.testing import assert_close
from torchvision.transforms.functional import pil_to_tensor

from fasterrcnn import images
from fasterrcnn.errors import ImageError
from fasterrcnn.images import read_image, read_size_hw, read_stretched, upright_rgb
from fasterrcnn.pixel_options import PixelOptions

SIZE_HW = (40, 24)
ORIENTATION = 274


def oracle(path) -> torch.Tensor:
    """Pillow's upright RGB."""
    with Image.open(path) as image:
        pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB")).copy()
    return torch.from_numpy(pixels).permute(2, 0, 1)


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


def check(path, tolerance: int = 0) -> torch.Tensor:
    """Pixels and size agree with Pillow's; lossy formats may round differently."""
    pixels, expected = pil_to_tensor(read_image(path)), oracle(path)
    assert pixels.dtype == torch.uint8
    assert_close(pixels.int(), expected.int(), rtol=0, atol=tolerance)
    assert read_size_hw(path) == tuple(expected.shape[1:])
    return pixels


@pytest.mark.parametrize(
    ("suffix", "mode", "options", "tolerance"),
    [
        (".jpg", "RGB", {"quality": 95, "subsampling": 0}, 2),
        (".jpg", "RGB", {"quality": 95, "subsampling": 0, "progressive": True}, 2),
        (".jpg", "L", {"quality": 95}, 2),
        (".jpg", "CMYK", {"quality": 95}, 4),
        (".png", "RGB", {}, 0),
        (".png", "P", {}, 0),
        (".png", "L", {}, 0),
        (".png", "1", {}, 0),
        (".webp", "RGB", {"lossless": True}, 0),
        (".webp", "RGB", {"quality": 90}, 2),
        (".tif", "RGB", {}, 0),
        (".tif", "CMYK", {}, 0),
        (".bmp", "RGB", {}, 0),
        (".gif", "P", {}, 0),
        (".ppm", "RGB", {}, 0),
    ],
)
def test_read_image__as_pillow_does(tmp_path, photo, suffix, mode, options, tolerance):
    path = tmp_path / f"photo{suffix}"
    photo(SIZE_HW).convert(mode).save(path, **options)
    check(path, tolerance)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("suffix", "tolerance"), [(".jpg", 2), (".png", 0)])
def test_read_image__exif_orientation(tmp_path, photo, suffix, tolerance, orientation):
    path = tmp_path / f"photo{suffix}"
    options = {"quality": 95, "subsampling": 0} if suffix == ".jpg" else {}
    photo(SIZE_HW).save(path, exif=exif(orientation), **options)
    pixels = check(path, tolerance)
    assert tuple(pixels.shape[1:]) == (SIZE_HW if orientation < 5 else SIZE_HW[::-1])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_read_image__exif_orientation_of_tiff(tmp_path, photo, orientation):
    path = tmp_path / "photo.tif"
    photo(SIZE_HW).save(path, exif=exif(orientation))
    check(path)


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_read_image__exif_orientation_of_webp(tmp_path, photo, orientation):
    path = tmp_path / "photo.webp"
    photo(SIZE_HW).save(path, exif=exif(orientation), lossless=True)
    check(path)


def test_read_image__orientation_6_by_hand(tmp_path):
    # The camera was turned: the stored left column is the top row of the upright image.
    stored = np.zeros((2, 3, 3), np.uint8)
    stored[:, 0] = (255, 0, 0)
    path = tmp_path / "photo.png"
    Image.fromarray(stored).save(path, exif=exif(6))
    pixels = pil_to_tensor(read_image(path))
    assert pixels.shape == (3, 3, 2)
    assert pixels[:, 0].tolist() == [[255, 255], [0, 0], [0, 0]]
    assert pixels[:, 1:].max() == 0


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_read_image__transparency_is_dropped(tmp_path, photo, suffix):
    path = tmp_path / f"photo{suffix}"
    image = photo(SIZE_HW)
    with_alpha = image.copy()
    with_alpha.putalpha(Image.linear_gradient("L").resize(image.size))
    with_alpha.save(path, **({"lossless": True, "exact": True} if suffix == ".webp" else {}))
    assert_close(pil_to_tensor(read_image(path)), pil_to_tensor(image))


def test_read_image__palette_with_transparent_colour(tmp_path, photo):
    path = tmp_path / "photo.png"
    image = photo(SIZE_HW).quantize(16)
    image.save(path, transparency=3)
    assert_close(pil_to_tensor(read_image(path)), pil_to_tensor(image.convert("RGB")))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_read_image__sixteen_bit_grey_is_scaled(tmp_path, suffix):
    values = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    path = tmp_path / f"grey{suffix}"
    Image.fromarray(values).save(path)
    expected = torch.from_numpy((values // 257).astype(np.uint8)).expand(3, 16, 16)
    assert_close(pil_to_tensor(read_image(path)).int(), expected.int(), rtol=0, atol=1)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_read_image__sixteen_bit_grey_of_a_dark_image(tmp_path, suffix):
    path = tmp_path / f"grey{suffix}"
    Image.fromarray(np.full((4, 4), 200, np.uint16)).save(path)
    assert pil_to_tensor(read_image(path)).max() <= 1  # 200 of 65,535 is black


def test_read_image__warns_of_nothing(tmp_path, photo):
    path = tmp_path / "photo.jpg"
    photo(SIZE_HW).save(path)
    program = (
        "import sys, warnings; from pathlib import Path; from fasterrcnn.images import read_image;"
        "warnings.simplefilter('error'); read_image(Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", program, path], check=True, capture_output=True)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1)])
def test_read_image__tiny_images(tmp_path, shape):
    path = tmp_path / "tiny.png"
    Image.new("RGB", shape[::-1], (1, 2, 3)).save(path)
    assert_close(
        pil_to_tensor(read_image(path)), torch.tensor([1, 2, 3], dtype=torch.uint8).view(3, 1, 1).expand(3, *shape)
    )


@pytest.mark.parametrize("wrong", [".jpg", ".bmp", ".txt", ""])
def test_read_image__extension_does_not_matter(tmp_path, photo, wrong):
    path = tmp_path / f"photo{wrong}"
    photo(SIZE_HW).save(path, format="PNG")
    check(path)


@pytest.mark.parametrize(("suffix", "options"), [(".jpg", {}), (".png", {}), (".webp", {}), (".bmp", {}), (".tif", {})])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_read_image__truncated(tmp_path, photo, suffix, options, share):
    path = tmp_path / f"photo{suffix}"
    photo(SIZE_HW).save(path, **options)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ImageError, match=rf"photo\{suffix}: (damaged image|not an image)"):
        pil_to_tensor(read_image(path))


@pytest.mark.parametrize("read", [read_image, read_size_hw])
def test_read__not_images(tmp_path, read):
    text, empty = tmp_path / "notes.jpg", tmp_path / "empty.jpg"
    text.write_text("no image")
    empty.touch()
    for path in (text, empty):
        with pytest.raises(ImageError, match=rf"{path.name}: not an image that can be decoded"):
            read(path)
    with pytest.raises(ImageError, match=r"absent\.jpg: no such file"):
        read(tmp_path / "absent.jpg")
    with pytest.raises(ImageError):
        read(tmp_path)


def test_read_image__header_that_claims_too_much(tmp_path, photo, monkeypatch):
    path = tmp_path / "photo.png"
    photo(SIZE_HW).save(path)
    monkeypatch.setattr(images, "MAX_DECODED_PIXELS", 40 * 24)
    pil_to_tensor(read_image(path))
    monkeypatch.setattr(images, "MAX_DECODED_PIXELS", 40 * 24 - 1)
    with pytest.raises(ImageError, match=r"photo\.png: 24 x 40 is more than 959 pixels; cut it into tiles"):
        pil_to_tensor(read_image(path))


@pytest.mark.parametrize("side", [10_000, 13_000])
def test_read_image__large_images_below_the_limit(tmp_path, side):
    path = tmp_path / "large.png"
    Image.new("1", (side, side)).save(path)
    assert side * side < images.MAX_DECODED_PIXELS
    assert read_size_hw(path) == (side, side)


def test_read_image__float_pixels_of_an_unknown_range(tmp_path):
    path = tmp_path / "float.tif"
    Image.fromarray(np.linspace(280, 310, 16, dtype=np.float32).reshape(4, 4)).save(path)
    words = r"float\.tif: float values from 280 to 310; name those .* --pixel-range 280 310"
    with pytest.raises(ImageError, match=words):
        read_image(path)
    assert np.asarray(read_image(path, PixelOptions((280, 310))))[-1, -1, 0] == 255


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_read_image__range_of_the_options(tmp_path, mode):
    dtype = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
    path = tmp_path / "deep.tif"
    Image.fromarray(np.array([[0, 1000, 2020, 3040, 60000]], dtype)).save(path)
    with Image.open(path) as image:
        assert image.mode == mode
    assert np.asarray(read_image(path, PixelOptions((1000, 3040))))[0, :, 0].tolist() == [0, 0, 127, 255, 255]


def test_read_image__range_leaves_eight_bits_alone(tmp_path, photo):
    path = tmp_path / "photo.png"
    photo(SIZE_HW).save(path)
    assert_close(pil_to_tensor(read_image(path, PixelOptions((0, 10)))), oracle(path))


def test_read_image__bands(tmp_path):
    path = tmp_path / "bands.png"
    Image.new("RGBA", (2, 2), (1, 2, 3, 4)).save(path)
    assert read_image(path, PixelOptions(bands=(4, 3, 2))).getpixel((0, 0)) == (4, 3, 2)
    with pytest.raises(ImageError, match=r"bands\.png: it has 4 bands, not those of --bands 5 3 2"):
        read_image(path, PixelOptions(bands=(5, 3, 2)))


def test_read_stretched__own_range(tmp_path):
    path = tmp_path / "thermal.png"
    Image.fromarray(np.linspace(30000, 31020, 256).astype(np.uint16).reshape(16, 16)).save(path)
    image, facts = read_stretched(path)
    assert facts.default == (0, 65535)
    assert facts.levels == 5  # 116 to 120
    assert len(np.unique(np.asarray(image))) > 200


def test_read_stretched__nothing_to_stretch(tmp_path, photo):
    photo(SIZE_HW).save(tmp_path / "photo.png")
    Image.fromarray(np.full((4, 4), 700, np.uint16)).save(tmp_path / "plain.png")
    for name in ("photo.png", "plain.png"):
        image, facts = read_stretched(tmp_path / name)
        assert (image.mode, facts) == ("RGB", None)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.jfif", "JPEG"), ("a.jpe", "JPEG"), ("a.tga", "TGA"), ("a.pgm", "PPM"), ("a.avif", "AVIF"), ("a.jp2", None)],
)
def test_image_files__every_kind(tmp_path, photo, name, kind):
    photo(SIZE_HW).save(tmp_path / name, format=kind)
    assert images.image_files(tmp_path) == [tmp_path / name]
    assert read_image(tmp_path / name).size == SIZE_HW[::-1]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file"),
        (b"\0\0\0\x18ftypheic" + bytes(200), "HEIC needs a plug-in: pip install pillow-heif"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing; save it as PNG"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<svg/>", "an SVG drawing; save it as PNG"),
        (b"\0\5\x16\7", "data of macOS about another file; delete it"),
        (b"%PDF-1.7", "a PDF document; save its pages as PNG"),
        (b"<!DOCTYPE html><html>", "a web page, perhaps of a failed download"),
        (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS; git lfs pull gets the file"),
        (bytes(128) + b"DICM", "a DICOM file; save it as PNG with 16 bits"),
    ],
)
def test_read_image__names_what_it_is_instead(tmp_path, content, reason):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert str(caught.value) == f"{path}: not an image that can be decoded ({reason})"


def test_read_image__heic_by_the_plug_in(tmp_path, photo, monkeypatch):
    path = tmp_path / "phone.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(200))
    plug_in = ModuleType("pillow_heif")
    plug_in.register_heif_opener = lambda: monkeypatch.setattr(Image, "open", lambda source: photo(SIZE_HW))
    monkeypatch.setitem(sys.modules, "pillow_heif", plug_in)
    assert read_image(path).size == SIZE_HW[::-1]


@pytest.mark.parametrize("name", ["pages.tif", "moving.gif", "moving.png", "moving.webp"])
def test_count_frames__the_first_is_read(tmp_path, name):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    first, *others = [Image.new("RGB", (16, 16), colour) for colour in colours]
    first.save(tmp_path / name, save_all=True, append_images=others)
    assert images.count_frames(tmp_path / name) == 3
    red, green, _ = read_image(tmp_path / name).getpixel((8, 8))
    assert (red > 240, green < 20) == (True, True)


def test_count_frames__of_a_single_image(tmp_path, photo):
    photo(SIZE_HW).save(tmp_path / "photo.png")
    (tmp_path / "empty.gif").touch()
    assert [images.count_frames(tmp_path / name) for name in ("photo.png", "empty.gif", "absent.tif")] == [1, 1, 1]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_read_header__stored_and_upright_size(tmp_path, photo, suffix):
    path = tmp_path / f"photo{suffix}"
    photo(SIZE_HW).save(path, exif=exif(6))
    header = images.read_header(path)
    assert (header.orientation, header.size_hw, header.stored_hw) == (6, SIZE_HW[::-1], SIZE_HW)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr", "HSV"])
def test_from_pil__any_mode(photo, mode):
    image = photo(SIZE_HW).convert(mode)
    expected = torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)
    assert_close(pil_to_tensor(upright_rgb(image)), expected)


def test_read_image__real_photographs(shared_data):
    for path in sorted((shared_data / "photos").iterdir()):
        if path.suffix in (".png", ".jpg"):
            pixels, expected = pil_to_tensor(read_image(path)), oracle(path)
            assert pixels.shape == expected.shape
            assert (pixels.float() - expected.float()).abs().mean() < 1


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "I"])
def test_upright_rgb__any_mode_gives_rgb(mode):
    image = Image.new(mode, (4, 3))
    assert upright_rgb(image).mode == "RGB"
    assert upright_rgb(image).size == (4, 3)


def test_upright_rgb__turns():
    image = Image.new("RGB", (4, 3))
    image.getexif()[274] = 6
    assert upright_rgb(image).size == (3, 4)


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (65535, 255), (32896, 128), (257, 1)])
def test_upright_rgb__sixteen_bits(value, expected):
    image = Image.fromarray(np.full((2, 2), value, np.uint16))
    assert upright_rgb(image).getpixel((0, 0)) == (expected,) * 3


def test_upright_rgb__integers_of_eight_bits():
    image = Image.fromarray(np.array([[0, 200]], np.int32))
    assert upright_rgb(image).getpixel((1, 0)) == (200, 200, 200)


def test_upright_rgb__float_pixels_of_an_unknown_range():
    with pytest.raises(ValueError, match="float values from -3 to 5; name those"):
        upright_rgb(Image.fromarray(np.array([[-3, 5]], np.float32)))


@pytest.mark.parametrize(
    ("mode", "expected"), [("I;16", True), ("I;16B", True), ("I", True), ("F", True), ("RGB", False), ("L", False)]
)
def test_is_deep(mode, expected):
    assert images.is_deep(Image.new(mode, (1, 1))) == expected


def test_other_files__in_a_few_words(tmp_path):
    for name in ("a.txt", "b.txt", "c.TXT", "logo.svg", "._photo.jpg", ".DS_Store", "README", "photo.jfif"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    assert images.other_files(tmp_path) == "._photo.jpg, README, a.txt and 2 more .txt, logo.svg"
    assert images.other_files(tmp_path, {".txt", ""}) == "._photo.jpg, logo.svg"
    assert images.other_files(tmp_path / "folder") == ""
