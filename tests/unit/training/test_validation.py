from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close
from torchvision.transforms.functional import pil_to_tensor

from fasterrcnn.data.annotations import AnnotatedImage
from fasterrcnn.detections import Detections
from fasterrcnn.errors import ImageError, UsageError
from fasterrcnn.reporting.drawing import colour_of
from fasterrcnn.structures import Target, no_boxes
from fasterrcnn.training import validation
from fasterrcnn.training.validation import draw_batch, draw_comparison

CLASSES = ("cat", "dog")
HIT, INVENTED, MISSED, NOT_COUNTED = (
    pen.colour for pen in (validation._FOUND, validation._FALSE_POSITIVE, validation._MISSED, validation._NOT_COUNTED)
)
OBJECT = [10, 10, 30, 30]
HALF = [10, 10, 30, 20]  # IoU 0.5 with the object
LESS = [10, 10, 30, 19]
FAR = [60, 60, 80, 80]


@pytest.fixture
def record(tmp_path) -> AnnotatedImage:
    """A black image of 100 x 100 with a cat, a dog, and a difficult cat."""
    path = tmp_path / "scene.png"
    Image.new("RGB", (100, 100)).save(path)
    boxes = np.array([OBJECT, FAR, [10, 60, 30, 80]], np.float32)
    return AnnotatedImage(path, 1, (100, 100), boxes, np.array([0, 1, 0]), np.array([False, False, True]))


def detections(rows, image_hw=(100, 100)) -> Detections:
    """Rows of (box, label, score)."""
    return Detections(
        np.array([box for box, _, _ in rows], np.float32).reshape(-1, 4),
        np.array([score for _, _, score in rows], np.float32),
        np.array([label for _, label, _ in rows], np.int64),
        CLASSES,
        image_hw,
    )


def colours_of(record, found, **options) -> dict[tuple[int, int, int], bool]:
    """Which colours are in the image itself, without legend and title."""
    sheet = np.asarray(draw_comparison([record], [found], CLASSES, **options))[-102:-2, 2:102]
    return {colour: bool((sheet == colour).all(axis=2).any()) for colour in (HIT, INVENTED, MISSED, NOT_COUNTED)}


def test_draw_comparison__found_missed_and_invented(record):
    found = detections([(OBJECT, 0, 0.9), ([60, 10, 80, 30], 0, 0.8)])
    sheet = np.asarray(draw_comparison([record], [found], CLASSES))[-102:-2, 2:102]
    assert tuple(sheet[20, 10]) == HIT
    assert tuple(sheet[20, 60]) == INVENTED
    assert tuple(sheet[79, 60]) == MISSED
    assert tuple(sheet[79, 10]) == NOT_COUNTED


@pytest.mark.parametrize(
    ("rows", "hit", "invented", "missed"),
    [
        ([], False, False, True),
        ([(OBJECT, 0, 0.9), (FAR, 1, 0.9)], True, False, False),
        ([(OBJECT, 1, 0.9), (FAR, 0, 0.9)], False, True, True),
        ([([10, 60, 30, 80], 0, 0.9)], False, False, True),  # the difficult one: not counted
        ([(OBJECT, 0, 0.9), (FAR, 1, 0.49)], True, False, True),  # below the score
        ([(OBJECT, 0, 0.9), (FAR, 1, 0.5)], True, False, False),
    ],
)
def test_draw_comparison__colours(record, rows, hit, invented, missed):
    expected = {HIT: hit, INVENTED: invented, MISSED: missed, NOT_COUNTED: True}
    assert colours_of(record, detections(rows)) == expected


def test_draw_comparison__lower_score(record):
    rows = [(OBJECT, 0, 0.9), (FAR, 1, 0.3)]
    assert colours_of(record, detections(rows), score=0.2)[MISSED] is False


def test_draw_comparison__no_objects_and_no_predictions(record):
    empty = record.select(np.zeros(3, np.bool_))
    assert not any(colours_of(empty, detections([])).values())
    assert colours_of(empty, detections([(OBJECT, 0, 0.9)]))[INVENTED]


