"""From the start of the process to the first line of ``fasterrcnn predict``, against importing torch and torchvision.

python benchmarks/startup.py WEIGHTS IMAGE
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from compare import base_parser

ROUNDS = 9


def seconds_to_first_line(command: list[str]) -> float:
    """Until the process writes something, or ends."""
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seconds = time.perf_counter() - started
        process.communicate()
    assert process.returncode == 0, command
    return seconds


def make_parser() -> argparse.ArgumentParser:
    parser = base_parser(__doc__)
    parser.add_argument("weights")
    parser.add_argument("image")
    return parser


def main(command: Sequence[str] | None = None) -> None:
    """Alternate both, and print medians and the median difference."""
    options = make_parser().parse_args(command)
    rounds, warm_ups = (1, 0) if options.tiny else (ROUNDS, 1)
    with tempfile.TemporaryDirectory() as folder:
        ours = [sys.executable, "-m", "fasterrcnn", "predict", options.weights, options.image, "-o", folder]
        base = [sys.executable, "-c", "import torch, torchvision"]
        times = [(seconds_to_first_line(ours), seconds_to_first_line(base)) for _ in range(rounds + warm_ups)]
    times = times[warm_ups:]
    differences = sorted(a - b for a, b in times)
    numbers = {
        "predict_seconds": statistics.median(a for a, _ in times),
        "imports_seconds": statistics.median(b for _, b in times),
        "difference_median": statistics.median(differences),
        "difference_lowest": differences[0],
        "difference_highest": differences[-1],
    }
    print({key: round(value, 2) for key, value in numbers.items()})
    if options.output:
        options.output.write_text(json.dumps({"benchmark": "startup", "rows": numbers}, indent=1))


if __name__ == "__main__":
    main()
