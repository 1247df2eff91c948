import json
import os

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.testing import assert_close

from fasterrcnn import presets
from fasterrcnn.build import assemble, load_model
from fasterrcnn.config import EARLIER_BODY
from fasterrcnn.errors import WeightsError
from fasterrcnn.weights import native

CLASSES = ("cat", "dog", "owl")


def test_save_load__bit_equal_with_classes_and_config(checkpoint, tiny_model, tiny_config):
    state, config, notes = native.load_checkpoint(checkpoint)
    assert config == tiny_config
    assert config.classes == CLASSES
    assert notes == {}
    own = tiny_model.state_dict()
    assert state.keys() == own.keys()
    assert all(torch.equal(state[key], own[key]) for key in own)
    assert all(state[key].dtype == own[key].dtype for key in own)


def test_load_model__gives_the_same_detections(checkpoint, tiny_model, batch_of):
    model, config = load_model(checkpoint)
    assert model.classes == config.classes == CLASSES
    batch = batch_of((64, 64))
    with torch.no_grad():
        (ours,), (expected,) = model.eval()(batch), tiny_model(batch)
    assert torch.equal(ours.boxes, expected.boxes)
    assert torch.equal(ours.scores, expected.scores)


def test_load__file_of_version_0_1(tmp_path, checkpoint, tiny_model, tiny_config):
    """Its tensors and its configuration have another word for the bodies of backbone and box head."""
    state = tiny_model.state_dict()
    tensors = {key.replace(".body.", f".{EARLIER_BODY}."): value.contiguous() for key, value in state.items()}
    model = tiny_config.model_dump(mode="json")
    for part in ("backbone", "regions"):
        model[part][EARLIER_BODY] = model[part].pop("body")
    path = tmp_path / "earlier.safetensors"
    header = json.dumps({"format": 1, "model": model, "notes": {}})
    safetensors.torch.save_file(tensors, path, {"fasterrcnn": header})
    assert native.load_checkpoint(path)[1] == tiny_config
    network, _ = load_model(path)
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in state.items())


def test_save__notes_and_new_folders(tmp_path, tiny_model, tiny_config):
    path = tmp_path / "runs" / "a" / "last.safetensors"
    native.save_checkpoint(path, tiny_model, tiny_config, {"epoch": 3, "data": "cells"})
    assert native.load_checkpoint(path)[2] == {"epoch": 3, "data": "cells"}
    assert os.listdir(path.parent) == ["last.safetensors"]


def test_save__keeps_the_old_file_when_it_fails(tmp_path, tiny_model, tiny_config, monkeypatch):
    path = tmp_path / "last.safetensors"
    native.save_checkpoint(path, tiny_model, tiny_config, {"epoch": 1})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        native.save_checkpoint(path, tiny_model, tiny_config, {"epoch": 2})
    assert native.load_checkpoint(path)[2] == {"epoch": 1}


def test_save__leaves_no_stray_file_when_it_fails(tmp_path, tiny_model, tiny_config, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        native.save_checkpoint(tmp_path / "last.safetensors", tiny_model, tiny_config)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("size", [0, 7, 100, 20_000])
def test_load__torn_file(tmp_path, checkpoint, size):
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(checkpoint.read_bytes()[:size])
    with pytest.raises(WeightsError, match=r"torn\.safetensors: not a readable safetensors file"):
        native.load_checkpoint(torn)


def test_load__foreign_files(tmp_path):
    text = tmp_path / "text.safetensors"
    text.write_text("hello, I am no checkpoint at all")
    with pytest.raises(WeightsError, match=r"text\.safetensors: not a readable safetensors file"):
        native.load_checkpoint(text)
    foreign = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(1)}, foreign)
    with pytest.raises(WeightsError, match=r"foreign\.safetensors: a safetensors file, but not of this library"):
        native.load_checkpoint(foreign)


def with_header(path, header) -> None:
    text = header if isinstance(header, str) else json.dumps(header)
    safetensors.torch.save_file({"a": torch.zeros(1)}, path, {"fasterrcnn": text})


@pytest.mark.parametrize(
    "header",
    [
        "{not json",
        "[]",
        '"text"',
        {"model": {"preset": "x"}, "notes": {}},
        {"format": 1, "notes": {}},
        {"format": 1, "model": {"preset": "x"}},
        {"format": 1, "model": {"preset": "x", "colour": "red"}, "notes": {}},
        {"format": 1, "model": {"preset": "x", "classes": ["a", "a"]}, "notes": {}},
    ],
)
def test_load__damaged_header(tmp_path, header):
    path = tmp_path / "damaged.safetensors"
    with_header(path, header)
    with pytest.raises(WeightsError, match=r"damaged\.safetensors: its header is damaged"):
        native.load_checkpoint(path)


def test_load__format_of_the_future(tmp_path):
    path = tmp_path / "future.safetensors"
    with_header(path, {"format": 2})
    with pytest.raises(WeightsError, match="written in format 2; this release reads 1"):
        native.load_checkpoint(path)


def test_load_model__no_such_file(tmp_path):
    with pytest.raises(WeightsError, match=r"absent\.safetensors: no such file"):
        load_model(tmp_path / "absent.safetensors")


def test_load_model__other_names(checkpoint):
    model, config = load_model(checkpoint, classes=["a", "b", "c"])
    assert model.classes == config.classes == ("a", "b", "c")
    with pytest.raises(WeightsError, match=r"tiny\.safetensors: holds 3 classes, not 2"):
        load_model(checkpoint, classes=["a", "b"])


