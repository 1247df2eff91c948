import subprocess
import sys

import pytest

import fasterrcnn

NAMES = {
    "Detections",
    "Detector",
    "FasterRCNNError",
    "Report",
    "Run",
    "build_model",
    "evaluate",
    "fit",
    "load",
    "read_data",
}


def test_public_names__are_frozen():
    assert set(fasterrcnn.__all__) == NAMES
    assert set(dir(fasterrcnn)) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_public_names__can_be_had(name):
    assert getattr(fasterrcnn, name).__name__ == name


def test_public_names__unknown():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        fasterrcnn.trian  # noqa: B018


HEAVY = ("torch", "torchvision", "numpy", "hotcoco", "PIL", "timm")


@pytest.mark.parametrize(
    "program",
    [
        "import fasterrcnn",
        "from fasterrcnn.cli.main import main; main(['--help'])",
        "from fasterrcnn.cli.main import main; main(['train', '--help'])",
        "from fasterrcnn.cli.main import main; main(['predict', '--help'])",
        "from fasterrcnn.cli.main import main; main(['evaluate', '--help'])",
        "from fasterrcnn.cli.main import main; main(['benchmark', '--help'])",
        "from fasterrcnn.cli.main import main; main(['quantize', '--help'])",
        "from fasterrcnn.cli.main import main; main(['demo', '--help'])",
        "from fasterrcnn.cli.main import main; main(['data', '--help'])",
        "from fasterrcnn.cli.main import main; main(['data', 'check', '--help'])",
        "from fasterrcnn.cli.main import main; main(['trian'])",
        "from fasterrcnn.cli.main import main; main(['--version'])",
    ],
)
def test_start_up__imports_nothing_heavy(program):
    check = f"""
import sys
try:
    {program}
except SystemExit:
    pass
print("HEAVY:", sorted(set({HEAVY}) & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY: []", done.stdout + done.stderr
