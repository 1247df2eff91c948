"""What `torch.save` and numpy write is read as they read it; the limits hold."""

import io
import pickle
import runpy
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fasterrcnn.errors import WeightsError
from fasterrcnn.weights import safe_pickle
from fasterrcnn.weights.safe_pickle import NUMPY_NAMES, NumpyArray, read_pickle
from fasterrcnn.weights.safe_read import read_tensors, read_torch

hostile = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("hostile.py"))))
FILES = hostile.all_files("/nowhere/canary")


def written(content, **options):
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def read(raw, **options):
    return read_torch(io.BytesIO(raw), len(raw), **options)


BASE = torch.arange(24.0)
TENSORS = {
    "plain": torch.randn(3, 4),
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 3),
    "part": BASE[5:9],
    "strided": BASE.view(4, 6)[1:, ::2],
    "turned": BASE.view(4, 6).t(),
    "expanded": torch.ones(1, 3).expand(5, 3),
    "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    **{str(dtype): torch.ones(3).to(dtype) for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.bool)},
    **{str(dtype): torch.arange(3, dtype=dtype) for dtype in (torch.int64, torch.int32, torch.int16, torch.int8)},
}


@pytest.mark.parametrize("zipped", [True, False])
def test_read_torch__is_torch_load(zipped):
    """Tensors, their strides and shared storages, and every plain value, to the type."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    content = {
        "tensors": TENSORS,
        "model": model.state_dict(),
        "optimizer": torch.optim.Adam(model.parameters()).state_dict(),
        "plain": [None, True, 1, -(2**40), 2.5, "é", b"ab\xff", (1, (2, "x")), OrderedDict(a=1), torch.Size((2, 3))],
        "dtype": torch.float16,
        (1, "two"): {3: 4},
    }
    raw = written(content, _use_new_zipfile_serialization=zipped)
    expected = torch.load(io.BytesIO(raw), weights_only=True)
    ours = read(raw, skip=False)
    for key, tensor in expected.pop("tensors").items():
        assert_close(ours["tensors"][key], tensor, rtol=0, atol=0)
        assert ours["tensors"][key].stride() == tensor.stride()
        assert ours["tensors"][key].storage_offset() == tensor.storage_offset()
    storages = [ours["tensors"][key].untyped_storage().data_ptr() for key in ("part", "strided", "turned")]
    assert len(set(storages)) == 1
    del ours["tensors"]
    assert_close(ours.pop("model"), expected["model"], rtol=0, atol=0)
    assert expected.pop("model")._metadata == model.state_dict()._metadata
    assert ours == expected
    assert [type(value) for value in ours["plain"]] == [type(value) for value in expected["plain"]]


def test_read_torch__keeps_the_versions_of_modules():
    state = nn.BatchNorm2d(2).state_dict()
    assert read(written(state))._metadata == state._metadata


def test_read_torch__parameters():
    content = {"trained": nn.Parameter(torch.ones(2)), "fixed": nn.Parameter(torch.arange(2), requires_grad=False)}
    ours = read(written(content))
    assert [(type(value), value.requires_grad) for value in ours.values()] == [
        (nn.Parameter, True),
        (nn.Parameter, False),
    ]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_read_torch__every_protocol(protocol, zipped):
    raw = written({"w": BASE, "b": b"ab"}, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    ours = read(raw)
    assert_close(ours["w"], BASE)
    assert ours["b"] == b"ab"


def test_read_torch__of_the_other_byte_order():
    raw = written({"w": BASE, "i": torch.arange(3), "u": torch.arange(4, dtype=torch.uint8)})
    other = {"little": b"big", "big": b"little"}[sys.byteorder]
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries["archive/byteorder"] = other
    raw = hostile.zipped(entries)
    ours, expected = read(raw), torch.load(io.BytesIO(raw), weights_only=True)
    assert ours["w"][1] != 1
    for key, tensor in expected.items():
        assert ours[key].numpy().tobytes() == tensor.numpy().tobytes()


def test_read_torch__a_storage_of_bytes_under_another_dtype():
    """As `torch.save` writes numbers that have no storage class."""
    number = b"\x8a\x08" + (16).to_bytes(8, "little")
    storage = b"(" + hostile.text("storage") + b"ctorch.storage\nUntypedStorage\n" + hostile.text("0")
    storage += hostile.text("cpu") + number + b"tQ"
    made = b"ctorch._utils\n_rebuild_tensor_v3\n(" + storage + b"K\x01(K\x03t(K\x01t\x89ccollections\nOrderedDict\n)R"
    raw = hostile.torch_zip(
        b"}" + hostile.text("w") + made + b"ctorch\nfloat32\ntRs", **{"data/0": np.arange(4, dtype="<f4").tobytes()}
    )
    assert_close(read(raw), {"w": torch.tensor([1.0, 2, 3])})


def test_read_torch__damaged_numbers_are_noticed():
    raw = bytearray(written({"w": torch.ones(1000)}))
    raw[raw.index(b"\x00\x00\x80\x3f" * 9) + 17] ^= 1
    with pytest.raises(WeightsError, match="not a readable checkpoint \\(Bad CRC-32"):
        read(bytes(raw))


@pytest.mark.parametrize("name", ["mmengine.config.ConfigDict", "numpy._core.multiarray.scalar", "torch.device"])
def test_read_torch__objects_are_refused_where_none_is_skipped(name):
    raw = hostile.torch_zip(
        b"c" + name.rpartition(".")[0].encode() + b"\n" + name.rpartition(".")[2].encode() + b"\n)R"
    )
    assert type(read(raw)).__name__ == "Skipped"
    with pytest.raises(WeightsError, match=f"refused, it holds an object of {name}, and loading that could run code"):
        read(raw, skip=False)


def test_read_pickle__ends_where_the_pickle_ends():
    raw = pickle.dumps({"a": [np.arange(3), (1, None)]}, protocol=4) + pickle.dumps("next", protocol=5)
    file = io.BytesIO(raw)
    content = read_pickle(file, len(raw), NUMPY_NAMES)
    assert isinstance(content["a"][0], NumpyArray)
    assert_close(content["a"][0].tensor, torch.arange(3))
    assert content["a"][1] == (1, None)
    assert read_pickle(file, len(raw), NUMPY_NAMES) == "next"
    with pytest.raises(WeightsError, match="its pickle ends before its last instruction"):
        read_pickle(file, len(raw), NUMPY_NAMES)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torch: bomb, keys of one hash", "its pickle takes over 20,000 steps"),
        ("torch: bomb, copies of a text", "its pickle makes many copies of its bytes"),
        ("torch: bomb, a name again and again", "its pickle makes many copies of its bytes"),
        ("torch: bomb, a size again and again", "a tensor whose shape is no tuple of at most 8 sizes"),
        ("pickle: bomb, two million values", "its pickle takes over 20,000 steps"),
        ("torch: bomb, billion laughs as a key", "its pickle takes over 20,000 steps"),
        ("torch: bomb, less deep tuples as a key", "its pickle has tuples in tuples, over 100 deep"),
        ("tensor: keys that are deep", "its storages are not those of its tensors"),
        ("array: kind of lists", "an array of tuple, which are no weights"),
        ("array: shape of lists", "a tensor whose shape is no tuple of at most 8 sizes"),
        ("array: bytes of many arrays", "its pickle makes many copies of its bytes"),
    ],
)
def test_read_tensors__limits(tmp_path, monkeypatch, name, message):
    monkeypatch.setattr(safe_pickle, "MAX_STEPS", 20_000)  # every step is slow here, where types are checked
    (tmp_path / "w.pth").write_bytes(FILES[name])
    with pytest.raises(WeightsError, match=message):
        read_tensors(tmp_path / "w.pth")
