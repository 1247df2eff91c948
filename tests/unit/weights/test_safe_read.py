import argparse
import datetime
import pathlib
import pickle
import struct
from collections import OrderedDict

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.testing import assert_close

from fasterrcnn.errors import WeightsError
from fasterrcnn.weights.safe_read import read_metadata, read_tensors, weight_file_kind

STATE = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.zeros(2)}


def saved(tmp_path, content):
    path = tmp_path / "file.pth"
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state, "epoch": 3},
        lambda state: {"state_dict": state},
        lambda state: {"model_state_dict": state, "optimizer": {"lr": 0.1}},
        lambda state: {"model": {"state_dict": state}},
    ],
)
def test_read_tensors__unwraps(tmp_path, wrap):
    assert_close(read_tensors(saved(tmp_path, wrap(STATE)))[0], STATE)


def test_read_tensors__parameters_are_tensors(tmp_path):
    content = {"weight": nn.Parameter(torch.ones(2))}
    assert read_tensors(saved(tmp_path, content))[0].keys() == {"weight"}


class _Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


@pytest.mark.parametrize("with_torch", [True, False])
def test_read_tensors__runs_no_code(tmp_path, with_torch):
    trap, path = tmp_path / "trap.txt", tmp_path / "bad.pth"
    content = {"model": STATE, "extra": _Malicious(trap)}
    if with_torch:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(_Malicious(trap), protocol=2))
    with pytest.raises(
        WeightsError, match=r"bad\.pth: refused, it holds an object of io\.open, and loading that could run code"
    ):
        read_tensors(path)
    assert not trap.exists()
    pickle.loads(pickle.dumps(_Malicious(trap))).close()  # the trap itself works
    assert trap.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], r"file\.pth: no named tensors inside"),
        ({}, r"file\.pth: no named tensors inside"),
        ({"model": {}}, r"file\.pth: no named tensors inside"),
        ({"a": 1}, r"file\.pth: no named tensors inside"),
        ({"a": torch.zeros(1), "b.c": 1}, r"file\.pth: 'b\.c' is a int, not a tensor"),
        ({1: torch.zeros(1)}, r"file\.pth: 1 is a Tensor, not a tensor"),
    ],
)
def test_read_tensors__not_named_tensors(tmp_path, content, message):
    with pytest.raises(WeightsError, match=message):
        read_tensors(saved(tmp_path, content))


def test_read_tensors__whole_objects_are_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"refused, it holds a whole object of torch\.nn\.modules\.linear\.Linear"):
        read_tensors(saved(tmp_path, nn.Linear(1, 1)))
    with pytest.raises(WeightsError, match=r"object of .*Linear, .*; load it with .*, and save model\.state_dict\(\)"):
        read_tensors(saved(tmp_path, {"epoch": 3, "model": nn.Linear(1, 1)}))
    with pytest.raises(WeightsError, match=r"refused, it holds an object of .*default_rng"):
        read_tensors(saved(tmp_path, {"a": np.random.default_rng}))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_read_tensors__torn_file(tmp_path, share):
    path = saved(tmp_path, {"a": torch.zeros(3000)})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(WeightsError, match=r"file\.pth: not a (readable checkpoint|weight file)"):
        read_tensors(path)


@pytest.mark.parametrize(
    "content", [b"hello world\n", b"<!DOCTYPE html>", b"PK\x03\x04junk", b"\0" * 100, b"ustar" * 200]
)
def test_read_tensors__other_files(tmp_path, content):
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"file\.pth: ") as caught:
        read_tensors(path)
    assert "weights_only" not in str(caught.value)  # torch's advice to run the code


