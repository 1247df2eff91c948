import argparse
import hashlib
import io
import re
import resource
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import yaml

from fasterrcnn.config import EARLIER_BODY
from fasterrcnn.errors import WeightsError
from fasterrcnn.training import checkpointing
from fasterrcnn.training.fit import fit

STATE = {"epoch": 3, "weights": {str(number): torch.rand(1000) for number in range(200)}}


@pytest.fixture
def all_states(monkeypatch):
    """Runs keep all of their states."""
    monkeypatch.setattr(checkpointing, "_KEPT_STATES", 1000)
    monkeypatch.setattr(checkpointing, "remove_states", lambda run: None)


def states_of(run) -> list[Path]:
    return sorted(run.path.glob("state/[!.]*.state"))


def copy_interrupted(run, newest, folder) -> Path:
    """A copy of the run as it was when that state was the newest one."""
    shutil.copytree(run.path, folder)
    (folder / "results.json").unlink()
    for later in folder.glob("state/[!.]*.state"):
        if later.name > newest.name:
            later.unlink()
    return folder


@pytest.mark.usefixtures("all_states")
@pytest.mark.parametrize(
    ("minutes", "frozen"), [*(pytest.param(m, False, marks=pytest.mark.slow) for m in (0.0, 60.0)), (0.0, True)]
)
def test_resume__from_every_state(train, start, tmp_path, monkeypatch, minutes, frozen):
    """After every step and every epoch; after epochs alone; with a backbone that is trained later."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = {"epochs": 3, "batch_size": 1, "checkpoint_minutes": minutes, "accumulate": 2}
    if frozen:
        options |= {"weights": str(start.last), "freeze": "backbone", "cache_features": True, "unfreeze_at": 2}
    run = train("run", **options)
    assert len(states_of(run)) == (6 if minutes == 0 else 3)
    for newest in states_of(run):
        again = fit(resume=copy_interrupted(run, newest, tmp_path / newest.stem))
        assert again.last.read_bytes() == run.last.read_bytes()
        assert again.best.read_bytes() == run.best.read_bytes()
        assert again.metrics.keys() == run.metrics.keys()


@pytest.mark.usefixtures("all_states")
def test_resume__run_of_version_0_1(train, start, tmp_path):
    """Its word for a body is in the names of tensors and in the settings, and data.txt has other words."""
    run = train("run", epochs=2, weights=str(start.last), ema=0.5)
    newest = states_of(run)[0]
    folder = copy_interrupted(run, newest, tmp_path / "old")

    def earlier(name):
        return re.sub(r"\b(backbone|box_head)\.body\b", rf"\1.{EARLIER_BODY}", name)

    state = checkpointing.StateFiles().load_checkpoint(newest)
    state["state_dict"] = {earlier(name): value for name, value in state["state_dict"].items()}
    average = state["callbacks"]["WeightAverage"]
    average["average"] = {earlier(name): value for name, value in average["average"].items()}
    for names in (state["state_dict"], average["average"]):
        assert any(f"backbone.{EARLIER_BODY}." in name for name in names)
    rewritten(folder / "state" / newest.name, state)
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    for part in ("backbone", "regions"):
        settings["model"][part][EARLIER_BODY] = settings["model"][part].pop("body")
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    (folder / "data.txt").write_text((folder / "data.txt").read_text().replace("images", "pictures"))

    again = fit(resume=folder)
    assert again.last.read_bytes() == run.last.read_bytes()
    assert again.best.read_bytes() == run.best.read_bytes()


def rewritten(state_file, content):
    """A state file whose hash is right, whatever it holds."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    payload = buffer.getvalue()
    state_file.write_bytes(
        b"fasterrcnn state, sha256 " + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload
    )
    return state_file


def test_load_checkpoint__fixed_norms_of_version_0_1(tmp_path):
    path = rewritten(
        tmp_path / "1.state", {"state_dict": {}, "trained_norms": [f"backbone.{EARLIER_BODY}.norm1", "norm2"]}
    )
    assert checkpointing.StateFiles().load_checkpoint(path)["trained_norms"] == ["backbone.body.norm1", "norm2"]


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
    reasons = {
        "code": "an object of io.open",
        "framework": "an object of argparse.Namespace",
        "list": "it holds a list",
    }
    with pytest.raises(WeightsError, match=rf"1\.state: no state of a run .*{re.escape(reasons[kind])}"):
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
    lines: list[str] = []
    assert checkpointing.newest_state(kept, lines.append) == checkpointing.state_path(kept, 1)
    for path in kept.glob(f"{checkpointing.STATES}/[!.]*"):
        path.unlink()
    assert checkpointing.newest_state(kept, lines.append) is None
    assert not lines


class Clock:
    """A trainer whose states take some seconds each."""

    global_step, world_size, strategy = 1, 1, argparse.Namespace(broadcast=lambda value: value)

    def __init__(self, monkeypatch, cost):
        self.now, self.cost, self.saved = 0.0, cost, []
        monkeypatch.setattr(checkpointing.time, "monotonic", lambda: self.now)

    def save_checkpoint(self, path):
        self.now += self.cost
        self.saved.append(self.now)


@pytest.mark.parametrize(("cost", "epoch", "count"), [(0.4, 1, 6), (2.0, 45, 6), (2.0, 10, 2), (2.0, 39, 3)])
def test_save_state__after_epochs_that_are_long_enough(monkeypatch, tmp_path, cost, epoch, count):
    """Six epochs: cheap states are written after each, others when twenty times their seconds have passed."""
    clock = Clock(monkeypatch, cost)
    callback = checkpointing.SaveState(tmp_path, 5.0)
    for _ in range(6):
        clock.now += epoch
        callback.on_train_epoch_end(clock, argparse.Namespace(requests={"stop": 0, "save": 0}))
    assert len(clock.saved) == count


@pytest.mark.parametrize("request_", ["stop", "save"])
def test_save_state__after_a_short_epoch_if_asked_for(monkeypatch, tmp_path, request_):
    clock = Clock(monkeypatch, 2.0)
    callback = checkpointing.SaveState(tmp_path, 5.0)
    idle = {"stop": 0, "save": 0}
    for _ in range(2):
        callback.on_train_epoch_end(clock, argparse.Namespace(requests=idle))
    assert len(clock.saved) == 1
    with pytest.raises(checkpointing.Stopped) if request_ == "stop" else nullcontext():
        callback.on_train_epoch_end(clock, argparse.Namespace(requests={**idle, request_: 15}))
    assert len(clock.saved) == 2
