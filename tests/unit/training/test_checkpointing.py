import argparse
import hashlib
import io
import re
import resource
import shutil

import pytest
import torch

from fasterrcnn.demo.scenes import write_scenes
from fasterrcnn.errors import WeightsError
from fasterrcnn.training import checkpointing
from fasterrcnn.training.fit import fit

MODEL = {"preset": "timm:test_efficientnet", "backbone": {"neck_channels": 32}, "regions": {"widths": [32]}}
STATE = {"epoch": 3, "weights": {str(number): torch.rand(1000) for number in range(200)}}


@pytest.mark.parametrize(("minutes", "frozen"), [(0.0, False), (60.0, False), (0.0, True)])
def test_resume__from_every_state(tmp_path, monkeypatch, minutes, frozen):
    """After every step and every epoch; after epochs alone; with a backbone that is trained later."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(checkpointing, "_KEPT_STATES", 1000)
    monkeypatch.setattr(checkpointing, "remove_states", lambda run: None)
    write_scenes(tmp_path / "scenes", train=3, val=1, test=1, seed=0, size_hw=(96, 96))
    options = {"model": MODEL, "weights": None, "short_side": 64, "logger": "none", "epochs": 3, "batch_size": 1}
    if frozen:
        start = fit(tmp_path / "scenes", output=tmp_path / "start", **{**options, "epochs": 1})
        options |= {"weights": str(start.last), "freeze": "backbone", "cache_features": True, "unfreeze_at": 2}
    run = fit(tmp_path / "scenes", output=tmp_path / "run", checkpoint_minutes=minutes, accumulate=2, **options)
    states = sorted(run.path.glob("state/[!.]*.state"))
    assert len(states) == (6 if minutes == 0 else 3)
    for newest in states:
        copy = tmp_path / newest.stem
        shutil.copytree(run.path, copy)
        (copy / "results.json").unlink()
        for later in copy.glob("state/[!.]*.state"):
            if later.name > newest.name:
                later.unlink()
        again = fit(resume=copy)
        assert again.last.read_bytes() == run.last.read_bytes()
        assert again.best.read_bytes() == run.best.read_bytes()
        assert again.metrics.keys() == run.metrics.keys()


def rewritten(state_file, content):
    """A state file whose hash is right, whatever it holds."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    payload = buffer.getvalue()
    state_file.write_bytes(
        b"fasterrcnn state, sha256 " + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload
    )
    return state_file


class _Malicious:
    def __init__(self, trap):
        self.trap = trap

    def __reduce__(self):
        return open, (str(self.trap), "w")


def test_load_checkpoint__plain_values_and_tensors(tmp_path):
    content = {
        "epoch": 3,
        "loops": {"a": [1, (2, None)]},
        "state_dict": {"w": torch.arange(3.0)},
        "trained_norms": [],
        "name": "x",
    }
    again = checkpointing.StateFiles().load_checkpoint(rewritten(tmp_path / "1.state", content))
    torch.testing.assert_close(again.pop("state_dict"), content.pop("state_dict"))
    assert again == content


@pytest.mark.parametrize("kind", ["code", "framework", "list"])
def test_load_checkpoint__refuses_everything_else(tmp_path, kind):
    content = {
        "code": {"state_dict": {}, "callbacks": _Malicious(tmp_path / "trap")},
        "framework": {"args": argparse.Namespace(a=1)},
        "list": [1],
    }[kind]
    said = {"code": "an object of io.open", "framework": "an object of argparse.Namespace", "list": "it holds a list"}
    with pytest.raises(WeightsError, match=rf"1\.state: no state of a run .*{re.escape(said[kind])}"):
        checkpointing.StateFiles().load_checkpoint(rewritten(tmp_path / "1.state", content))
    assert not (tmp_path / "trap").exists()


@pytest.fixture
def kept(tmp_path):
    """A folder with one whole state."""
    checkpointing.StateFiles().save_checkpoint(STATE, tmp_path / "000000001.state")
    return tmp_path


@pytest.mark.parametrize("room", [100, 10_000, 500_000])
def test_save__the_file_cannot_grow(kept, room):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(OSError, match=re.escape(str(kept / "000000002.state"))):
            checkpointing.StateFiles().save_checkpoint(STATE, kept / "000000002.state")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in kept.iterdir()] == ["000000001.state"]


def test_save__interrupted(kept, monkeypatch):
    class Impatient:
        """A checksum during whose work somebody presses Ctrl-C."""

        def update(self, _part):
            raise KeyboardInterrupt

        def hexdigest(self):
            return "0" * 64

    monkeypatch.setattr(checkpointing.hashlib, "sha256", Impatient)
    with pytest.raises(KeyboardInterrupt):
        checkpointing.StateFiles().save_checkpoint(STATE, kept / "000000002.state")
    assert [path.name for path in kept.iterdir()] == ["000000001.state"]


def test_save__sweeps_what_killed_processes_left(kept):
    (kept / ".123.000000001.state").write_bytes(b"half")
    checkpointing.StateFiles().save_checkpoint(STATE, kept / "000000002.state")
    assert sorted(path.name for path in kept.iterdir()) == ["000000001.state", "000000002.state"]


def test_newest_state__half_written_files_are_none(kept):
    (kept / ".123.000000002.state").write_bytes(b"half")
    (kept / checkpointing.STATES).mkdir()
    for path in list(kept.glob("*.state")):
        path.rename(kept / checkpointing.STATES / path.name)
    said: list[str] = []
    assert checkpointing.newest_state(kept, said.append) == checkpointing.state_path(kept, 1)
    for path in kept.glob(f"{checkpointing.STATES}/[!.]*"):
        path.unlink()
    assert checkpointing.newest_state(kept, said.append) is None
    assert not said
