import base64
import io

import numpy as np
import pytest
from PIL import Image

from fasterrcnn.errors import ImageError
from fasterrcnn.reporting import charts
from fasterrcnn.reporting.html import Crop, Listing, inline_image, make_thumbnails, render_parts
from fasterrcnn.reporting.tables import Table


def opened(thumbnail):
    return Image.open(io.BytesIO(base64.b64decode(thumbnail.jpeg)))


def halves(size, split):
    """Red to the left of a column, blue to the right of it."""
    image = Image.new("RGB", size, "blue")
    image.paste("red", (0, 0, split, size[1]))
    return image


def colours(thumbnail):
    """Names of the colours in the middle of the left and of the right half."""
    pixels = np.asarray(opened(thumbnail)).astype(int)
    row = pixels[pixels.shape[0] // 2]
    return ["red" if one[0] > one[2] else "blue" for one in (row[len(row) // 4], row[3 * len(row) // 4])]


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_make_thumbnails__the_whole_and_a_part(tmp_path, name):
    halves((2400, 1200), 800).save(tmp_path / name)
    whole, part = make_thumbnails(tmp_path / name, [Crop(None, 300), Crop((700.0, 100.0, 900.0, 300.0), 100)])
    assert whole.region == (0, 0, 2400, 1200)
    assert opened(whole).size == (300, 150)
    assert colours(whole) == ["red", "blue"]
    assert part.region == (700, 100, 900, 300)
    assert opened(part).size == (100, 100)
    assert colours(part) == ["red", "blue"]


def test_make_thumbnails__small_images_are_not_enlarged(tmp_path):
    halves((40, 20), 20).save(tmp_path / "a.png")
    assert opened(make_thumbnails(tmp_path / "a.png", [Crop(None, 300)])[0]).size == (40, 20)


def test_make_thumbnails__a_part_beyond_the_edge_is_moved_inside(tmp_path):
    halves((400, 200), 200).save(tmp_path / "a.png")
    parts = [
        (-50.0, -50.0, 50.0, 50.0),
        (350.0, 150.0, 450.0, 250.0),
        (-1e6, 0.0, 1e6, 2e6),
        (900.0, 900.0, 900.0, 900.0),
    ]
    regions = [one.region for one in make_thumbnails(tmp_path / "a.png", [Crop(part, 100) for part in parts])]
    assert regions == [(0, 0, 100, 100), (300, 100, 400, 200), (0, 0, 400, 200), (399, 199, 400, 200)]


@pytest.mark.parametrize("size", [(2400, 1200), (300, 300)])
def test_make_thumbnails__regions_are_of_the_upright_image(tmp_path, size):
    """Turned by EXIF 6: the left of the file is the top of the image."""
    exif = Image.Exif()
    exif[274] = 6
    width, height = size
    halves(size, width // 2).save(tmp_path / "a.jpg", exif=exif)
    whole, top = make_thumbnails(
        tmp_path / "a.jpg", [Crop(None, 100), Crop((0.0, 0.0, float(height), width / 2 - 20), 100)]
    )
    assert whole.region == (0, 0, height, width)
    assert colours(top) == ["red", "red"]


@pytest.mark.parametrize("content", [None, b"", b"no image", "truncated"])
def test_make_thumbnails__what_cannot_be_shown(tmp_path, content):
    file = tmp_path / "a.jpg"
    if content == "truncated":
        halves((640, 480), 9).save(file)
        content = file.read_bytes()[:700]
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ImageError, match=r"a\.jpg: cannot be shown"):
        make_thumbnails(file, [Crop(None, 100)])


def test_make_thumbnails__an_absurd_size_is_not_decoded(tmp_path, monkeypatch):
    halves((640, 480), 9).save(tmp_path / "a.jpg")
    monkeypatch.setattr("fasterrcnn.reporting.html._MAX_PIXELS", 640 * 480 - 1)
    with pytest.raises(ImageError, match="cannot be shown"):
        make_thumbnails(tmp_path / "a.jpg", [Crop(None, 100)])


def test_inline_image__png_for_plots_and_jpeg_for_photographs():
    assert inline_image(Image.new("RGB", (8, 8))).startswith("data:image/png;base64,iVBOR")
    assert inline_image(Image.new("RGB", (8, 8)), as_jpeg=True).startswith("data:image/jpeg;base64,/9j/")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert inline_image(Image.fromarray(noise)).startswith("data:image/jpeg;base64,/9j/")


def test_render_parts__needs_nothing_from_elsewhere():
    parts = [charts.bars("Classes", ["cat"], [1]), Table(["a", "b"], [["1", "2"]], title="Splits")]
    page = render_parts("Set", "all of it", parts)
    assert "<svg" in page
    assert '<th scope="col">a</th><th scope="col">b</th>' in page
    assert "<td>1</td><td>2</td>" in page
    assert "color-scheme: light dark" in page
    for loader in ("<script", "<link", "src=", "url("):
        assert loader not in page


@pytest.mark.parametrize("name", ["<b>&\"'", "</svg><script>alert(1)</script>"])
def test_render_parts__names_are_escaped(name):
    parts = [Table([name], [[name]], title=name), Listing(name, name), charts.bars(name, [name], [1])]
    assert name not in render_parts(name, name, parts)
