"""Many images: memory while they stream, and images a second with one process and with several.

python benchmarks/stream.py memory WEIGHTS FOLDER [--images 2000]
python benchmarks/stream.py workers WEIGHTS FOLDER [--images 200] [--workers 2]

The images are links to those of FOLDER, again and again.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from compare import base_parser

import fasterrcnn
from fasterrcnn.cli.options import configure_process
from fasterrcnn.images import image_files

SETTLED, ROUNDS = 200, 3
TINY_SETTLED, TINY_IMAGES = 2, 8


def links(source: Path, target: Path, count: int) -> None:
    """That many links to the images of a folder."""
    files = image_files(source)
    for number in range(count):
        file = files[number % len(files)].resolve()
        (target / f"{number:05d}{file.suffix}").symlink_to(file)


def resident_mib() -> float:
    """Memory of this process that is in use."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def memory(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Memory after the first images, and the most and the last after that."""
    configure_process()
    settled = TINY_SETTLED if options.tiny else SETTLED
    detector = fasterrcnn.load(options.weights)
    seen: list[float] = []
    for number, _ in enumerate(detector.predict(folder), start=1):
        seen.append(resident_mib())
        if number % settled == 0:
            print(f"{number} images: {seen[-1]:.0f} MiB", flush=True)
    later = seen[settled - 1 :]
    return {f"after_{settled}_mib": later[0], "most_later_mib": max(later), "last_mib": later[-1], "images": len(seen)}


def workers(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Alternating runs of the command line with one process and with several; start-up is taken off both."""
    command = [sys.executable, "-m", "fasterrcnn", "predict", options.weights, str(folder), "--save", "coco", "-o"]

    def run(count: int, out: str) -> tuple[float, bytes]:
        times = []
        with subprocess.Popen([*command, out, "--workers", str(count)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            times = [time.perf_counter() for _ in process.stdout]
        assert process.returncode == 0
        quarter = len(times) // 4  # the first quarter: processes start, shapes are new
        rate = (len(times) - quarter - 2) / (times[-2] - times[quarter])
        return rate, (Path(out) / "results.json").read_bytes()

    rows = []
    with tempfile.TemporaryDirectory() as out:
        for round_number in range(1 if options.tiny else ROUNDS):
            one, several = run(1, f"{out}/{round_number}-1"), run(options.workers, f"{out}/{round_number}-n")
            same = len(json.loads(one[1])) == len(json.loads(several[1]))
            assert same, "one process and several found different numbers of objects"
            rows.append((one[0], several[0]))
            print(f"one process {one[0]:.2f}, {options.workers} workers {several[0]:.2f} images a second", flush=True)
    return {
        "one_process": statistics.median(a for a, _ in rows),
        "workers": statistics.median(b for _, b in rows),
        "ratio": statistics.median(b / a for a, b in rows),
    }


def make_parser() -> argparse.ArgumentParser:
    parser = base_parser(__doc__)
    parser.add_argument("what", choices=("memory", "workers"))
    parser.add_argument("weights")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int)
    parser.add_argument("--workers", type=int, default=2)
    return parser


def main(command: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    options = make_parser().parse_args(command)
    default = TINY_IMAGES if options.tiny else 2000 if options.what == "memory" else 200
    with tempfile.TemporaryDirectory() as place:
        links(options.folder, Path(place), options.images or default)
        numbers = (memory if options.what == "memory" else workers)(options, Path(place))
    print({key: round(value, 2) for key, value in numbers.items()})
    if options.output:
        options.output.write_text(json.dumps({"benchmark": f"stream {options.what}", "rows": numbers}, indent=1))


if __name__ == "__main__":
    main()
