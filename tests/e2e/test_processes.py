"""Several processes that train together, as one command and under torchrun.

The slow tests start them as users do it; the others fork them with the variables that torchrun sets.
"""

import os
import re
import shutil
import socket
import subprocess
import sys

import pytest
import torch
from tests.e2e.forked import run_command, start_command
from torch.distributed import TCPStore

from fasterrcnn.demo.scenes import write_scenes
from fasterrcnn.training.fit import fit
from fasterrcnn.weights import native

OPTIONS = ["--model", "timm:test_efficientnet", "--short-side", "64", "--optimizer", "sgd", "--epochs", "2"]
SMALL = ["model.backbone.neck_channels=32", "model.regions.widths=[32]"]
OPTIONS += ["--logger", "none", "--set", "ema=0.9", "--set", SMALL[0], "--set", SMALL[1]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """13 scenes, so that the last batch has one image and one process none; some are without objects."""
    folder = tmp_path_factory.mktemp("processes")
    write_scenes(folder / "scenes", train=13, val=3, test=1, seed=0, size_hw=(96, 128))
    fit(folder / "scenes", model="timm:test_efficientnet", weights=None, short_side=64, epochs=1, logger="none",
        output=folder / "start", assignments=SMALL)  # fmt: skip
    train_alone(folder, "one")
    return folder


def arguments_of(folder, name, options, data) -> list[str]:
    start = ["--weights", str(folder / "start" / "last.safetensors"), "-o", str(folder / name)]
    return ["train", str(folder / data), *OPTIONS, *start, *options]


def train_alone(folder, name, *options, data="scenes") -> None:
    """In one process, with batches of four."""
    arguments = arguments_of(folder, name, ["--batch-size", "4", *options], data)
    environment = {"XDG_CACHE_HOME": str(folder / "cache" / name)}
    code, _, errors = run_command(*arguments, cwd=folder, environment=environment)
    assert code == 0, errors


def train(folder, name, *options, data="scenes", launcher=("-m", "fasterrcnn")) -> subprocess.CompletedProcess[str]:
    """In two processes, with batches of two each."""
    command = [sys.executable, *launcher, *arguments_of(folder, name, ["--batch-size", "2", *options], data)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache" / name)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done


def train_forked(folder, name) -> str:
    """Like `train` under torchrun, but the processes import nothing anew; returns their output.

    They meet in a store of this process, as in that of torchrun: no other program can take its port meanwhile.
    """
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "none"}
    shared |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    shared |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(store.port)}
    shared |= {"XDG_CACHE_HOME": str(folder / "cache" / name)}
    arguments = arguments_of(folder, name, ["--batch-size", "2"], "scenes")
    ranks = [{**shared, "RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
    processes = [start_command(*arguments, cwd=folder, environment=environment) for environment in ranks]
    done = [process.finish() for process in processes]
    assert [code for code, _, _ in done] == [0, 0], done
    return "".join(output for _, output, _ in done)


def assert_same_weights(first, second) -> None:
    ours, theirs = (native.load_checkpoint(run / "last.safetensors")[0] for run in (first, second))
    for key, value in ours.items():
        torch.testing.assert_close(theirs[key], value, atol=1e-5, rtol=0)


def test_processes__two_learn_what_one_does(folder):
    output = train_forked(folder, "forked")
    assert_same_weights(folder / "one", folder / "forked")
    assert output.count("epoch 2/2") == 1
    assert output.count("wrote ") == 1


@pytest.mark.slow
def test_devices__two_processes_learn_what_one_does(folder):
    done = train(folder, "two", "--devices", "2")
    assert_same_weights(folder / "one", folder / "two")
    assert done.stdout.count("epoch 2/2") == 1
    assert done.stdout.count("wrote ") == 1


@pytest.mark.slow
def test_devices__one_process_sees_no_object_at_all(folder):
    """Only one image has objects: in every epoch, one of two processes learns from empty images alone."""
    shutil.copytree(folder / "scenes", folder / "empty")
    first, *others = sorted((folder / "empty" / "Annotations").iterdir())
    assert "<object>" in first.read_text()
    for file in others:
        file.write_text(re.sub("<object>.*</object>", "", file.read_text(), flags=re.DOTALL))
    train_alone(folder, "one-empty", data="empty")
    train(folder, "two-empty", "--devices", "2", data="empty")
    assert_same_weights(folder / "one-empty", folder / "two-empty")


@pytest.mark.slow
def test_devices__two_processes_share_a_feature_cache(folder):
    frozen = ["--freeze", "backbone", "--cache-features"]
    train_alone(folder, "one-frozen", *frozen)
    train(folder, "two-frozen", "--devices", "2", *frozen)
    assert_same_weights(folder / "one-frozen", folder / "two-frozen")
    one, two = (sorted(path.name for path in (folder / "cache" / name).rglob("*.safetensors"))
                for name in ("one-frozen", "two-frozen"))  # fmt: skip
    assert one == two
    assert len(one) == 16


@pytest.mark.slow
def test_torchrun__two_processes_learn_what_one_does(folder):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port, "-m", "fasterrcnn")
    train(folder, "run", launcher=launcher)
    assert_same_weights(folder / "one", folder / "run")


SCRIPT = """
import sys
from fasterrcnn.data import dataset
from fasterrcnn.training.fit import fit

dataset.start_method = lambda: sys.argv[2]
fit(sys.argv[1], model="timm:test_efficientnet", weights=None, short_side=64, epochs=1, logger="none", workers=1,
    output=sys.argv[3], assignments=["model.backbone.neck_channels=32", "model.regions.widths=[32]"])
"""


@pytest.mark.slow
@pytest.mark.parametrize(("method", "works"), [("fork", True), ("spawn", False)])
def test_script_without_a_guard(folder, tmp_path, method, works):
    """It trains where reading processes are copies, and elsewhere the guard is named."""
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, tmp_path / "script.py", folder / "scenes", method, tmp_path / "run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode == 0) == works
    if not works:
        assert 'call fit below if __name__ == "__main__":, or take workers=0' in done.stderr.splitlines()[-1]
