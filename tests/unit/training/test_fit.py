import csv
import errno
import json
import math
import os
import sys

import numpy as np
import pytest
import torch
import yaml
from torch.testing import assert_close

from fasterrcnn import presets
from fasterrcnn.config import TrainConfig
from fasterrcnn.data.annotations import AnnotatedData
from fasterrcnn.data.formats import read_data
from fasterrcnn.errors import DataError, TrainingError, UsageError, WeightsError
from fasterrcnn.evaluation.evaluate import evaluate
from fasterrcnn.inference.detector import load
from fasterrcnn.training import prepare
from fasterrcnn.training.fit import check_trainer, fit
from fasterrcnn.training.module import TrainingModule
from fasterrcnn.weights import native


def test_fit__run_and_metrics(train, scenes, tmp_path):
    lines = []
    run = train("run", epochs=2, batch_size=2, log=lines.append)
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
    assert lines[0].startswith("Pascal VOC, 5 images")


def test_fit__continues_from_its_own_checkpoint(train, start):
    second = train("run", weights=str(start.last))
    assert native.load_checkpoint(second.last)[2]["start"] == str(start.last)


def test_fit__training_on_begins_with_the_detector_as_it_is(train, start, tmp_path):
    """At a rate of almost nothing, the detector stays what it was: anchors, norms, layers, input size, tensors."""
    _, config, _ = native.load_checkpoint(start.last)
    anchors = config.anchors.model_copy(update={"sizes": ((20.0,), (40.0,), (80.0,), (170.0,))})
    (tmp_path / "anchors.yaml").write_text(f"anchors: {json.dumps(anchors.model_dump(mode='json'))}")
    first = train("first", anchors=str(tmp_path / "anchors.yaml"))
    options = {"learning_rate": 1e-12, "ema": 0.0, "weight_decay": 0.0, "short_side": None}
    second = train("second", model="timm:test_efficientnet", weights=str(first.last), **options)
    (old, trained, _), (new, resulting, _) = (native.load_checkpoint(run.last) for run in (first, second))
    assert trained.anchors == anchors
    assert resulting == trained
    assert_close(new, old, rtol=0, atol=1e-6)


def test_fit__norms_of_a_run_from_random_weights_are_kept(train, start):
    model = {"preset": "mobilenetv3-large-320-fpn", "regions": {"widths": [8, 8]}}
    first = train("first", model=model)
    second = train("second", model=model["preset"], weights=str(first.last))
    assert native.load_checkpoint(second.last)[1].backbone.norm == "group"


def test_fit__follows_from_its_seed(train, start):
    first, again, other = (native.load_checkpoint(run.last)[0] for run in (start, train("a"), train("b", seed=1)))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_fit__loss_that_is_not_finite(train, scenes, tmp_path):
    options = {"optimizer": "sgd", "learning_rate": 1e30, "batch_size": 3, "epochs": 3}
    with pytest.raises(TrainingError, match=r"a loss is not finite at step 2: .*nan.*; images: ") as caught:
        train("run", **options)
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
def test_fit__options_that_cannot_work(train, tmp_path, options, kind, message):
    with pytest.raises(kind, match=message):
        train("run", **options)
    assert not (tmp_path / "run").exists()


def test_fit__no_data(train, tmp_path):
    with pytest.raises(DataError, match="absent: no such file or folder"):
        train("run", data=tmp_path / "absent")


def test_fit__no_boxes_to_train_on(train, tmp_path, photo):
    for name in ("Annotations", "JPEGImages"):
        (tmp_path / "set" / name).mkdir(parents=True)
    (tmp_path / "set/Annotations/a.xml").write_text("<annotation/>")
    photo((96, 96)).save(tmp_path / "set/JPEGImages/a.jpg")
    with pytest.raises(DataError, match="no labels were found: none of 1 image has a box"):
        train("run", data=tmp_path / "set")


def test_fit__validation_changes_nothing(train, scenes):
    measured = train("a", epochs=2)
    data = read_data(scenes)
    only = AnnotatedData(data.root, data.format, data.classes, {"train": data.split("train")})
    plain = train("b", data=only, epochs=2)
    ours, theirs = (native.load_checkpoint(run.last)[0] for run in (measured, plain))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert "val_total" in measured.metrics
    assert "val_total" not in plain.metrics
    assert (
        native.load_checkpoint(plain.best)[2]["epoch"] == 2
    )  # without validation, the last epoch is the best there is


def test_fit__loss_falls(train, scenes):
    rows = []
    data = read_data(scenes)
    twice = AnnotatedData(data.root, data.format, data.classes, {"train": data.split("train") * 2})
    train("run", data=twice, epochs=4, batch_size=1, learning_rate=0.003, augmentation="none", on_epoch=rows.append)
    assert rows[-1]["total"] < 0.6 * rows[0]["total"]


def test_fit__best_is_the_epoch_with_the_highest_ap(train, scenes):
    rows = []
    run = train("run", epochs=4, learning_rate=0.003, on_epoch=rows.append)
    best = max(rows, key=lambda row: row["ap"])
    notes = native.load_checkpoint(run.best)[2]
    assert notes["epoch"] == best["epoch"]
    assert run.metrics == best
    # What is written is what was measured: the averaged weights.
    assert evaluate(run.best, scenes, split="val").ap == pytest.approx(best["ap"], abs=1e-6)


def test_fit__patience_ends_early(train, start):
    rows = []
    # The rate is so low that AP does not change.
    train("run", weights=str(start.last), epochs=50, learning_rate=1e-12, patience=2, on_epoch=rows.append)
    assert len(rows) == 3


