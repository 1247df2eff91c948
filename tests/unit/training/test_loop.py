"""What the loop asks of the loader."""

import copy

import numpy as np
import pytest
import torch

from fasterrcnn.config import TrainConfig
from fasterrcnn.data.dataset import DetectionDataset
from fasterrcnn.data.records import Record
from fasterrcnn.errors import ImageError
from fasterrcnn.training.loop import default_workers, train

CPU = torch.device("cpu")


@pytest.fixture
def records(tmp_path, photo):
    made = []
    for number in range(5):
        path = tmp_path / f"{number}.png"
        photo((64, 80), number).save(path)
        boxes = np.array([[5, 5, 40, 50]], np.float32)
        made.append(Record(path, number, (64, 80), boxes, np.zeros(1, np.int64), np.zeros(1, np.bool_)))
    return made


def run(model, config, records, **options):
    model = copy.deepcopy(model)
    settings = TrainConfig(data="x", model="y", weights=None, batch_size=2, epochs=2, **options)
    examples = DetectionDataset(records, config.input, augmentation=settings.augmentation, seed=settings.seed)
    val_examples = DetectionDataset(records[:2], config.input)
    return model, list(train(model, examples, val_examples, settings, CPU, lambda progress: None))


def test_train__same_bits_from_any_number_of_workers(tiny_model, tiny_config, records):
    first, results = run(tiny_model, tiny_config, records, workers=0)
    for workers in (1, 2):
        other, again = run(tiny_model, tiny_config, records, workers=workers)
        assert [(r.losses, r.val_losses) for r in results] == [(r.losses, r.val_losses) for r in again]
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_train__every_epoch_has_other_views(tiny_model, tiny_config, records):
    # So low a rate that the network does not change: what changes is what it is shown.
    options = {"learning_rate": 1e-12, "weight_decay": 0.0}
    for augmentation, differs in (("none", False), ("default", True)):
        _, (first, second) = run(tiny_model, tiny_config, records[:1], augmentation=augmentation, **options)
        assert (abs(first.losses["boxes"] - second.losses["boxes"]) > 0.05) is differs


@pytest.mark.parametrize("workers", [0, 1])
def test_train__names_a_picture_that_cannot_be_decoded(tiny_model, tiny_config, records, workers):
    records[3].path.write_text("nothing")
    with pytest.raises(ImageError, match=r"^\S+3\.png: not a picture that can be decoded; on_bad_box"):
        run(tiny_model, tiny_config, records, workers=workers)


@pytest.mark.parametrize(("kind", "workers"), [("cpu", 0), ("cuda", 4), ("mps", 4)])
def test_default_workers__leave_the_cores_to_a_network_on_the_cpu(kind, workers):
    assert default_workers(torch.device(kind)) == workers
