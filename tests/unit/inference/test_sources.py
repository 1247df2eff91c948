import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close
from torchvision.transforms.functional import pil_to_tensor

from fasterrcnn.errors import DataError, ImageError, UsageError
from fasterrcnn.inference.sources import find_files, is_many, load_image
from fasterrcnn.pixel_options import PixelOptions


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a.JPG", "c.txt", "d.webp"):
        (tmp_path / name).touch()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "e.png").touch()
    return tmp_path


def test_find_files__folder_is_not_searched_below(folder):
    assert [p.name for p in find_files(folder)] == ["a.JPG", "b.png", "d.webp"]
    assert is_many(folder)
    assert is_many(str(folder))


def test_find_files__globs(folder):
    assert [p.name for p in find_files(f"{folder}/*.png")] == ["b.png"]
    assert [p.name for p in find_files(f"{folder}/**/*.png")] == ["b.png", "e.png"]
    assert [p.name for p in find_files(folder / "[ab].*")] == ["a.JPG", "b.png"]
    assert is_many(f"{folder}/*.png")


def test_find_files__relative_glob(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert [str(p) for p in find_files("sub/*.png")] == ["sub/e.png"]


def test_find_files__one_file(folder):
    assert find_files(folder / "b.png") == [folder / "b.png"]
    assert not is_many(folder / "b.png")


def test_find_files__name_with_brackets_is_a_file(tmp_path):
    path = tmp_path / "photo[1].png"
    path.touch()
    assert not is_many(path)
    assert find_files(path) == [path]


def test_find_files__nothing_there(tmp_path):
    with pytest.raises(DataError, match=r"absent\.png: no such file or folder"):
        find_files(tmp_path / "absent.png")
    with pytest.raises(DataError, match=r"\*\.png: no file matches"):
        find_files(tmp_path / "*.png")
    with pytest.raises(DataError, match="no images in this folder; in it are: no files"):
        find_files(tmp_path)
    (tmp_path / "drawing.svg").touch()
    with pytest.raises(DataError, match=r"no images in this folder; in it are: drawing\.svg"):
        find_files(tmp_path)


@pytest.mark.parametrize("source", [np.zeros((2, 2, 3), np.uint8), torch.zeros(3, 2, 2), Image.new("L", (2, 2)), 7])
def test_is_many__images_are_one(source):
    assert not is_many(source)


def test_load_image__kinds_agree(tmp_path, photo):
    image = photo((20, 30))
    path = tmp_path / "a.png"
    image.save(path)
    expected = pil_to_tensor(image)
    array = np.asarray(image)
    alpha = np.asarray(image.convert("RGBA"))
    sources = (path, str(path), path.read_bytes(), image, array, expected, image.convert("RGBA"), alpha)
    for source in (*sources, array[::-1][::-1], torch.from_numpy(alpha.copy()).permute(2, 0, 1)):
        assert_close(load_image(source).pixels, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_load_image__float_tensors(dtype):
    image = torch.linspace(0, 1, 12, dtype=dtype).view(3, 2, 2)
    assert_close(load_image(image).pixels, image.float())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((4, 4, 2), np.uint8), r"height x width x 3 \(RGB\), .* not uint8 \(4, 4, 2\)"),
        (np.zeros((3, 4, 5), np.uint8), r"not uint8 \(3, 4, 5\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"not uint8 \(1, 4, 4, 3\)"),
        (np.zeros((4, 4, 3), np.int64), r"not int64 \(4, 4, 3\)"),
        (np.full((4, 4, 3), 255.0), r"must lie in 0\.\.1, not 255\.\.255: divide it by 255\?"),
        (torch.zeros(5, 4, 3), r"a tensor must be 3 x height x width \(RGB\), not \(5, 4, 3\)"),
        (torch.zeros(1, 3, 4, 4), r"not \(1, 3, 4, 4\)"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), r"uint8 0\.\.255 or float 0\.\.1, not torch.int64"),
        (torch.full((3, 4, 4), 255.0), r"must lie in 0\.\.1, not 255\.\.255: divide it by 255\?"),
        (torch.full((3, 4, 4), -1.0), r"must lie in 0\.\.1, not -1\.\.-1"),
        (torch.full((3, 4, 4), torch.nan), r"must lie in 0\.\.1, not nan"),
        (7, "cannot read an image from a int"),
        (None, "cannot read an image from a NoneType"),
    ],
)
def test_load_image__wrong_things(source, message):
    # Without the check of shapes: the function itself reports what is wrong.
    with pytest.raises(UsageError, match=message):
        getattr(load_image, "__wrapped__", load_image)(source)


@pytest.mark.parametrize("source", [np.zeros((0, 4, 3), np.uint8), torch.zeros(3, 0, 4)])
def test_load_image__no_pixels(source):
    with pytest.raises(UsageError):
        load_image(source)


def test_load_image__broken_files(tmp_path):
    with pytest.raises(ImageError, match=r"absent\.png: no such file"):
        load_image(tmp_path / "absent.png")
    with pytest.raises(ImageError, match="the Pillow image cannot be decoded"):
        load_image(Image.fromarray(np.full((2, 2), 300.0, np.float32)))


def test_load_image__array_of_sixteen_bits():
    levels = load_image(np.array([[0, 4095]], np.uint16), PixelOptions((0, 4095))).pixels
    assert levels.tolist() == [[[0, 255]]] * 3