def rewritten(checkpoint, path, change):
    """The checkpoint with its tensors changed, under the same header but for the hash, which would not fit."""
    with safetensors.safe_open(checkpoint, framework="pt") as file:
        header = json.loads(file.metadata()["fasterrcnn"])
    del header["sha256"]
    tensors = safetensors.torch.load_file(checkpoint)
    change(tensors)
    safetensors.torch.save_file(tensors, path, {"fasterrcnn": json.dumps(header)})
    return path


def test_load__file_without_a_hash(tmp_path, checkpoint, tiny_config):
    path = rewritten(checkpoint, tmp_path / "old.safetensors", lambda tensors: None)
    state, config, notes = native.load_checkpoint(path)
    expected, *_ = native.load_checkpoint(checkpoint)
    assert (config, notes) == (tiny_config, {})
    assert all(torch.equal(state[key], expected[key]) for key in expected)


@pytest.fixture
def small(tmp_path, tiny_config):
    """Four weights and two biases under the whole header of a detector."""
    path = tmp_path / "small.safetensors"
    native.save_checkpoint(path, nn.Linear(2, 2), tiny_config, {"epoch": 3})
    return path


def test_load__flipped_byte_in_the_tensors(small):
    good = small.read_bytes()
    for place in range(len(good) - 6 * 4, len(good)):
        small.write_bytes(flipped(good, place))
        with pytest.raises(WeightsError, match=r"small\.safetensors: damaged, its content is not what was written$"):
            native.load_checkpoint(small)


@pytest.mark.parametrize("bits", [0x01, *(pytest.param(bits, marks=pytest.mark.slow) for bits in (0x0F, 0x20))])
def test_load__flipped_byte_in_the_header_changes_nothing_that_is_read(small, bits):
    """Most are refused. Some mean the same (1e-05 and 1E-05), and who spoils the name of the hash has no hash."""
    good = small.read_bytes()
    state, *rest = native.load_checkpoint(small)
    messages = []
    for place in range(len(good) - 6 * 4):
        small.write_bytes(flipped(good, place, bits))
        try:
            seen, *others = native.load_checkpoint(small)
        except WeightsError as error:
            messages.append(str(error))
        else:
            assert others == rest, place
            assert seen.keys() == state.keys(), place
            assert all(seen[key].dtype == state[key].dtype for key in state), place
    assert len(messages) > 0.95 * len(good)
    assert not any("\n" in message for message in messages)


@pytest.mark.parametrize("text", ['"epoch": 3', '"cat"', '"short_side": 64'])
def test_load__other_header_under_the_same_hash(tmp_path, small, text):
    with safetensors.safe_open(small, framework="pt") as file:
        header = file.metadata()["fasterrcnn"]
    assert text in header
    changed = header.replace(text, text[:-1] + ("9" if text[-1].isdigit() else 's"'))
    path = tmp_path / "changed.safetensors"
    safetensors.torch.save_file(safetensors.torch.load_file(small), path, {"fasterrcnn": changed})
    with pytest.raises(WeightsError, match=r"changed\.safetensors: damaged, its content is not what was written"):
        native.load_checkpoint(path)


def flipped(content: bytes, place: int, bits: int = 0x01) -> bytes:
    return content[:place] + bytes([content[place] ^ bits]) + content[place + 1 :]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("rpn.deltas.bias"), "does not fit the model: missing rpn.deltas.bias"),
        (lambda t: t.update(extra=torch.zeros(1)), "does not fit the model: left over extra"),
        (
            lambda t: t.update({"rpn.deltas.bias": torch.zeros(3)}),
            r"rpn.deltas.bias has shape \(3,\), .* needs \(12,\)",
        ),
        (lambda t: t["rpn.deltas.bias"].fill_(float("nan")), "rpn.deltas.bias holds NaN or infinite numbers"),
        (lambda t: t["rpn.deltas.bias"].fill_(float("inf")), "rpn.deltas.bias holds NaN or infinite numbers"),
        (lambda t: [t.pop(k) for k in list(t) if k.startswith("rpn")], r"missing rpn\.[\w.]+, .* and 3 more"),
    ],
)
def test_load_model__tensors_that_do_not_fit(tmp_path, checkpoint, change, message):
    path = rewritten(checkpoint, tmp_path / "other.safetensors", change)
    with pytest.raises(WeightsError, match=rf"other\.safetensors: .*{message}"):
        load_model(path)


@pytest.mark.parametrize(
    "preset",
    [
        "mobilenetv3-large-320-fpn",
        "timm:test_resnet",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet50-c4", "resnet50-fpn-v2")),
    ],
)
def test_load_model__is_the_network_that_was_saved(tmp_path, shrink, preset):
    """Buffers that are in no file included, and the layout in memory."""
    config = shrink(presets.get(preset, ("cat", "dog")))
    pixels = config.input.model_copy(update={"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)})
    config = config.model_copy(update={"input": pixels})
    saved = assemble(config)
    native.save_checkpoint(tmp_path / "one.safetensors", saved, config)
    network, _ = load_model(tmp_path / "one.safetensors")
    assert_close(dict(network.state_dict()), dict(saved.state_dict()))
    assert_close(dict(network.named_buffers()), dict(saved.named_buffers()))
    strides = {name: parameter.stride() for name, parameter in saved.named_parameters()}
    assert {name: parameter.stride() for name, parameter in network.named_parameters()} == strides
    grads = {name: parameter.requires_grad for name, parameter in saved.named_parameters()}
    assert {name: parameter.requires_grad for name, parameter in network.named_parameters()} == grads
    assert not network.training
