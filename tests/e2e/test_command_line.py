"""The command line in processes of its own: draw, train, evaluate, predict."""

import json
import subprocess
import sys

import pytest
from tests.e2e.forked import run_command

from fasterrcnn.demo.scenes import write_scenes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set and a run of one epoch on it."""
    folder = tmp_path_factory.mktemp("e2e")
    write_scenes(folder / "my scenes", train=3, val=1, test=2, seed=0, size_hw=(96, 96))
    options = ["--model", "timm:test_efficientnet", "--weights", "none", "--epochs", "1", "--short-side", "64"]
    options += ["--set", "model.backbone.neck_channels=32", "--set", "model.regions.widths=[32]"]
    code, _, errors = run_command("train", "my scenes", *options, "-o", "run", cwd=folder)
    assert (code, errors) == (0, "")
    return folder


def test_evaluate__json_alone_on_stdout(folder):
    code, output, errors = run_command("evaluate", "run/last.safetensors", "my scenes", "--json", cwd=folder)
    assert (code, errors) == (0, "")
    assert json.loads(output)["images"] == 2


def test_predict__images_and_a_broken_one(folder):
    (folder / "broken.jpg").write_text("no image")
    source = "my scenes/JPEGImages"
    code, _, errors = run_command("predict", "run/last.safetensors", source, "broken.jpg", "-o", "seen", cwd=folder)
    assert (code, errors) == (1, "error: broken.jpg: not an image that can be decoded\n")
    assert len(list((folder / "seen").glob("*.jpg"))) == 6
    json.loads((folder / "seen" / "results.json").read_text())


MISTAKE = ["predict", "absent.safetensors", "x.jpg", "-o", "out"]


def test_mistakes__one_line_and_exit_code_2(tmp_path):
    code, output, errors = run_command(*MISTAKE, cwd=tmp_path)
    assert (code, output, errors) == (2, "", "error: absent.safetensors: no such file\n")


@pytest.mark.slow
def test_mistakes__in_a_process_that_is_started_as_users_do_it(tmp_path):
    command = [sys.executable, "-m", "fasterrcnn", *MISTAKE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "error: absent.safetensors: no such file\n"