def test_draw_comparison__large_images_are_shrunk_before_boxes_are_drawn(tmp_path):
    path = tmp_path / "large.png"
    Image.new("RGB", (1200, 2400)).save(path)
    record = AnnotatedImage(
        path, 1, (2400, 1200), np.array([[400, 400, 800, 1600]], np.float32), np.array([0]), np.array([False])
    )
    found = detections([([400, 400, 800, 1600], 0, 0.9)], (2400, 1200))
    cell = np.asarray(draw_comparison([record], [found], CLASSES))[-482:-2, 2:242]
    hit = (cell == HIT).all(axis=2)
    assert np.flatnonzero(hit[200]).tolist() == [80, 81, 159, 160]  # two pixels at a fifth of the places
    assert np.flatnonzero(hit.any(axis=1)).max() == 320


def test_draw_comparison__frames_of_ground_truth_and_predictions_may_differ(record):
    """Annotations of an image that was resized later lie in another frame than what is found in it."""
    halved = replace(record, boxes=record.boxes / 2, size_hw=(50, 50))
    rows = [(OBJECT, 0, 0.9), (FAR, 1, 0.9)]
    assert draw_comparison([halved], [detections(rows)], CLASSES) == draw_comparison(
        [record], [detections(rows)], CLASSES
    )


def test_draw_comparison__upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    path = tmp_path / "turned.jpg"
    Image.new("RGB", (80, 40)).save(path, exif=exif)
    record = AnnotatedImage(
        path, 1, (80, 40), np.array([[0, 60, 40, 80]], np.float32), np.array([0]), np.array([False])
    )
    sheet = np.asarray(draw_comparison([record], [detections([], (80, 40))], CLASSES))
    assert tuple(sheet[-3, 2]) == MISSED  # the lower left corner of an upright image 80 pixels high


def test_draw_comparison__a_cell_for_each_image(record, tmp_path, photo):
    photo((40, 150)).save(tmp_path / "wide.png")
    wide = replace(record, path=tmp_path / "wide.png", size_hw=(40, 150), boxes=record.boxes / 3)
    records = [record, wide, record]
    sheet = draw_comparison(records, [detections([], r.size_hw) for r in records], CLASSES)
    assert sheet.width >= 2 * 154
    with pytest.raises(ValueError, match="zip"):
        draw_comparison(records, [detections([])], CLASSES)


def test_draw_comparison__nothing_to_show():
    with pytest.raises(UsageError, match="no images to compare; give at least one"):
        draw_comparison([], [], CLASSES)


def test_draw_comparison__image_that_is_gone(record):
    record.path.unlink()
    with pytest.raises(ImageError, match=r"scene\.png: no such file"):
        draw_comparison([record], [detections([])], CLASSES)


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (3, 2, 2), (5, 3, 2)])
def test_draw_batch__images_as_they_are_with_padding(batch_of, count, columns, rows):
    batch = batch_of(*[(40, 50), (64, 30)][:count], *[(20, 20)] * (count - 2))
    height, width = batch.padded_hw
    sheet = draw_batch(batch, [Target(no_boxes(), torch.zeros(0, dtype=torch.int64))] * count, CLASSES)
    assert sheet.size == (columns * (width + 4), rows * (height + 4))
    shown = pil_to_tensor(sheet).float() / 255
    for number, pixels in enumerate(batch.pixels):
        top, left = number // columns * (height + 4) + 2, number % columns * (width + 4) + 2
        assert_close(shown[:, top : top + height, left : left + width], pixels, rtol=0, atol=0.5 / 255 + 1e-6)


def test_draw_batch__objects_and_ignored_regions(batch_of):
    batch = batch_of((64, 64))
    target = Target(torch.tensor([[5.0, 30, 25, 60]]), torch.tensor([1]), ignored=torch.tensor([[35.0, 30, 60, 60]]))
    sheet = draw_batch(batch, [target], CLASSES)
    assert sheet.getpixel((2 + 5, 2 + 45)) == colour_of(1)
    assert sheet.getpixel((2 + 35, 2 + 45)) == colour_of(len(CLASSES))
