"""Runs that are killed, torn or stopped, in processes of their own.

No test depends on speed: a process is killed after a random amount of its own work, or at a step, or it waits at a step
for what is to happen there.
"""

import csv
import io
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
import yaml
from tests.e2e.forked import Forked, command_line

from fasterrcnn.demo.scenes import write_scenes
from fasterrcnn.errors import FasterRCNNError, UsageError
from fasterrcnn.training import checkpointing, run_folder
from fasterrcnn.training.fit import fit
from fasterrcnn.training.prepare import SETTINGS_FILE
from fasterrcnn.weights import native

EPOCHS = 2
STEPS = 4 * EPOCHS
"""Of the whole run: 7 images, two a step."""

MAX_SECONDS = 1.5
"""Of processor time, before a process is killed: reading data and a state takes some tenths, a step some hundredths."""

SETTINGS = {
    "model": {"preset": "timm:test_efficientnet", "backbone": {"neck_channels": 32}, "regions": {"widths": [32]}},
    "weights": None,
    "short_side": 64,
    "epochs": EPOCHS,
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


def train(data: str, run: str, config: str, seconds: float = 0, last_step: int = STEPS) -> None:
    """Begin or continue a run; the system kills this process after that much work, and no later than at that step."""
    save = checkpointing.StateFiles.save_checkpoint
    write = run_folder.write_bytes

    def save_and_stop(*arguments, **options):
        save(*arguments, **options)
        if last_step < STEPS and steps_done(run) >= last_step:
            os.kill(os.getpid(), signal.SIGKILL)

    def write_and_start_the_clock(path, content):
        write(path, content)
        if path.name == SETTINGS_FILE:  # before, there is nothing to go on with
            signal.setitimer(signal.ITIMER_PROF, seconds)

    checkpointing.StateFiles.save_checkpoint = save_and_stop
    if (Path(run) / SETTINGS_FILE).exists():
        signal.setitimer(signal.ITIMER_PROF, seconds)
        fit(resume=run)
    else:
        run_folder.write_bytes = write_and_start_the_clock
        fit(data, output=run, config=config)


def steps_done(run: str) -> int:
    return max((int(path.stem) for path in Path(run).glob("state/[!.]*.state")), default=0)


def interrupted(scenes, settings, run, *, seed=0, kills=0) -> None:
    """Train to the end, in as many processes more as are to be killed."""
    rng = random.Random(seed)
    arguments, where = (str(scenes), str(run), str(settings)), {"cwd": run.parent}
    for number in range(kills):
        seconds, last_step = rng.uniform(0.01, MAX_SECONDS), int(STEPS * (number + 1) / (kills + 1))
        code, _, errors = Forked(train, *arguments, seconds, last_step, **where).finish()
        assert code in (-signal.SIGPROF, -signal.SIGKILL), errors
    code, _, errors = Forked(train, *arguments, **where).finish()
    assert code == 0, errors


def killed_at_step(step, scenes, settings, run) -> None:
    """A run whose process was killed when it had saved the state of that step."""
    code, _, errors = Forked(train, str(scenes), str(run), str(settings), 0, step, cwd=run.parent).finish()
    assert code == -signal.SIGKILL, errors


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


@pytest.mark.parametrize(
    ("seed", "kills"), [(1, 2), *(pytest.param(seed, STEPS - 2, marks=pytest.mark.slow) for seed in (2, 3, 4))]
)
def test_resume__killed_at_random_moments(scenes, settings, unbroken, tmp_path, seed, kills):
    """Fewer kills than steps: each process may do one step, and the run must not end before the last kill."""
    interrupted(scenes, settings, tmp_path / "run", seed=seed, kills=kills)
    assert_same(tmp_path / "run", unbroken)


def test_resume__killed_in_bfloat16(scenes, tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump({**SETTINGS, "precision": "bf16"}))
    interrupted(scenes, file, tmp_path / "unbroken")
    killed_at_step(3, scenes, file, tmp_path / "run")
    interrupted(scenes, file, tmp_path / "run")
    assert_same(tmp_path / "run", tmp_path / "unbroken")


def train_and_wait(run: str, step: int, *arguments: str) -> None:
    """The command line, which waits at that step until it may go on."""
    save = checkpointing.StateFiles.save_checkpoint

    def save_and_wait(*arguments, **options):
        save(*arguments, **options)
        if steps_done(run) == step:
            sys.stdout.write("here\n")
            sys.stdout.flush()
            while not Path(run, "go").exists():
                time.sleep(0.01)
            Path(run, "go").unlink()

    checkpointing.StateFiles.save_checkpoint = save_and_wait
    command_line(*arguments)


@pytest.mark.parametrize(
    ("number", "code"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)]
)
def test_resume__stopped_by_a_signal(scenes, settings, unbroken, tmp_path, number, code):
    run = tmp_path / "run"
    command = ("train", str(scenes), "--config", str(settings), "-o", str(run))
    process = Forked(train_and_wait, str(run), 6, *command, cwd=tmp_path)
    while process.stdout.readline() not in (b"here\n", b""):
        pass
    process.send_signal(number)
    (run / "go").touch()
    returned, out, errors = process.finish()
    assert returned == code, errors
    assert f"stopped; resume with: fasterrcnn train --resume {run}" in out
    assert not (run / "results.json").exists()
    interrupted(scenes, settings, run)
    assert_same(run, unbroken)


def test_resume__torn_files(scenes, settings, unbroken, tmp_path):
    chance = random.Random(0)
    run = tmp_path / "run"
    killed_at_step(6, scenes, settings, run)
    assert (run / "best.safetensors").exists()
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
    assert lines == [
        f"{unbroken} is finished; there is nothing to resume. To train on from these weights, start a new run: "
        f"fasterrcnn train DATA --weights {unbroken / 'last.safetensors'} --epochs N"
    ]
    assert run.metrics["epoch"] >= 1
    assert before == {path: path.stat().st_mtime_ns for path in unbroken.iterdir()}


def test_resume__no_run(tmp_path):
    with pytest.raises(UsageError, match=r"not the folder of a run, which has a config\.yaml"):
        fit(resume=tmp_path)


def test_resume__file_of_a_run(unbroken, tmp_path):
    advice = (
        rf"resume takes the folder of an interrupted run \(--resume {unbroken}\), not a file\. .* --weights \S+last"
    )
    with pytest.raises(UsageError, match=advice):
        fit(resume=unbroken / "last.safetensors")
    (tmp_path / "other.pth").touch()
    with pytest.raises(UsageError, match=r"takes the folder of an interrupted run, not a file\. To train on"):
        fit(resume=tmp_path / "other.pth")


def test_resume__data_that_changed(scenes, settings, tmp_path):
    run = tmp_path / "run"
    killed_at_step(1, scenes, settings, run)
    other = tmp_path / "other"
    write_scenes(other, train=7, val=1, test=1, seed=1, size_hw=(96, 96))
    with pytest.raises(UsageError, match="images or objects have changed since"):
        fit(other, resume=run)