MANY = {
    "a.weight": torch.arange(12.0).view(3, 4),
    "half": torch.tensor([1.5, -2]).half(),
    "brain": torch.tensor([1.5, -2]).bfloat16(),
    "count": torch.tensor(7),
    "flags": torch.tensor([True, False]),
    "nothing": torch.zeros(0, 4),
    "turned": torch.arange(6.0).view(2, 3).t(),
}


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors", "weights.pkl", "weights"])
def test_read_tensors__kind_by_content(tmp_path, name):
    torch.save(MANY, tmp_path / name)
    assert weight_file_kind(tmp_path / name) == "torch"
    assert_close(read_tensors(tmp_path / name)[0], MANY)
    torch.save(MANY, tmp_path / name, _use_new_zipfile_serialization=False)
    assert weight_file_kind(tmp_path / name) == "torch"
    assert_close(read_tensors(tmp_path / name)[0], MANY)
    flat = {key: value.contiguous() for key, value in MANY.items()}
    safetensors.torch.save_file(flat, tmp_path / name, {"format": "pt"})
    assert weight_file_kind(tmp_path / name) == "safetensors"
    tensors, metadata = read_tensors(tmp_path / name)
    assert_close(tensors, MANY)
    assert metadata == read_metadata(tmp_path / name) == {"format": "pt"}
    (tmp_path / name).write_bytes(pickle.dumps({"w": np.arange(3)}, protocol=2))
    assert weight_file_kind(tmp_path / name) == "numpy"
    assert read_metadata(tmp_path / name) == {}


