import csv
import errno
import math
import os

import numpy as np
import pytest
import torch

from fasterrcnn.data.annotations import AnnotatedData
from fasterrcnn.data.formats import read_data
from fasterrcnn.demo.scenes import write_scenes
from fasterrcnn.errors import DataError, TrainingError, UsageError, WeightsError
from fasterrcnn.evaluation.evaluate import evaluate
from fasterrcnn.inference.detector import load
from fasterrcnn.training.fit import fit
from fasterrcnn.weights import native

MODEL = {"preset": "timm:test_efficientnet", "backbone": {"neck_channels": 32}, "regions": {"widths": [32]}}
TINY = {"model": MODEL, "weights": None, "short_side": 64, "logger": "none"}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, train=3, val=1, test=1, seed=0, size_hw=(96, 96))
    return folder


def test_fit__run_and_metrics(scenes, tmp_path):
    said = []
    run = fit(scenes, output=tmp_path / "run", epochs=2, batch_size=2, log=said.append, **TINY)
    assert run.path == tmp_path / "run"
    assert run.last == tmp_path / "run" / "last.safetensors"
    with (run.path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    best = max(rows, key=lambda row: float(row["ap"]))
    assert float(best["val_total"]) == pytest.approx(run.metrics["val_total"], rel=1e-4)
    parts = ("objectness", "rpn_boxes", "classes", "boxes")
    assert run.metrics["total"] == pytest.approx(sum(run.metrics[part] for part in parts))
    notes = native.load_checkpoint(run.last)[2]
    assert notes.keys() == {"data", "epoch", "start", "ap", "ap50"}
    assert (notes["data"], notes["epoch"], notes["start"]) == (scenes.name, 2, None)
    assert load(run.last).config.input.long_side == 107  # 800 / 480 of the short side
    assert said[0].startswith("Pascal VOC, 5 images")


def test_fit__continues_from_its_own_checkpoint(scenes, tmp_path):
    first = fit(scenes, output=tmp_path / "a", epochs=1, **TINY)
    second = fit(scenes, output=tmp_path / "b", epochs=1, **{**TINY, "weights": str(first.last)})
    assert native.load_checkpoint(second.last)[2]["start"] == str(first.last)


def test_fit__follows_from_its_seed(scenes, tmp_path):
    first, second, other = (fit(scenes, output=tmp_path / f"{n}", epochs=1, seed=n // 2, **TINY) for n in (2, 3, 4))
    ours, theirs, others = (native.load_checkpoint(run.last)[0] for run in (first, second, other))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert not all(torch.equal(ours[key], others[key]) for key in ours)


def test_fit__loss_that_is_not_finite(scenes, tmp_path):
    options = {"optimizer": "sgd", "learning_rate": 1e30, "batch_size": 3, "epochs": 3}
    with pytest.raises(TrainingError, match=r"a loss is not finite at step 2: .*nan.*; images: ") as caught:
        fit(scenes, output=tmp_path / "run", **options, **TINY)
    for name in ("0000000.jpg", "0000001.jpg", "0000002.jpg"):
        assert str(scenes / "JPEGImages" / name) in str(caught.value)
    assert native.load_checkpoint(tmp_path / "run" / "last.safetensors")[2]["epoch"] == 1
    assert "lower the learning rate" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"epochs": 0}, UsageError, r"epochs: Input should be greater than 0 \(given: 0\)"),
        ({"colour": "red"}, UsageError, "there is no setting 'colour': there are data, model, "),
        ({"epoch": 3}, UsageError, "there is no setting 'epoch': did you mean 'epochs'"),
        ({"logger": "tensorbord"}, UsageError, "no logger is called 'tensorbord'; there are none, comet, csv"),
        ({"precision": "fp16", "device": "cpu"}, UsageError, 'precision "fp16" needs a GPU'),
        ({"freeze": "backbone"}, UsageError, "random weights would learn from noise"),
        ({"resume": "x"}, UsageError, "resume uses the settings of the run"),
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
    with pytest.raises(UsageError, match="the split 'all' has no boxes to train on"):
        fit(tmp_path / "set", output=tmp_path / "run", **TINY)


def test_fit__validation_changes_nothing(scenes, tmp_path):
    measured = fit(scenes, output=tmp_path / "a", epochs=2, **TINY)
    data = read_data(scenes)
    only = AnnotatedData(data.root, data.format, data.classes, {"train": data.split("train")})
    plain = fit(only, output=tmp_path / "b", epochs=2, **TINY)
    ours, theirs = (native.load_checkpoint(run.last)[0] for run in (measured, plain))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert "val_total" in measured.metrics
    assert "val_total" not in plain.metrics
    assert (
        native.load_checkpoint(plain.best)[2]["epoch"] == 2
    )  # without validation, the last epoch is the best there is


def test_fit__loss_falls(scenes, tmp_path):
    rows = []
    data = read_data(scenes)
    many = AnnotatedData(data.root, data.format, data.classes, {"train": data.split("train") * 6})
    options = {"epochs": 4, "learning_rate": 0.003, "batch_size": 3, "augmentation": "none", "on_epoch": rows.append}
    fit(many, output=tmp_path / "run", **options, **TINY)
    assert rows[-1]["total"] < 0.6 * rows[0]["total"]


def test_fit__best_is_the_epoch_with_the_highest_ap(scenes, tmp_path):
    rows = []
    run = fit(scenes, output=tmp_path / "run", epochs=4, learning_rate=0.003, on_epoch=rows.append, **TINY)
    best = max(rows, key=lambda row: row["ap"])
    notes = native.load_checkpoint(run.best)[2]
    assert notes["epoch"] == best["epoch"]
    assert run.metrics == best
    # What is written is what was measured: the averaged weights.
    assert evaluate(run.best, scenes, split="val").ap == pytest.approx(best["ap"], abs=1e-6)


def test_fit__patience_ends_early(scenes, tmp_path):
    rows = []
    start = fit(scenes, output=tmp_path / "start", epochs=1, **TINY)
    # So low a rate that AP stays what it was.
    options = {"epochs": 50, "learning_rate": 1e-12, "patience": 2, "on_epoch": rows.append}
    fit(scenes, output=tmp_path / "run", **options, **{**TINY, "weights": str(start.last)})
    assert len(rows) == 3


def test_fit__everything_learns_from_an_epoch_on(scenes, tmp_path):
    start = fit(scenes, output=tmp_path / "start", epochs=1, **TINY)
    options = {**TINY, "weights": str(start.last), "freeze": "backbone", "epochs": 2}
    states = {}
    for name, more in (("frozen", {}), ("whole", {"unfreeze_at": 2})):
        states[name] = native.load_checkpoint(fit(scenes, output=tmp_path / name, **options, **more).last)[0]
    before = native.load_checkpoint(start.last)[0]
    body = [key for key in before if key.startswith("backbone.body.") and key.endswith("weight")]
    assert all(torch.equal(states["frozen"][key], before[key]) for key in body)
    assert not all(torch.equal(states["whole"][key], before[key]) for key in body)


@pytest.mark.parametrize("options", [{"accumulate": 2}, {"precision": "bf16"}, {"schedule": "steps"}, {"ema": 0.0}])
def test_fit__options_of_the_engine(scenes, tmp_path, options):
    run = fit(scenes, output=tmp_path / "run", epochs=2, batch_size=1, **options, **TINY)
    assert math.isfinite(run.metrics["total"])


def test_fit__images_without_objects_in_every_batch(scenes, tmp_path):
    data = read_data(scenes)
    nothing = [record.take(np.zeros(len(record.boxes), np.bool_)) for record in data.split("train")]
    one, (val,) = data.split("train")[:1], data.split("val")
    empty = [val.take(np.zeros(len(val.boxes), np.bool_))]
    train = AnnotatedData(data.root, data.format, data.classes, {"train": [*one, *nothing[1:]], "val": empty})
    run = fit(train, output=tmp_path / "run", epochs=2, batch_size=1, **TINY)
    assert math.isfinite(run.metrics["val_total"])
    assert math.isnan(run.metrics["ap"])  # nothing to find


def test_fit__files_of_a_run(scenes, tmp_path):
    run = fit(scenes, output=tmp_path / "run", epochs=1, **{**TINY, "logger": "tensorboard"})
    names = {path.name for path in run.path.iterdir()}
    assert names == {
        "README.md", "batches.jpg", "best.safetensors", "config.yaml", "curves.png", "data.txt", "environment.json",
        "last.safetensors", "metrics.csv", "results.json", "tensorboard", "validation",
    }  # fmt: skip
    assert any(path.name.startswith("events") for path in (run.path / "tensorboard").iterdir())
    card = (run.path / "README.md").read_text()
    assert all(f"`{name}`" in card for name in names - {"README.md"})


def test_fit__repeated_from_its_own_settings(scenes, tmp_path):
    first = fit(scenes, output=tmp_path / "a", epochs=1, assignments=["model.regions.box_loss=giou"], **TINY)
    second = fit(scenes, output=tmp_path / "b", config=first.path / "config.yaml")
    assert first.last.read_bytes() == second.last.read_bytes()
    assert load(second.last).config.regions.box_loss == "giou"


def test_fit__global_generators_are_left_alone(scenes, tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    fit(scenes, output=tmp_path / "run", epochs=1, **TINY)
    torch.testing.assert_close(torch.rand(3), expected)


def test_fit__a_disk_that_is_full(scenes, tmp_path, monkeypatch):
    run = tmp_path / "run"
    real, written = os.fsync, []

    def full(descriptor):
        if (run / "last.safetensors").exists() and len(written) > 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(descriptor)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        fit(scenes, output=run, epochs=5, **TINY)
    assert str(run) in str(caught.value)
    monkeypatch.undo()
    native.load_checkpoint(run / "last.safetensors")
    again = fit(resume=run)
    assert load(again.last).classes
