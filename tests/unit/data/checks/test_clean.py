"""Sound data of many kinds, in which nothing may be found."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fasterrcnn.config import InputConfig
from fasterrcnn.data.checks import check_data
from fasterrcnn.data.formats import read_data

SQUARE, MANY = [(200, 200)], [(120, 160), (480, 640), (200, 150)]


def ground(kind, rng, height, width):
    if kind == "noise":
        return rng.integers(0, 255, (height, width, 3)).astype(np.uint8)
    if kind == "blobs":
        coarse = Image.fromarray(rng.integers(0, 255, (4, 5, 3), dtype=np.uint8))
        return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    if kind == "flat":
        return np.full((height, width, 3), 120, np.uint8)
    slope = np.linspace(*((0, 255) if kind == "gradient" else sorted(rng.integers(0, 255, 2))), width)
    return np.tile(slope[None, :, None], (height, 1, 3)).astype(np.uint8)


def write(root, kind, classes, sizes_hw, count, suffix, side=(10, 80), over=0.0):
    """Drawn rectangles that do not touch; every fifth image is empty, and every fourth pair is to validate with."""
    rng = np.random.default_rng(count)
    rows, drawn = [], {"train": 0, "val": 0}
    for number in range(count):
        height, width = sizes_hw[number % len(sizes_hw)]
        image = Image.fromarray(ground(kind, rng, height, width))
        brush = ImageDraw.Draw(image)
        split = "val" if number // 2 % 4 == 3 else "train"
        boxes, labels = [], []
        for _ in range(0 if number % 5 == 4 else 4):
            w, h = rng.integers(side[0], min(side[1], height // 2) + 1, 2)
            x, y = rng.integers(0, (width - w + 1, height - h + 1))
            if all(x >= b[2] or x + w <= b[0] or y >= b[3] or y + h <= b[1] for b in boxes):
                label = drawn[split] % len(classes)
                drawn[split] += 1
                brush.rectangle((x, y, x + w - 1, y + h - 1), tuple(np.random.default_rng(label).integers(0, 255, 3)))
                boxes.append([float(x) - over, float(y) - over, float(x + w) + over, float(y + h) + over])
                labels.append(classes[label])
        path = root / f"{number:03}{suffix}"
        image.save(path)
        rows.append({"image": path, "boxes": boxes, "labels": labels, "split": split})
    return rows


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("sizes_hw", [SQUARE, MANY])
@pytest.mark.parametrize("kind", ["noise", "blobs", "flat", "gradient", "gradients"])
def test_check_data__clean_whatever_the_ground(tmp_path, kind, sizes_hw, suffix):
    data = read_data(write(tmp_path, kind, ["a", "b", "c"], sizes_hw, 24, suffix))
    assert check_data(data).findings == []


@pytest.mark.parametrize(
    "classes",
    [["a"], ["sign 1", "sign 2"], ["cat", "car"], ["type a", "type b"], [f"kind {number}" for number in range(12)]],
)
def test_check_data__clean_whatever_the_classes(tmp_path, classes):
    data = read_data(write(tmp_path, "noise", classes, SQUARE, 60, ".jpg", side=(10, 40)))
    assert check_data(data).findings == []


@pytest.mark.parametrize("count", [3, 300])
def test_check_data__clean_whatever_the_number(tmp_path, count):
    rows = write(tmp_path, "noise", ["a", "b"], [(64, 96)], count, ".png", side=(10, 30))
    without_splits = [{**row, "split": ""} for row in rows]
    assert check_data(read_data(without_splits)).findings == []


def test_check_data__clean_though_small_and_at_the_border(tmp_path):
    """Ten pixels of 200 are enough for any model, and less than a pixel over the border is no mistake."""
    rows = write(tmp_path, "noise", ["a", "b"], SQUARE, 24, ".png", side=(10, 12), over=0.9)
    assert check_data(read_data(rows), InputConfig(short_side=320, long_side=640)).findings == []
