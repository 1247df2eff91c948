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
    "explain",
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


PROGRAMS = [
    "import fasterrcnn",
    "from fasterrcnn.cli.main import main; main(['--help'])",
    "from fasterrcnn.cli.main import main; main(['train', '--help'])",
    "from fasterrcnn.cli.main import main; main(['predict', '--help'])",
    "from fasterrcnn.cli.main import main; main(['evaluate', '--help'])",
    "from fasterrcnn.cli.main import main; main(['benchmark', '--help'])",
    "from fasterrcnn.cli.main import main; main(['quantize', '--help'])",
    "from fasterrcnn.cli.main import main; main(['demo', '--help'])",
    "from fasterrcnn.cli.main import main; main(['explain', '--help'])",
    "from fasterrcnn.cli.main import main; main(['data', '--help'])",
    "from fasterrcnn.cli.main import main; main(['data', 'check', '--help'])",
    "from fasterrcnn.cli.main import main; main(['weights', 'convert', '--help'])",
    "from fasterrcnn.cli.main import main; main(['trian'])",
    "from fasterrcnn.cli.main import main; main(['--version'])",
]


@pytest.mark.parametrize("programs", [PROGRAMS, *(pytest.param([one], marks=pytest.mark.slow) for one in PROGRAMS)])
def test_start_up__imports_nothing_heavy(programs):
    """Nor do they when one process runs them all, which takes less time."""
    check = f"""
import sys
for program in {programs}:
    try:
        exec(program)
    except SystemExit:
        pass
print("HEAVY:", sorted(set({HEAVY}) & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY: []", done.stdout + done.stderr


def test_evaluate__of_results_imports_no_torch(tmp_path):
    results = tmp_path / "results.json"
    results.write_text('[{"image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20], "score": 0.9}]')
    program = f"""
import sys
from PIL import Image
import fasterrcnn
Image.new("RGB", (64, 64)).save({str(tmp_path / "1.png")!r})
rows = [{{"image": {str(tmp_path / "1.png")!r}, "boxes": [[10, 10, 30, 30]], "labels": ["cat"], "split": "test"}}]
report = fasterrcnn.evaluate(None, rows, results={str(results)!r}, against={str(results)!r}, bootstrap=2)
print(report.ap, sorted({{"torch", "torchvision", "pytorch_lightning"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    ap, heavy = done.stdout.split(" ", 1)
    assert float(ap) == pytest.approx(1.0)
    assert heavy.strip() == "[]"
