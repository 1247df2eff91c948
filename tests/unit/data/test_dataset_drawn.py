import numpy as np
import pytest
import torch
from torch.testing import assert_close
from torchvision.transforms.functional import pil_to_tensor

from fasterrcnn.config import InputConfig
from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage
from fasterrcnn.data.dataset import DetectionDataset, draw_augmented
from fasterrcnn.errors import UsageError
from fasterrcnn.reporting.drawing import colour_of

INPUT = InputConfig(short_side=64, long_side=100, antialias=True)
TILE = 128 + 4  # a canvas of 128, and a frame of 2 around it


@pytest.fixture
def data(tmp_path, photo):
    """A wide image with an object and a difficult one, a tall one with none."""
    records = []
    for number, size_hw in enumerate([(32, 50), (50, 32)]):
        path = tmp_path / f"{number}.png"
        photo(size_hw, number).save(path)
        boxes = np.array([[5, 5, 20, 20], [25, 8, 45, 30]], np.float32)[: 2 - 2 * number]
        difficult = np.array([False, True], np.bool_)[: len(boxes)]
        records.append(AnnotatedImage(path, number, size_hw, boxes, np.zeros(len(boxes), np.int64), difficult))
    return AnnotatedData(tmp_path, "test", ("cat",), {"all": records})


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (2, 2), (5, 2)])
def test_draw_augmented__a_row_for_each_image(data, count, rows):
    sheet = draw_augmented(data, data.images, INPUT, "strong", count, seed=0)
    assert sheet.width == 4 * (sheet.height // rows) or count == 1
    assert draw_augmented(data, data.images, INPUT, "strong", count, seed=0) == sheet
    assert count == 1 or draw_augmented(data, data.images, INPUT, "strong", count, seed=1) != sheet


def test_draw_augmented__shows_what_training_sees(data):
    sheet = pil_to_tensor(draw_augmented(data, data.images, INPUT, "light", 2, seed=3)).float() / 255
    assert sheet.shape == (3, 2 * TILE, 4 * TILE)
    plain = DetectionDataset(data.images, INPUT)
    varied = DetectionDataset(data.images, INPUT, augmentation="light", seed=3)
    # The second image has no objects that would be drawn over it.
    views = [plain[1], varied[1, 1], varied[1, 2], varied[1, 3]]
    for column, (pixels, _) in enumerate(views):
        tile = sheet[:, TILE:, column * TILE : (column + 1) * TILE]
        assert_close(tile[:, 2 : 2 + 100, 2 : 2 + 64], pixels, rtol=0, atol=0.5 / 255 + 1e-6)
        mean = torch.tensor(INPUT.mean)[:, None, None].expand(3, 100, 60)
        assert_close(tile[:, 2 : 2 + 100, 2 + 64 : 126], mean, rtol=0, atol=0.5 / 255 + 1e-6)


def test_draw_augmented__objects_and_difficult_ones_have_colours_of_their_own(data):
    sheet = np.asarray(draw_augmented(data, data.images[:1], INPUT, "none", 1, seed=0))
    for colour in (colour_of(0), colour_of(1)):
        assert (sheet == colour).all(axis=-1).sum() > 100


@pytest.mark.parametrize("count", [0, 3])
def test_draw_augmented__nothing_to_show(data, count):
    with pytest.raises(UsageError, match="no images to show"):
        draw_augmented(data, data.images if count == 0 else [], INPUT, "none", count, seed=0)
