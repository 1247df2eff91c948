import os
import subprocess
import sys

import pytest

from fasterrcnn.cli import options
from fasterrcnn.evaluation.options import EvaluateOptions
from fasterrcnn.inference.options import PostprocessOptions, PredictOptions


def test_configure_process__leaves_the_users_choice(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    options.configure_process()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts page faults of Linux")
def test_configure_process__memory_is_used_again():
    program = """
import resource, sys
if sys.argv[1] == "settled":
    from fasterrcnn.cli.options import configure_process
    configure_process()
def faults():
    for _ in range(5):
        b"x" * 64_000_000
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
first = faults()
print(faults() - first)
"""
    plain, settled = (
        int(subprocess.run([sys.executable, "-c", program, how], capture_output=True, check=True).stdout)
        for how in ("plain", "settled")
    )
    assert settled < plain / 10


@pytest.mark.parametrize(
    ("command", "kinds"),
    [
        ("predict", (PredictOptions, PostprocessOptions)),
        ("explain", (PostprocessOptions,)),
        ("evaluate", (EvaluateOptions,)),
    ],
)
def test_help__options_of_python_with_their_documentation(run, command, kinds):
    text = " ".join(run(command, "--help").out.replace("│", " ").split())
    for kind in kinds:
        for name in kind.__annotations__:
            first_words = kind.__doc__.partition(f" {name}: ")[2].split()[:3]
            assert len(first_words) == 3, name
            assert f"--{name.replace('_', '-')} " in text
            assert first_words[0] in text


@pytest.mark.parametrize("command", ["predict", "evaluate", "explain"])
def test_help__precision(run, command):
    text = " ".join(run(command, "--help").out.replace("│", " ").split())
    assert "--precision CHOICE Number format of the network" in text
    assert "[choices: auto, float32, bf16, fp16]" in text
