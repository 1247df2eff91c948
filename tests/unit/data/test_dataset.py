import numpy as np
import pytest
import torch
from torch.testing import assert_close

from fasterrcnn.config import InputConfig
from fasterrcnn.data.dataset import DetectionDataset
from fasterrcnn.data.images import from_pil
from fasterrcnn.data.records import Record

INPUT = InputConfig(short_side=40, long_side=60, mean=(0.1, 0.2, 0.3))
BOXES = np.array([[2, 4, 10, 16], [0, 0, 20, 20]], np.float32)


@pytest.fixture
def records(tmp_path, photo):
    """Pictures of 20 x 30, 20 x 20 and 80 x 20 pixels; the second has no objects."""
    made = []
    for number, size_hw in enumerate([(20, 30), (20, 20), (80, 20)]):
        path = tmp_path / f"{number}.png"
        photo(size_hw, number).save(path)
        boxes, labels = (BOXES[:0], []) if number == 1 else (BOXES, [1, 0])
        difficult = np.array([False, number == 2], np.bool_)[: len(boxes)]
        made.append(Record(path, number + 1, size_hw, boxes, np.array(labels, np.int64), difficult))
    return made


def test_dataset__boxes_are_scaled_with_the_picture(records):
    examples = DetectionDataset(records, INPUT)
    assert len(examples) == 3
    pixels, target = examples[0]
    assert pixels.shape == (3, 40, 60)
    assert pixels.max() <= 1
    assert_close(target.boxes, 2 * torch.from_numpy(BOXES))
    assert target.labels.tolist() == [1, 0]
    shrunk, target = examples[2]  # the long side decides: 80 -> 60
    assert shrunk.shape == (3, 60, 15)
    assert_close(target.boxes, 0.75 * torch.from_numpy(BOXES[:1]))


def test_dataset__difficult_objects_are_ignored_regions(records):
    _, target = DetectionDataset(records, INPUT)[2]
    assert target.labels.tolist() == [1]
    assert_close(target.ignored, 0.75 * torch.from_numpy(BOXES[1:]))


def test_dataset__picture_without_objects(records):
    _, target = DetectionDataset(records, INPUT, flip=1.0)[1]
    assert target.boxes.shape == target.ignored.shape == (0, 4)
    assert target.labels.shape == (0,)


def test_dataset__original_size_keeps_the_pixels(records, photo):
    config = InputConfig(short_side=20, long_side=30)
    pixels, target = DetectionDataset(records, config)[0]
    assert_close(pixels, from_pil(photo((20, 30), 0)).float() / 255)
    assert_close(target.boxes, torch.from_numpy(BOXES))


def test_dataset__flip_mirrors_pixels_and_boxes_together(records):
    plain, target = DetectionDataset(records, INPUT)[0]
    flipped, mirrored = DetectionDataset(records, INPUT, flip=1.0)[0]
    assert_close(flipped, plain.flip(-1))
    for before, after in zip(target.boxes.int().tolist(), mirrored.boxes.int().tolist(), strict=True):
        x1, y1, x2, y2 = before
        u1, v1, u2, v2 = after
        assert_close(flipped[:, v1:v2, u1:u2], plain[:, y1:y2, x1:x2].flip(-1))
    assert_close(mirrored.labels, target.labels)


def flips(records, seed=0, epoch=0, flip=0.5) -> list[bool]:
    examples = DetectionDataset(records, INPUT, flip=flip, seed=seed)
    examples.epoch = epoch
    return [examples._flips(index) for index in range(200)]


def test_dataset__flips_follow_from_seed_epoch_and_index(records):
    assert flips(records) == flips(records)
    assert flips(records) != flips(records, seed=1)
    assert flips(records) != flips(records, epoch=1)
    assert flips(records, flip=0.0) == [False] * 200
    assert flips(records, flip=1.0) == [True] * 200
    assert 70 < sum(flips(records)) < 130


def test_dataset__order_of_reading_does_not_matter(records):
    examples = DetectionDataset(records, INPUT, flip=0.5, seed=3)
    forwards = [examples[i][0] for i in range(3)]
    backwards = [examples[i][0] for i in (2, 1, 0)][::-1]
    assert_close(forwards, backwards)


# Not strict: which two of the pictures the checker compares is drawn at random.
def test_collate__pads_with_the_mean_pixel(records):
    examples = DetectionDataset(records, INPUT)
    batch, targets = examples.collate([examples[0], examples[2]])
    assert batch.pixels.shape == (2, 3, 64, 64)
    assert batch.sizes_hw == [(40, 60), (60, 15)]
    assert_close(batch.pixels[0, :, 40:, :].amax(dim=(1, 2)), torch.tensor(INPUT.mean))
    assert_close(batch.pixels[1, :, :, 15:].amin(dim=(1, 2)), torch.tensor(INPUT.mean))
    assert [len(target.boxes) for target in targets] == [2, 1]
    assert_close(batch.pixels[0, :, :40, :60], examples[0][0])
