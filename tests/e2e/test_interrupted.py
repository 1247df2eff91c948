"""Runs that are killed, torn or stopped, in processes of their own."""

import csv
import io
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from fasterrcnn.demo.scenes import write_scenes
from fasterrcnn.errors import FasterRCNNError, UsageError
from fasterrcnn.training import checkpointing
from fasterrcnn.training.fit import fit
from fasterrcnn.weights import native

SETTINGS = {
    "model": {"preset": "timm:test_efficientnet", "backbone": {"neck_channels": 32}, "regions": {"widths": [32]}},
    "weights": None,
    "short_side": 64,
    "epochs": 12,
    "batch_size": 1,
    "accumulate": 2,
    "logger": "none",
    "checkpoint_minutes": 0.0,
}
WEIGHTS = ("best.safetensors", "last.safetensors")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, train=7, val=1, test=1, seed=0, size_hw=(96, 96))
    return folder


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    file = tmp_path_factory.mktemp("settings") / "settings.yaml"
    file.write_text(yaml.safe_dump(SETTINGS))
    return file


def interrupted(scenes, settings, run, *, seed=0, kills=0) -> None:
    script = Path(__file__).with_name("interrupted.py")
    command = [sys.executable, script, scenes, run, str(seed), str(kills), settings]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == kills


@pytest.fixture(scope="module")
def unbroken(scenes, settings, tmp_path_factory):
    run = tmp_path_factory.mktemp("unbroken") / "run"
    interrupted(scenes, settings, run)
    return run


def assert_same(run, unbroken) -> None:
    for name in WEIGHTS:
        assert (run / name).read_bytes() == (unbroken / name).read_bytes()
    tables = [list(csv.DictReader(io.StringIO((folder / "metrics.csv").read_text()))) for folder in (run, unbroken)]
    for rows in tables:
        for row in rows:
            del row["seconds"]
    assert tables[0] == tables[1]
    assert not list(run.glob(".*"))


def test_resume__killed_at_20_random_moments(scenes, settings, unbroken, tmp_path):
    interrupted(scenes, settings, tmp_path / "run", seed=1, kills=20)
    assert_same(tmp_path / "run", unbroken)


def start(scenes, settings, run) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fasterrcnn", "train", scenes, "--config", settings, "-o", run]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def wait_for(happened) -> None:
    for _ in range(3000):
        if happened():
            return
        time.sleep(0.02)
    pytest.fail("it did not happen in a minute")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_resume__stopped_by_a_signal(scenes, settings, unbroken, tmp_path, number, code):
    run = tmp_path / "run"
    process = start(scenes, settings, run)
    wait_for(lambda: len(list(run.glob("state/[!.]*.state"))) > 1)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"stopped; resume with: fasterrcnn train --resume {run}" in out
    assert not (run / "results.json").exists()
    interrupted(scenes, settings, run)
    assert_same(run, unbroken)


def test_resume__torn_files(scenes, settings, unbroken, tmp_path):
    chance = random.Random(0)
    run = tmp_path / "run"
    process = start(scenes, settings, run)
    wait_for(lambda: (run / "best.safetensors").exists() and len(list(run.glob("state/[!.]*.state"))) > 1)
    process.kill()
    process.communicate()
    states = sorted(run.glob("state/[!.]*.state"))
    whole = {path: path.read_bytes() for path in (*states, *(run / name for name in WEIGHTS)) if path.exists()}
    for _ in range(6):
        for path, content in whole.items():
            path.write_bytes(content)
        for path in chance.sample(sorted(whole), chance.randint(1, len(whole))):
            tear(path, chance)
        good = [path for path in states if path.read_bytes() == whole[path]]
        lines: list[str] = []
        assert checkpointing.newest_state(run, lines.append) == (good[-1] if good else None)
        assert len(lines) == len([path for path in states if path not in good and path > max(good, default=run)])
        for name in WEIGHTS:
            if (run / name) in whole and (run / name).read_bytes() != whole[run / name]:
                with pytest.raises(FasterRCNNError, match=name):
                    native.load_checkpoint(run / name)
    for path in states:
        tear(path, chance)
    interrupted(scenes, settings, run)  # with no state left, from the beginning
    assert_same(run, unbroken)


def tear(path, chance) -> None:
    """Cut the file, or change a byte, at a random place."""
    content = path.read_bytes()
    place = chance.randrange(len(content))
    changed = bytes([content[place] ^ (1 + chance.randrange(255))])
    path.write_bytes(content[:place] if chance.random() < 0.5 else content[:place] + changed + content[place + 1 :])


def test_resume__finished_run(unbroken):
    lines = []
    before = {path: path.stat().st_mtime_ns for path in unbroken.iterdir()}
    run = fit(resume=unbroken, log=lines.append)
    assert lines == [f"{unbroken} is finished; there is nothing to resume"]
    assert run.metrics["epoch"] >= 1
    assert before == {path: path.stat().st_mtime_ns for path in unbroken.iterdir()}


def test_resume__no_run(tmp_path):
    with pytest.raises(UsageError, match=r"config\.yaml: No such file or directory"):
        fit(resume=tmp_path)


def test_resume__data_that_changed(scenes, settings, tmp_path):
    run = tmp_path / "run"
    process = start(scenes, settings, run)
    wait_for(lambda: any(run.glob("state/[!.]*.state")))
    process.kill()
    process.communicate()
    other = tmp_path / "other"
    write_scenes(other, train=7, val=1, test=1, seed=1, size_hw=(96, 96))
    with pytest.raises(UsageError, match="images or objects have changed since"):
        fit(other, resume=run)
