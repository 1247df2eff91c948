"""Drawn scenes: the same from the same numbers, boxes where the signs are, and files that others can read."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from fasterrcnn.demo import signs
from fasterrcnn.demo.scenes import CLASSES, Scene, draw_scene, write_scenes

SMALL_HW = (120, 160)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    """Enough scenes that a class or an empty scene is missing only if it is never drawn."""
    return [draw_scene(3, index, SMALL_HW) for index in range(60)]


def pixels_of(scene: Scene) -> NDArray[np.int16]:
    """Pixels (height, width, 3), signed so that they can be subtracted."""
    return np.asarray(scene.image, np.int16)


def read_voc(path: Path) -> tuple[list[str], NDArray[np.float64]]:
    """Names and (n, 4) xyxy boxes as written."""
    entries = ElementTree.parse(path).getroot().findall("object")
    names = [entry.findtext("name", "") for entry in entries]
    edges = ("xmin", "ymin", "xmax", "ymax")
    boxes = [[int(entry.findtext(f"bndbox/{edge}", "")) for edge in edges] for entry in entries]
    return names, np.array(boxes, np.float64).reshape(-1, 4)


def test_classes__five_in_alphabetical_order() -> None:
    assert len(CLASSES) == 5
    assert list(CLASSES) == sorted(CLASSES)


def test_draw_scene__same_numbers_same_scene() -> None:
    first, second = draw_scene(7, 2), draw_scene(7, 2)
    assert np.array_equal(pixels_of(first), pixels_of(second))
    assert np.array_equal(first.boxes, second.boxes)
    assert np.array_equal(first.labels, second.labels)


@pytest.mark.parametrize(("seed", "index"), [(8, 2), (7, 3), (2, 7)])
def test_draw_scene__other_numbers_other_scene(seed: int, index: int) -> None:
    # Unrelated images differ nearly everywhere, noise on the same image would not reach this.
    difference = np.abs(pixels_of(draw_scene(7, 2)) - pixels_of(draw_scene(seed, index)))
    assert difference.mean() > 10


@pytest.mark.parametrize("size_hw", [(288, 384), (96, 96), (96, 300), (240, 100)])
def test_draw_scene__size_and_types(size_hw: tuple[int, int]) -> None:
    for index in range(5):
        scene = draw_scene(0, index, size_hw)
        assert scene.image.mode == "RGB"
        assert scene.image.size == size_hw[::-1]
        assert scene.boxes.dtype == np.float32
        assert scene.labels.dtype == np.int64
        assert scene.boxes.shape == (len(scene.labels), 4)


def test_draw_scene__too_small_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"\(40, 384\) pixels is too small; use at least 96"):
        draw_scene(0, 0, (40, 384))


def test_draw_scene__boxes_inside_and_not_tiny(scenes: list[Scene]) -> None:
    boxes = np.concatenate([scene.boxes for scene in scenes])
    assert (boxes >= 0).all()
    assert (boxes[:, [2, 3]] <= SMALL_HW[::-1]).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= 16).all()


def test_draw_scene__signs_hardly_overlap(scenes: list[Scene]) -> None:
    for boxes in (scene.boxes for scene in scenes):
        top_left = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
        bottom_right = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
        shared = np.clip(bottom_right - top_left, 0, None).prod(axis=2)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        iou = shared / (areas[:, None] + areas[None] - shared)
        assert (iou[~np.eye(len(boxes), dtype=bool)] < 0.1).all()


def test_draw_scene__all_classes_and_counts(scenes: list[Scene]) -> None:
    assert set(np.concatenate([scene.labels for scene in scenes]).tolist()) == set(range(len(CLASSES)))
    # Few, but not none, are empty; a small scene may lack room for the fifth sign.
    counts = [len(scene.labels) for scene in scenes]
    assert 0 < counts.count(0) < 0.2 * len(counts)
    assert {1, 2, 3, 4} <= set(counts) <= set(range(6))


def test_draw_scene__boxes_are_where_the_signs_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def paint_magenta(pen: signs.SignPen, _: np.random.Generator) -> None:
        pen.rectangle(0.0, 0.0, 1.0, 1.0, (255, 0, 255))

    # Nothing else in a scene is magenta, so the colour marks the signs.
    monkeypatch.setattr(signs, "SIGN_PAINTERS", dict.fromkeys(CLASSES, paint_magenta))
    for index in range(10):
        scene = draw_scene(11, index)
        red, green, blue = np.moveaxis(np.asarray(scene.image, np.float32), 2, 0)
        magenta = np.minimum(red, blue) - green
        around, inside_any = [], np.zeros(magenta.shape, bool)
        for x1, y1, x2, y2 in np.rint(scene.boxes).astype(int).tolist():
            inside_any[y1:y2, x1:x2] = True
            around.append((slice(max(0, y1 - 12), y2 + 12), slice(max(0, x1 - 12), x2 + 12)))
        for (x1, y1, x2, y2), window in zip(np.rint(scene.boxes).astype(int).tolist(), around, strict=True):
            outside = magenta[window][~inside_any[window]]
            assert magenta[y1:y2, x1:x2].mean() > outside.mean() + 15


def test_write_scenes__voc_files_equal_the_scenes(tmp_path: Path) -> None:
    write_scenes(tmp_path / "signs", train=6, val=2, test=1, seed=5, size_hw=SMALL_HW)
    stems = set()
    for split, count in (("train", 6), ("val", 2), ("test", 1)):
        listed = (tmp_path / f"signs/ImageSets/Main/{split}.txt").read_text().split()
        assert len(listed) == count
        stems |= set(listed)
    assert len(stems) == 9
    assert {path.stem for path in (tmp_path / "signs/JPEGImages").iterdir()} == stems
    assert {path.stem for path in (tmp_path / "signs/Annotations").iterdir()} == stems
    for stem in stems:
        scene = draw_scene(5, int(stem), SMALL_HW)
        names, boxes = read_voc(tmp_path / f"signs/Annotations/{stem}.xml")
        assert names == [CLASSES[label] for label in scene.labels]
        outwards = np.sign(boxes - scene.boxes) * [-1, -1, 1, 1]
        assert (outwards >= 0).all()
        assert (np.abs(boxes - scene.boxes) < 1).all()
        with Image.open(tmp_path / f"signs/JPEGImages/{stem}.jpg") as image:
            assert image.size == SMALL_HW[::-1]
            # JPEG changes single pixels; smoothed images agree.
            smooth = ImageFilter.BoxBlur(3)
            written, drawn = (np.asarray(one.filter(smooth), np.int16) for one in (image, scene.image))
        assert np.abs(written - drawn).mean() < 3


def test_write_scenes__annotation_names_file_and_size(tmp_path: Path) -> None:
    write_scenes(tmp_path, train=1, val=0, test=0, size_hw=SMALL_HW)
    (path,) = (tmp_path / "Annotations").iterdir()
    root = ElementTree.parse(path).getroot()
    assert (tmp_path / "JPEGImages" / root.findtext("filename", "")).is_file()
    assert [root.findtext(f"size/{name}") for name in ("height", "width", "depth")] == ["120", "160", "3"]
    assert (tmp_path / "ImageSets/Main/val.txt").read_text() == ""


def test_write_scenes__same_bytes_and_independent_of_count(tmp_path: Path) -> None:
    write_scenes(tmp_path / "few", train=1, val=1, test=1, size_hw=SMALL_HW)
    write_scenes(tmp_path / "more", train=3, val=2, test=2, size_hw=SMALL_HW)
    few = [path for path in (tmp_path / "few").rglob("*") if path.suffix in {".jpg", ".xml"}]
    assert len(few) == 6
    for path in few:
        assert path.read_bytes() == (tmp_path / "more" / path.relative_to(tmp_path / "few")).read_bytes()
