"""`fasterrcnn quantize` with real runtimes on a tiny network."""

import pytest
import torch

from fasterrcnn.demo.scenes import write_scenes
from fasterrcnn.inference.detector import load
from fasterrcnn.weights import native


@pytest.fixture
def data(tmp_path):
    write_scenes(tmp_path / "scenes", train=4, val=2, test=2, seed=0, size_hw=(96, 128))
    return tmp_path / "scenes"


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


@pytest.mark.slow
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
