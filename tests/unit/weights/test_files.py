import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fasterrcnn.errors import WeightsError
from fasterrcnn.weights.files import read_tensors

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
        ({"a": 1}, r"file\.pth: 'a' is a int, not a tensor"),
        ({"epoch": 3, "weights": STATE}, r"file\.pth: 'epoch' is a int, not a tensor"),
        ({1: torch.zeros(1)}, r"file\.pth: 1 is a Tensor, not a tensor"),
    ],
)
def test_read_tensors__not_named_tensors(tmp_path, content, message):
    with pytest.raises(WeightsError, match=message):
        read_tensors(saved(tmp_path, content))


def test_read_tensors__whole_objects_are_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"refused, it holds an object of torch\.nn\.modules\.linear\.Linear"):
        read_tensors(saved(tmp_path, nn.Linear(1, 1)))
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
