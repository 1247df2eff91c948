import copy
import csv

import pytest
import torch

from fasterrcnn.config import TrainConfig
from fasterrcnn.data.dataset import BatchLoader, DetectionDataset
from fasterrcnn.data.formats import read_data
from fasterrcnn.data.samples import write_scenes
from fasterrcnn.errors import DataError, TrainingError, UsageError, WeightsError
from fasterrcnn.inference.detector import load
from fasterrcnn.training.fit import fit
from fasterrcnn.training.loop import train, validate
from fasterrcnn.weights import native

TINY = {"model": "timm:test_efficientnet", "weights": None, "short_side": 64}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, train=3, val=1, test=1, seed=0, size_hw=(96, 96))
    return folder


@pytest.fixture
def learner(scenes, tiny_config, lively):
    """Copies of one small network, and what it learns from."""
    data = read_data(scenes)
    config = tiny_config.model_copy(update={"classes": data.classes})
    model = lively(config)
    return lambda: (copy.deepcopy(model), DetectionDataset(data.split("train"), config.input, augmentation="light"))


def settings(**changes) -> TrainConfig:
    return TrainConfig(**{"data": "x", "model": "y", "weights": None, "batch_size": 2, "epochs": 1, **changes})


def epochs(learner, config, on_step=lambda progress: None, val=False):
    model, examples = learner()
    return model, list(train(model, examples, examples if val else None, config, CPU, on_step))


def test_fit__run_and_metrics(scenes, tmp_path):
    said = []
    run = fit(scenes, output=tmp_path / "run", epochs=2, batch_size=2, say=said.append, **TINY)
    assert run.path == tmp_path / "run"
    assert run.last == tmp_path / "run" / "last.safetensors"
    with (run.path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[-1]["val_total"]) == pytest.approx(run.metrics["val_total"], rel=1e-4)
    parts = ("objectness", "rpn_boxes", "classes", "boxes")
    assert run.metrics["total"] == pytest.approx(sum(run.metrics[part] for part in parts))
    notes = native.load(run.last)[2]
    assert notes == {"data": scenes.name, "epoch": 2, "start": None}
    assert load(run.last).config.input.long_side == 107  # 800 / 480 of the short side
    assert said[0].startswith("Pascal VOC, 5 images")


def test_fit__continues_from_its_own_checkpoint(scenes, tmp_path):
    first = fit(scenes, output=tmp_path / "a", epochs=1, **TINY)
    second = fit(scenes, output=tmp_path / "b", epochs=1, **{**TINY, "weights": str(first.last)})
    assert native.load(second.last)[2]["start"] == str(first.last)


def test_fit__follows_from_its_seed(scenes, tmp_path):
    first, second, other = (fit(scenes, output=tmp_path / f"{n}", epochs=1, seed=n // 2, **TINY) for n in (2, 3, 4))
    ours, theirs, others = (native.load(run.last)[0] for run in (first, second, other))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert not all(torch.equal(ours[key], others[key]) for key in ours)


def test_fit__loss_that_is_not_finite(scenes, tmp_path):
    options = {"optimizer": "sgd", "learning_rate": 1e30, "batch_size": 3, "epochs": 3}
    with pytest.raises(TrainingError, match=r"a loss is not finite at step 2: .*nan.*; pictures: ") as caught:
        fit(scenes, output=tmp_path / "run", **options, **TINY)
    for name in ("0000000.jpg", "0000001.jpg", "0000002.jpg"):
        assert str(scenes / "JPEGImages" / name) in str(caught.value)
    assert native.load(tmp_path / "run" / "last.safetensors")[2]["epoch"] == 1
    assert "lower the learning rate" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"epochs": 0}, UsageError, r"epochs: Input should be greater than 0 \(given: 0\)"),
        ({"colour": "red"}, UsageError, r"colour: Extra inputs .*; there are data, model, weights"),
        ({"augmentation": "wild"}, UsageError, "augmentation: Input should be 'none', 'light', 'default' or 'strong'"),
        ({"optimizer": "lion"}, UsageError, "optimizer: Input should be 'adamw' or 'sgd'"),
        ({"split": "tarin"}, UsageError, "no split 'tarin'; there are: train, val, test"),
        ({"weights": "absent.pth"}, WeightsError, r"absent\.pth: no such file"),
        ({"model": "yolo"}, UsageError, "no model is called 'yolo'"),
    ],
)
def test_fit__options_that_cannot_work(scenes, tmp_path, options, kind, message):
    with pytest.raises(kind, match=message):
        fit(scenes, output=tmp_path / "run", **{**TINY, **options})
    assert not (tmp_path / "run").exists()


def test_fit__no_data(tmp_path):
    with pytest.raises(DataError, match="absent: no such file or folder"):
        fit(tmp_path / "absent", **TINY)


def test_fit__nothing_to_learn_from(tmp_path, photo):
    for name in ("Annotations", "JPEGImages"):
        (tmp_path / "set" / name).mkdir(parents=True)
    (tmp_path / "set/Annotations/a.xml").write_text("<annotation/>")
    photo((96, 96)).save(tmp_path / "set/JPEGImages/a.jpg")
    with pytest.raises(UsageError, match="the split 'all' has no boxes to learn from"):
        fit(tmp_path / "set", output=tmp_path / "run", **TINY)


def test_train__is_deterministic(learner):
    first, results = epochs(learner, settings(epochs=2))
    second, again = epochs(learner, settings(epochs=2))
    assert [r.losses for r in results] == [r.losses for r in again]
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    _, other = epochs(learner, settings(epochs=2, seed=1))
    assert [r.losses for r in results] != [r.losses for r in other]


def test_train__steps_and_rates(learner):
    seen = []
    _, results = epochs(learner, settings(epochs=3, learning_rate=0.001, warmup_steps=0), seen.append)
    assert [(p.epoch, p.step, p.steps) for p in seen] == [
        (1, 1, 6),
        (1, 2, 6),
        (2, 3, 6),
        (2, 4, 6),
        (3, 5, 6),
        (3, 6, 6),
    ]
    assert results[-1].learning_rate == pytest.approx(0.001 * 0.01)
    assert [r.epoch for r in results] == [1, 2, 3]


def test_train__validation_changes_nothing(learner):
    plain, _ = epochs(learner, settings())
    validated, (result,) = epochs(learner, settings(), val=True)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), validated.parameters(), strict=True))
    assert result.val_losses.keys() == result.losses.keys()


def test_validate__same_draws_every_time(learner):
    model, examples = learner()
    loader = BatchLoader(examples)
    assert validate(model, loader, settings(), CPU) == validate(model, loader, settings(), CPU)


def test_train__frozen_stages_stay(learner):
    model, examples = learner()
    model.backbone.freeze(100)
    before = copy.deepcopy(model.backbone.trunk.state_dict())
    head = model.rpn.objectness.weight.clone()
    list(train(model, examples, None, settings(), CPU, lambda progress: None))
    after = model.backbone.trunk.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not torch.equal(model.rpn.objectness.weight, head)


def test_train__loss_falls(learner):
    _, results = epochs(learner, settings(epochs=25, learning_rate=0.003, batch_size=3, augmentation="none"))
    totals = [result.losses["total"] for result in results]
    assert sum(totals[-3:]) < 0.6 * sum(totals[:3])
