import base64
import io

import numpy as np
import pytest
from PIL import Image

from fasterrcnn.errors import ImageError
from fasterrcnn.evaluation.page.thumbnails import Wanted, cut


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
def test_cut__the_whole_and_a_part(tmp_path, name):
    halves((2400, 1200), 800).save(tmp_path / name)
    whole, part = cut(tmp_path / name, [Wanted(None, 300), Wanted((700.0, 100.0, 900.0, 300.0), 100)])
    assert whole.region == (0, 0, 2400, 1200)
    assert opened(whole).size == (300, 150)
    assert colours(whole) == ["red", "blue"]
    assert part.region == (700, 100, 900, 300)
    assert opened(part).size == (100, 100)
    assert colours(part) == ["red", "blue"]


def test_cut__small_images_are_not_enlarged(tmp_path):
    halves((40, 20), 20).save(tmp_path / "a.png")
    assert opened(cut(tmp_path / "a.png", [Wanted(None, 300)])[0]).size == (40, 20)


def test_cut__a_part_beyond_the_edge_is_moved_inside(tmp_path):
    halves((400, 200), 200).save(tmp_path / "a.png")
    parts = [
        (-50.0, -50.0, 50.0, 50.0),
        (350.0, 150.0, 450.0, 250.0),
        (-1e6, 0.0, 1e6, 2e6),
        (900.0, 900.0, 900.0, 900.0),
    ]
    regions = [one.region for one in cut(tmp_path / "a.png", [Wanted(part, 100) for part in parts])]
    assert regions == [(0, 0, 100, 100), (300, 100, 400, 200), (0, 0, 400, 200), (399, 199, 400, 200)]


@pytest.mark.parametrize("size", [(2400, 1200), (300, 300)])
def test_cut__regions_are_of_the_upright_image(tmp_path, size):
    """Turned by EXIF 6: the left of the file is the top of the image."""
    exif = Image.Exif()
    exif[274] = 6
    width, height = size
    halves(size, width // 2).save(tmp_path / "a.jpg", exif=exif)
    whole, top = cut(tmp_path / "a.jpg", [Wanted(None, 100), Wanted((0.0, 0.0, float(height), width / 2 - 20), 100)])
    assert whole.region == (0, 0, height, width)
    assert colours(top) == ["red", "red"]


@pytest.mark.parametrize("content", [None, b"", b"no image", "truncated"])
def test_cut__what_cannot_be_shown(tmp_path, content):
    file = tmp_path / "a.jpg"
    if content == "truncated":
        halves((640, 480), 9).save(file)
        content = file.read_bytes()[:700]
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ImageError, match=r"a\.jpg: cannot be shown"):
        cut(file, [Wanted(None, 100)])


def test_cut__an_absurd_size_is_not_decoded(tmp_path, monkeypatch):
    halves((640, 480), 9).save(tmp_path / "a.jpg")
    monkeypatch.setattr("fasterrcnn.evaluation.page.thumbnails.MAX_PIXELS", 640 * 480 - 1)
    with pytest.raises(ImageError, match="cannot be shown"):
        cut(tmp_path / "a.jpg", [Wanted(None, 100)])