def test_fit__everything_is_trained_from_an_epoch_on(train, start):
    options = {"weights": str(start.last), "freeze": "backbone", "epochs": 2}
    states = {}
    for name, more in (("frozen", {}), ("whole", {"unfreeze_at": 2})):
        states[name] = native.load_checkpoint(train(name, **options, **more).last)[0]
    before = native.load_checkpoint(start.last)[0]
    body = [key for key in before if key.startswith("backbone.body.") and key.endswith("weight")]
    assert all(torch.equal(states["frozen"][key], before[key]) for key in body)
    assert not all(torch.equal(states["whole"][key], before[key]) for key in body)


def test_check_trainer__bfloat16_on_a_card_without_it(monkeypatch):
    config = TrainConfig(data="x", model=presets.get("resnet50-fpn"), precision="bf16")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    with pytest.raises(UsageError, match='precision "bf16": Tesla T4 has no bfloat16; give "fp16"'):
        check_trainer(config, torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    check_trainer(config, torch.device("cuda"))


def test_fit__precision_is_decided_once(train, monkeypatch):
    monkeypatch.setattr(prepare, "has_bf16_tiles", lambda: True)
    lines = []
    run = train("run", precision="auto", log=lines.append)
    assert "precision: bf16, the fastest on this CPU" in lines
    assert yaml.safe_load((run.path / "config.yaml").read_text())["precision"] == "bf16"


@pytest.mark.parametrize("options", [{"accumulate": 2}, {"precision": "bf16"}, {"schedule": "steps"}, {"ema": 0.0}])
def test_fit__options_of_the_trainer(train, options):
    run = train("run", epochs=2, batch_size=1, **options)
    assert math.isfinite(run.metrics["total"])


def test_fit__images_without_objects_in_every_batch(train, scenes):
    data = read_data(scenes)
    nothing = [record.select(np.zeros(len(record.boxes), np.bool_)) for record in data.split("train")]
    one, (val,) = data.split("train")[:1], data.split("val")
    empty = [val.select(np.zeros(len(val.boxes), np.bool_))]
    mostly_empty = AnnotatedData(data.root, data.format, data.classes, {"train": [*one, *nothing[1:]], "val": empty})
    run = train("run", data=mostly_empty, epochs=2, batch_size=1)
    assert math.isfinite(run.metrics["val_total"])
    assert math.isnan(run.metrics["ap"])  # nothing to find


@pytest.mark.usefixtures("real_curves")
def test_fit__files_of_a_run(train):
    run = train("run", logger="tensorboard")
    names = {path.name for path in run.path.iterdir()}
    assert names == {
        "README.md", "batches.jpg", "best.safetensors", "config.yaml", "curves.png", "data.txt", "environment.json",
        "last.safetensors", "metrics.csv", "results.json", "tensorboard", "validation",
    }  # fmt: skip
    assert any(path.name.startswith("events") for path in (run.path / "tensorboard").iterdir())
    card = (run.path / "README.md").read_text()
    assert all(f"`{name}`" in card for name in names - {"README.md"})


def test_fit__repeated_from_its_own_settings(train, scenes, tmp_path):
    first = train("a", assignments=["model.regions.box_loss=giou"])
    second = fit(scenes, output=tmp_path / "b", config=first.path / "config.yaml")
    assert first.last.read_bytes() == second.last.read_bytes()
    assert load(second.last).config.regions.box_loss == "giou"


def test_fit__global_generators_are_left_alone(train):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train("run")
    torch.testing.assert_close(torch.rand(3), expected)


def test_fit__a_disk_that_is_full(train, tmp_path, monkeypatch):
    run = tmp_path / "run"
    real, written = os.fsync, []

    def full(descriptor):
        if (run / "last.safetensors").exists() and len(written) > 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(descriptor)
        real(descriptor)

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left on device") as caught:
        patched.setattr(os, "fsync", full)
        train("run", epochs=3)
    assert str(run) in str(caught.value)
    native.load_checkpoint(run / "last.safetensors")
    with pytest.raises(UsageError, match="resume takes the folder of an interrupted run"):
        fit(resume=run / "last.safetensors")
    again = fit(resume=run)
    assert load(again.last).classes


def test_fit__too_little_memory_is_one_line(train, tmp_path, monkeypatch):
    def step(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")

    monkeypatch.setattr(TrainingModule, "training_step", step)
    message = r"^there is not enough memory \(CUDA out of memory\); take a smaller batch_size, .* short_side$"
    with pytest.raises(TrainingError, match=message):
        train("run")
    assert (tmp_path / "run" / "config.yaml").is_file()


def test_check_trainer__roi_pool_is_not_deterministic_on_a_gpu():
    config = prepare.resolve({"data": "", "model": "resnet50-c5", "deterministic": True})
    check_trainer(config, torch.device("cpu"))
    with pytest.raises(UsageError, match=r"deterministic: the gradients of RoIPool .* leave deterministic out"):
        check_trainer(config, torch.device("cuda"))
    check_trainer(prepare.resolve({"data": "", "model": "resnet50-fpn", "deterministic": True}), torch.device("cuda"))


def test_check_trainer__several_devices_in_a_notebook(monkeypatch):
    config = prepare.resolve({"data": "", "model": "resnet50-fpn", "devices": 2})
    check_trainer(config, torch.device("cuda"))
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    with pytest.raises(UsageError, match=r"devices is 2, but a notebook .*: torchrun --nproc-per-node 2 -m fasterrcnn"):
        check_trainer(config, torch.device("cuda"))
