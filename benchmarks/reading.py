"""Seconds and peak memory of reading annotations: a COCO file of COCO's size, and `data check` of 3,000 images.

python benchmarks/reading.py

Both are made in a temporary folder: the images of the COCO data set are hard links to one photograph and their sizes
are stated, the others are blots of colour. Each round is a fresh process. Imports are not timed, but their memory
counts. On a busy machine compare the seconds of the processor. `open_data.py` compares with other libraries.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from compare import base_parser
from open_data import COCO, TINY_COCO, make_coco
from PIL import Image

ROUNDS = 3
CHECKED, TINY_CHECKED = 3000, 8  # images
BOXES = 7  # of each
WIDTH, HEIGHT = 320, 240

PROGRAMS = {
    "read COCO": """
from fasterrcnn.data.formats import read_data
def run(root):
    return len(read_data(root).images)
""",
    "check": """
from fasterrcnn.data.checks import check_data
from fasterrcnn.data.formats import read_data
def run(root):
    return len(check_data(read_data(root)).data.images)
""",
}
MEASURE = """
import json, resource, sys, time
started, worked = time.perf_counter(), time.process_time()
images = run(sys.argv[1])
seconds, worked = time.perf_counter() - started, time.process_time() - worked
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": seconds, "processor_seconds": worked, "peak_mebibytes": peak, "images": images}))
"""


def make_parser() -> argparse.ArgumentParser:
    return base_parser(__doc__)


def make_checked(root: Path, count: int) -> None:
    """A COCO data set of images that differ, which the check opens and compares."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(1, count + 1):
        blots = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8))
        blots.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(root / f"{number:06}.jpg")
        images.append({"id": number, "file_name": f"{number:06}.jpg", "width": WIDTH, "height": HEIGHT})
        for x, y, width, height in rng.uniform(10, 110, (BOXES, 4)).round(2).tolist():
            row = {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "bbox": [x, y, width, height]}
            annotations.append(row)
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "blot"}]}
    (root / "annotations.json").write_text(json.dumps(content), encoding="utf-8")


def measure(name: str, root: Path, rounds: int) -> dict[str, float]:
    """Medians over fresh processes; this one stays small, for children inherit its peak."""
    command = [sys.executable, "-c", PROGRAMS[name] + MEASURE, str(root)]
    outputs = [subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout for _ in range(rounds)]
    rows = [json.loads(output) for output in outputs]
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def main(command: Sequence[str] | None = None) -> None:
    """Make both data sets, and print the medians of each."""
    arguments = make_parser().parse_args(command)
    rounds = 1 if arguments.tiny else ROUNDS
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        read, checked = Path(folder, "read"), Path(folder, "checked")
        read.mkdir()
        checked.mkdir()
        make_coco(read, *(TINY_COCO if arguments.tiny else COCO))
        make_checked(checked, TINY_CHECKED if arguments.tiny else CHECKED)
        for name, root in (("read COCO", read), ("check", checked)):
            rows[name] = measure(name, root, rounds)
            print(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in rows[name].items()), flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps({"benchmark": "reading", "rows": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
