import math

import torch
from torch.testing import assert_close

from fasterrcnn.structures import ImageBatch, Losses, Target, no_boxes


def test_no_boxes():
    assert no_boxes().shape == (0, 4)
    assert no_boxes().dtype == torch.float32


def test_image_batch__sizes():
    batch = ImageBatch(torch.zeros(2, 3, 32, 64), [(30, 60), (32, 10)])
    assert len(batch) == 2
    assert batch.padded_hw == (32, 64)
    assert batch.to("cpu").sizes_hw == batch.sizes_hw


def test_target__ignored_regions_are_optional():
    target = Target(no_boxes(), torch.zeros(0, dtype=torch.int64))
    assert target.ignored.shape == (0, 4)
    assert target.to("cpu").ignored.shape == (0, 4)


def test_losses__total_and_names():
    losses = Losses(*(torch.tensor(value) for value in (1.0, 2.0, 4.0, 8.0)))
    assert_close(losses.total, torch.tensor(15.0))
    assert [name for name, _ in losses] == ["objectness", "rpn_boxes", "classes", "boxes"]
    expected = {"objectness": 1.0, "rpn_boxes": 2.0, "classes": 4.0, "boxes": 8.0, "total": 15.0}
    assert losses.as_floats() == expected


def test_losses__weights_are_no_loss():
    parts = [torch.tensor(value) for value in (1.0, 2.0, 4.0, 8.0)]
    losses = Losses(*parts, weights=torch.tensor([5.0, 5.0, 7.0, 9.0]))
    assert_close(losses.total, torch.tensor(15.0))
    assert len(list(losses)) == 4
    assert "weights" not in losses.as_floats()
    assert_close(Losses(*parts).weights, torch.ones(4))


def test_losses__floats_of_nan():
    losses = Losses(torch.tensor(math.nan), torch.zeros(()), torch.zeros(()), torch.zeros(()))
    assert math.isnan(losses.as_floats()["total"])