@pytest.mark.parametrize("length", [632, 640, 648])
def test_read_tensors__header_whose_length_reads_as_a_pickle(tmp_path, length):
    """640 is the beginning of a pickle of protocol 2."""
    file = tmp_path / "w.safetensors"
    for padding in range(length):
        safetensors.torch.save_file({"w": torch.ones(2)}, file, {"a": "x" * padding})
        if struct.unpack("<Q", file.read_bytes()[:8])[0] == length:
            break
    assert_close(read_tensors(file)[0], {"w": torch.ones(2)})


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("order", ["<", ">"])
def test_read_tensors__arrays_of_detectron2(tmp_path, protocol, order):
    arrays = {
        "w": np.arange(24, dtype=f"{order}f4").reshape(2, 3, 4),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "half": np.array([0.5, -1], f"{order}f2"),
        "scalar": np.array(3, f"{order}i8"),
        "empty": np.zeros((0, 4), np.float32),
        "bytes": np.arange(256, dtype=np.uint8),
    }
    content = {"model": arrays, "__author__": "someone", "matching_heuristics": True, "step": np.float32(2)}
    (tmp_path / "final.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    tensors, metadata = read_tensors(tmp_path / "final.pkl")
    assert tensors.keys() == arrays.keys()
    for key, array in arrays.items():
        assert_close(tensors[key], torch.from_numpy(array.astype(array.dtype.newbyteorder("="))))
    tensors["w"].zero_()  # can be written to
    assert metadata == {"__author__": "someone", "matching_heuristics": True, "step": 2.0}


def test_read_tensors__arrays_written_by_python_2(tmp_path):
    """Bytes of an array as text, module names of old numpy."""
    raw = np.array([1.5, -2], "<f4").tobytes()
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    kind = b"cnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    state = b"(K\x01(K\x02t" + kind + b"\x89U" + bytes([len(raw)]) + raw + b"tb"
    (tmp_path / "old.pkl").write_bytes(b"\x80\x02}U\x05blobs}U\x06conv_w" + made + state + b"ss.")
    assert_close(read_tensors(tmp_path / "old.pkl")[0], {"conv_w": torch.tensor([1.5, -2])})


def test_read_tensors__mmdetections_meta_is_left_out(tmp_path):
    meta = {
        "args": argparse.Namespace(lr=1),
        "time": datetime.datetime(2020, 1, 1),
        "work_dir": pathlib.PurePosixPath("/x"),
        "CLASSES": ("cat", "dog"),
        "dataset_meta": {"classes": ["cat"], "palette": [(1, 2, 3)]},
        "loss": np.float64(3),
        "history": np.zeros(3),
        "version": "3.3.0",
    }
    content = {"meta": meta, "state_dict": OrderedDict(STATE), "optimizer": {"lr": 0.1, "state": {0: torch.ones(2)}}}
    for modern in (True, False):
        torch.save(content, tmp_path / "epoch_12.pth", _use_new_zipfile_serialization=modern)
        tensors, metadata = read_tensors(tmp_path / "epoch_12.pth")
        assert_close(tensors, STATE)
        assert metadata["meta"]["CLASSES"] == ["cat", "dog"]
        assert metadata["meta"]["dataset_meta"] == {"classes": ["cat"], "palette": [[1, 2, 3]]}
        assert metadata["meta"]["version"] == "3.3.0"
        assert metadata["optimizer"] == {"lr": 0.1, "state": {}}
        assert [metadata["meta"][key] for key in ("args", "time", "loss", "history")] == [None] * 4


def test_read_tensors__classes_that_are_not_installed(tmp_path):
    """As mmengine's log buffers: nothing of them is imported or built."""
    made = b"cmmengine.logging.history_buffer\nHistoryBuffer\n)\x81}X\x01\x00\x00\x00aK\x01sb"
    method = b"c__builtin__\ngetattr\n(cmmengine.logging.history_buffer\nHistoryBuffer\nX\x03\x00\x00\x00mintR"
    torch.save({"state_dict": STATE}, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "w.pth").read_bytes()
    place = whole.index(b"X\x0a\x00\x00\x00state_dict") - 1  # before the name and what may be around it
    begin = whole.rindex(b"}q\x00", 0, place + 1) + 3
    extra = b"(X\x04\x00\x00\x00meta](" + made + method + b"eu"
    (tmp_path / "w.pth").write_bytes(whole[:begin] + extra + whole[begin:])
    tensors, metadata = read_tensors(tmp_path / "w.pth")
    assert_close(tensors, STATE)
    assert metadata == {"meta": [None, None]}


def test_read_tensors__shared_storages(tmp_path):
    """Views of one storage stay what they are, however they are laid out."""
    base = torch.arange(10.0)
    state = {"whole": base, "part": base[2:5], "tied": base}
    torch.save(state, tmp_path / "w.pth")
    assert_close(read_tensors(tmp_path / "w.pth")[0], state)


def test_read_tensors__meta_goes_before_an_optimisers_many_numbers(tmp_path):
    content = {"optimizer": list(range(20_000)), "state_dict": STATE, "meta": {"CLASSES": ("cat", "dog")}}
    torch.save(content, tmp_path / "epoch_12.pth")
    assert read_tensors(tmp_path / "epoch_12.pth")[1]["meta"] == {"CLASSES": ["cat", "dog"]}


def test_read_tensors__values_beside_the_weights_are_bounded(tmp_path):
    nested = 1
    for _ in range(50):
        nested = [nested]
    content = {"model": STATE, "many": list(range(30_000)), "deep": nested, "log": "x" * 1000, 3: "number"}
    torch.save(content, tmp_path / "w.pth")
    metadata = read_tensors(tmp_path / "w.pth")[1]
    assert metadata["many"][:3] == [0, 1, 2]
    assert len(metadata["many"]) <= 10_000
    assert 3 not in metadata


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html>", "a web page or XML, probably what a site answered"),
        (b"\n <html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS, .*: run git lfs pull"),
        (b"\x1f\x8b\x08", "packed by gzip: unpack it first"),
        (bytes(257) + b"ustar" + bytes(300), "a tar archive: unpack it first"),
        (b"hello", "neither safetensors nor a checkpoint of torch or numpy"),
    ],
)
def test_weight_file_kind__names_what_it_is_instead(tmp_path, content, message):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=rf"w\.pth: not a weight file: {message}"):
        weight_file_kind(tmp_path / "w.pth")
