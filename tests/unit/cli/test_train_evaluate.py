import csv
import json

import pytest
import yaml

from fasterrcnn.demo.scenes import CLASSES
from fasterrcnn.inference.detector import load
from fasterrcnn.training import run_folder

TINY = ["--model", "timm:test_efficientnet", "--weights", "none", "--short-side", "64", "--logger", "none"]
TINY += ["--set", "model.backbone.neck_channels=32", "--set", "model.regions.widths=[32]"]


@pytest.fixture(scope="module")
def trained(scenes, tmp_path_factory):
    """A run of one epoch."""
    from fasterrcnn.cli.main import main

    output = tmp_path_factory.mktemp("runs") / "first"
    with pytest.raises(SystemExit) as caught:
        main(["train", str(scenes), *TINY, "--epochs", "1", "--output", str(output)])
    assert caught.value.code == 0
    return output


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch):
    """An empty file instead of curves in all runs but that of `trained`: drawing takes longer than a tiny run."""
    monkeypatch.setattr(run_folder, "write_curves", lambda rows, path: path.touch())


def test_train__files_of_a_run(trained, scenes):
    names = {path.name for path in trained.iterdir()}
    assert {"README.md", "best.safetensors", "config.yaml", "data.txt", "last.safetensors", "metrics.csv"} <= names
    assert (trained / "data.txt").read_text().startswith("Pascal VOC, 6 images")
    detector = load(trained / "last.safetensors")
    assert set(detector.classes) <= set(CLASSES)
    assert detector.config.input.short_side == 64
    settings = yaml.safe_load((trained / "config.yaml").read_text())
    assert settings["epochs"] == 1
    assert settings["weights"] is None
    assert settings["model"]["classes"] == list(detector.classes)
    with (trained / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["epoch"] == "1"
    assert float(row["total"]) > 0
    assert float(row["val_total"]) > 0


def test_train__reports_what_it_does(run, scenes, tmp_path):
    outcome = run("train", scenes, *TINY, "--epochs", "2", "--seed", "3", "-o", tmp_path / "new")
    lines = outcome.out.splitlines()
    assert (outcome.code, outcome.err) == (0, "")
    assert lines[0].startswith("Pascal VOC, 6 images")
    assert [line.split(":")[0] for line in lines if line.startswith("epoch")] == ["epoch 1/2", "epoch 2/2"]
    assert lines[-2] == f"wrote {tmp_path / 'new' / 'best.safetensors'}"
    assert lines[-1].startswith("next: fasterrcnn predict")


def test_train__json_and_numbered_folders(run, scenes, tmp_path):
    arguments = ("train", scenes, *TINY, "--epochs", "1", "--json")
    outputs = [[json.loads(line) for line in run(*arguments).out.splitlines()] for _ in range(2)]
    assert [line["event"] for line in outputs[0]] == ["epoch", "end"]
    folders = [lines[-1]["run"] for lines in outputs]
    name = f"{scenes.name}-timm-test_efficientnet"
    assert folders == [f"runs/{name}-1", f"runs/{name}-2"]
    assert (tmp_path / "here" / folders[1] / "last.safetensors").is_file()


def test_train__refuses_a_folder_that_is_not_empty(run, scenes, trained, tmp_path):
    before = (trained / "last.safetensors").stat().st_mtime_ns
    outcome = run("train", scenes, *TINY, "-o", trained)
    assert outcome.code == 2
    assert "exists and is not empty; give another output folder" in outcome.err
    assert (trained / "last.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "resnet50-fnp"], "did you mean 'resnet50-fpn'"),
        (["--model", "resnet50-fpn", "--epochs", "0"], "epochs: Input should be greater than 0 (given: 0)"),
        (["--model", "resnet50-fpn", "--split", "tarin"], "no split 'tarin'; there are: train, val, test"),
        (["--model", "efficientnet-lite0-fpn", "--weights", "absent.pth"], "absent.pth: no such file"),
        (["--model", "resnet50-c5", "--weights", "coco"], 'has no "coco" weights'),
    ],
)
def test_train__mistakes_leave_no_folder(run, scenes, tmp_path, arguments, message):
    outcome = run("train", scenes, *arguments, "-o", tmp_path / "new")
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_train__no_data_set(run, tmp_path):
    outcome = run("train", tmp_path / "absent", *TINY)
    assert outcome.code == 2
    assert outcome.is_one_line
    assert "absent: no such file or folder" in outcome.err


def test_evaluate__text_and_json(run, scenes, trained, tmp_path):
    text = run("evaluate", trained / "last.safetensors", scenes, "--batch-size", "2")
    assert text.code == 0
    assert text.out.startswith("2 images, ")
    assert "AP50" in text.out
    report = tmp_path / "report.json"
    machine = run("evaluate", trained / "last.safetensors", scenes, "--json", "--split", "val", "-o", report)
    values = json.loads(machine.out)
    assert values["images"] == 1
    assert json.loads(report.read_text()) == values


def test_evaluate__unknown_split(run, scenes, trained):
    outcome = run("evaluate", trained / "last.safetensors", scenes, "--split", "tset")
    assert outcome.code == 2
    assert outcome.is_one_line
    assert "no split 'tset'; there are: train, val, test" in outcome.err


def test_evaluate__detector_of_other_classes(run, scenes, checkpoint):
    outcome = run("evaluate", checkpoint, scenes)
    assert outcome.code == 2
    assert "no class in common: cat, dog, owl against" in outcome.err


def test_evaluate__output_in_a_new_folder(run, scenes, trained, tmp_path):
    outcome = run("evaluate", trained / "last.safetensors", scenes, "-o", tmp_path / "new" / "report.json")
    assert "AP50" in outcome.out


def test_evaluate__results_of_any_model(run, scenes, trained, tmp_path):
    report = tmp_path / "report.json"
    first = run("evaluate", trained / "last.safetensors", scenes, "--json", "--bootstrap", "0", "--no-proposals")
    assert json.loads(first.out)["proposals"] is None
    results = tmp_path / "results.json"
    results.write_text("[]")
    outcome = run("evaluate", scenes, "--results", results, "--against", results, "-o", report, "--json")
    values = json.loads(outcome.out)
    assert (outcome.code, outcome.err, values["ap"]) == (0, "", 0.0)
    assert [one["name"] for one in values["diagnoses"] if one["is_mistake"]] == ["no-detections"]
    assert values == json.loads(report.read_text())
    both = run("evaluate", trained / "last.safetensors", scenes, "--results", results, "--bootstrap", "0")
    assert "last.safetensors is not used" in both.err
    assert "problem (no-detections)" in both.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give weights and a data set"),
        (["--results", "absent.json"], "absent.json: no such file"),
        (["--results", "absent.json", "--flip"], "need weights"),
        (["--results", "absent.json", "-o", "report.pdf"], "report.pdf: a report is written as .html, as .json"),
    ],
)
def test_evaluate__mistakes(run, scenes, arguments, message):
    outcome = run("evaluate", scenes, *arguments)
    assert outcome.code == 2
    assert outcome.is_one_line
    assert message in outcome.err
