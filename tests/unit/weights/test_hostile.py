"""Hundreds of harmful and broken weight files: one line, nothing run; on the command line exit code 2."""

import os
import pickle
import resource
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from fasterrcnn import load
from fasterrcnn.cli.main import main
from fasterrcnn.errors import FasterRCNNError

hostile = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("hostile.py"))))
CANARY = Path(tempfile.gettempdir()) / f"canary-{os.getpid()}"
FILES = hostile.all_files(str(CANARY))
CASES = list(FILES)
HEAVY = (
    "two million values",
    "keys of one hash",
    "a wide key again and again",
    "a size again and again",
    "deep tuples",
    "deep lists",
    "marks",
)
GIBIBYTE = 2**20  # in the unit of the system's own count


def is_slow(name: str) -> bool:
    """Bombs that take the most steps: by default only in torch's zip file, not bare and in its older file as well."""
    return name.startswith(("pickle: bomb", "legacy: bomb")) and any(bomb in name for bomb in HEAVY)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with an image and every file; the canary is a path elsewhere."""
    folder = tmp_path_factory.mktemp("hostile")
    Image.new("RGB", (32, 32)).save(folder / "photo.png")
    for number, raw in enumerate(FILES.values()):
        (folder / f"{number}.pth").write_bytes(raw)
    return folder


@pytest.fixture(autouse=True)
def no_download(monkeypatch):
    monkeypatch.setenv("FASTERRCNN_OFFLINE", "1")


def test_cases__are_many_and_their_traps_work(here):
    assert len(CASES) > 400
    harm = hostile.gadgets(str(CANARY))
    for name in ("os.system", "eval", "exec", "open", "stack global", "instance", "object", "getattr chain"):
        opened = pickle.loads(b"\x80\x04" + harm[name] + b".")
        if name == "open":
            opened.close()
        assert CANARY.exists(), name
        CANARY.unlink()


@pytest.fixture
def limits():
    """No file takes long, or much memory."""
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    yield
    assert time.process_time() - started < 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GIBIBYTE


@pytest.mark.usefixtures("limits")
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if is_slow(n) else n for n in CASES])
def test_hostile__one_line_and_nothing_run(here, capfd, name):
    path = here / f"{CASES.index(name)}.pth"
    with pytest.raises(FasterRCNNError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 590
    assert not CANARY.exists()
    assert capfd.readouterr() == ("", "")


COMMANDS = {*CASES[::10], *{name.partition(":")[0]: name for name in CASES}.values()}
"""Some of every group: reading the command line takes longer than refusing the file."""


@pytest.mark.usefixtures("limits")
@pytest.mark.parametrize(
    "name", [n if n in COMMANDS and not is_slow(n) else pytest.param(n, marks=pytest.mark.slow) for n in CASES]
)
def test_hostile__on_the_command_line(here, capfd, name):
    path = here / f"{CASES.index(name)}.pth"
    with pytest.raises(SystemExit) as caught:
        main(["predict", str(path), str(here / "photo.png"), "-o", str(here / "seen")])
    message = capfd.readouterr()
    assert caught.value.code == 2
    assert message.out == ""
    assert message.err.startswith(f"error: {path}: ")
    assert message.err.replace("\n    ", " ").count("\n") == 1  # it may be wrapped
    assert len(message.err) < 600
    assert not CANARY.exists()
    assert not (here / "seen").exists()


def test_hostile__start_weights_of_a_run(here):
    """The other door: files that training starts from."""
    from fasterrcnn.build import build_model
    from fasterrcnn.errors import WeightsError

    for name in ("pickle: os.system", "torch: getattr chain", "legacy: eval", "safetensors: overlapping"):
        with pytest.raises(WeightsError):
            build_model("resnet50-fpn", ["a"], weights=str(here / f"{CASES.index(name)}.pth"))
    assert not CANARY.exists()


MEASURE = """
import re, sys
from fasterrcnn import load
from fasterrcnn.cli.main import main
from fasterrcnn.errors import FasterRCNNError
try:
    main(sys.argv[1:])
finally:  # the most memory this program had; what getrusage gives begins with that of the process before it
    print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""


def limit() -> None:
    """A process that never ends is killed by its work, not by the clock of a busy machine."""
    resource.setrlimit(resource.RLIMIT_CPU, (120, 120))


def seconds_of_children() -> float:
    """Processor time of all processes that were started here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


HEAVIEST = (
    "pickle: bomb, memo of 2 billion",
    "torch: bomb, two million values",
    "pickle: bomb, marks",
    "torch: bomb, deep tuples as a key",
    "torch: bomb, keys of one hash",
    "torch: bomb, copies of a text",
    "array: shape of lists",
    "safetensors: layers of a billion",
    "zip bomb",
)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")
@pytest.mark.slow
@pytest.mark.parametrize("name", HEAVIEST)
def test_hostile__in_a_process_of_its_own(here, name):
    path = here / (f"{CASES.index(name)}.pth" if name in CASES else "bomb.pth")
    if name not in CASES:
        path.write_bytes(hostile.zip_bomb())
    command = [sys.executable, "-c", MEASURE, "predict", path, here / "photo.png", "-o", here / "seen"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    before = seconds_of_children()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, preexec_fn=limit)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {path}: ")
    assert done.stderr.replace("\n    ", " ").count("\n") == 1  # it may be wrapped
    assert int(done.stdout) < GIBIBYTE
    assert seconds_of_children() - before < 60  # of which importing torch is most
    assert not CANARY.exists()


def test_not_files__of_the_file_system(tmp_path, capfd):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    for name, message in (("pipe", "no such file"), ("loop", "no such file"), ("folder", "no weights in this folder")):
        with pytest.raises(SystemExit) as caught:
            main(["predict", str(tmp_path / name), "photo.png", "-o", str(tmp_path / "seen")])
        assert caught.value.code == 2
        assert message in capfd.readouterr().err
    assert not Path("/dev/zero").is_file()
