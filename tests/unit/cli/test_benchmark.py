"""`fasterrcnn benchmark` and `fasterrcnn quantize`, with real runtimes on a tiny network."""

import json

import pytest
import torch

from fasterrcnn.demo.scenes import write_scenes
from fasterrcnn.inference.loading import load
from fasterrcnn.weights import native


@pytest.fixture
def data(tmp_path):
    write_scenes(tmp_path / "scenes", train=4, val=2, test=2, seed=0, size_hw=(96, 128))
    return tmp_path / "scenes"


def test_benchmark__a_row_for_each_and_what_to_use(run, checkpoint):
    outcome = run("benchmark", checkpoint, "--runtimes", "torch", "winograd", "--threads", "1", "--rounds", "2")
    assert outcome.code == 0, outcome.err
    head, *rows, use = outcome.out.splitlines()
    assert head.split()[:3] == ["runtime", "threads", "median"]
    assert [row.split()[:2] for row in rows] == [["torch", "1"], ["winograd", "1"]]
    assert use in ('use here: runtime="torch", threads=1', 'use here: runtime="winograd", threads=1')
    assert "torch" in outcome.err  # progress is logged


def test_benchmark__json(run, checkpoint):
    outcome = run("benchmark", checkpoint, "--runtimes", "torch", "--threads", "1", "--rounds", "1", "--json")
    assert outcome.code == 0, outcome.err
    answer = json.loads(outcome.out)
    (row,) = answer["rows"]
    assert (row["runtime"], row["box_deviation"], row["unmatched"]) == ("torch", 0.0, 0)
    assert row["median"] > 0
    assert answer["use"] == "torch"


@pytest.mark.parametrize(
    ("options", "reason"),
    [(("--runtimes", "tensorflow"), "no runtime is called 'tensorflow'"), (("--rounds", "0"), "rounds must be")],
)
def test_benchmark__mistakes(run, checkpoint, options, reason):
    outcome = run("benchmark", checkpoint, *options)
    assert outcome.code == 2
    assert reason in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.fixture
def with_biases(lively, tiny_config, tmp_path):
    """A checkpoint whose convolutions have biases, as those of trained networks."""
    model = lively(tiny_config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.add_(torch.linspace(-0.01, 0.01, parameter.numel()))
    native.save_checkpoint(tmp_path / "biases.safetensors", model, tiny_config)
    return tmp_path / "biases.safetensors"


def test_quantize__then_predict(run, with_biases, data, tmp_path):
    for package in ("openvino", "nncf"):
        pytest.importorskip(package)
    photos = data / "JPEGImages"
    output = tmp_path / "small.safetensors"
    outcome = run("quantize", with_biases, photos, "-o", output, "--max-images", "4")
    assert outcome.code == 0, outcome.err
    assert outcome.out == f"wrote {output}\n"
    assert load(output).runtime == "openvino-int8"
    assert load(output, runtime="torch").runtime == "torch"
    outcome = run("predict", output, photos, "-o", "seen", "--score", "0.3")
    assert (outcome.code, outcome.err) == (0, "")
    outcome = run("predict", output, photos, "-o", "again", "--score", "0.3", "--runtime", "openvino")
    assert (outcome.code, outcome.err) == (0, "")


def test_quantize__mistakes(run, checkpoint, data, tmp_path):
    pytest.importorskip("nncf")
    outcome = run("quantize", checkpoint, data / "JPEGImages", "-o", tmp_path / "small.pth")
    assert outcome.code == 2
    assert "a quantized checkpoint is a .safetensors file" in outcome.err
    (tmp_path / "none").mkdir()
    outcome = run("quantize", checkpoint, tmp_path / "none", "-o", tmp_path / "small.safetensors")
    assert outcome.code == 2
    assert "no images in this folder" in outcome.err
    assert not (tmp_path / "small.safetensors").exists()
