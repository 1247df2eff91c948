"""The whole report of a data set as large as COCO's val2017: 5,000 images, 36,000 objects, 100 detections an image.

`fasterrcnn evaluate --results ... -o report.html` in a process of its own: seconds, peak memory and size of the page.

python benchmarks/evaluation_report.py
"""

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from compare import base_parser
from PIL import Image

FULL, TINY = (5000, 36_000), (60, 200)  # images, objects
DETECTIONS, CLASSES = 100, 80
WIDTH, HEIGHT = 640, 480
MOST_SECONDS, MOST_GB, MOST_MB = 60, 3, 30


def photograph(generator: np.random.Generator) -> bytes:
    """An image as large as a photograph is as a file: noise at all scales."""
    whole = np.zeros((HEIGHT, WIDTH, 3))
    for side in (4, 16, 64, 256):
        coarse = generator.uniform(0, 255, (side, side, 3)).astype(np.uint8)
        whole += np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)) / side**0.5
    stream = io.BytesIO()
    Image.fromarray((whole * 255 / whole.max()).astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def write_data(folder: Path, generator: np.random.Generator, image_count: int, object_count: int) -> None:
    """Images, annotations and results; 50 images stand for all."""
    split = folder / "test"
    split.mkdir()
    for number in range(image_count):
        file = split / f"{number + 1:012d}.jpg"
        if number < 50:
            file.write_bytes(photograph(generator))
        else:
            os.link(split / f"{number % 50 + 1:012d}.jpg", file)
    owners = np.sort(generator.integers(1, image_count + 1, object_count))
    shares = 1 / np.arange(1, CLASSES + 1)
    labels = generator.choice(CLASSES, object_count, p=shares / shares.sum()) + 1
    boxes = random_boxes(generator, object_count)
    names = [f"{number:012d}.jpg" for number in range(1, image_count + 1)]
    images = [{"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT} for i, name in enumerate(names, start=1)]
    rows = zip(owners.tolist(), labels.tolist(), boxes.tolist(), strict=True)
    annotations = [
        {"id": i, "image_id": o, "category_id": k, "bbox": b, "area": b[2] * b[3], "iscrowd": 0}
        for i, (o, k, b) in enumerate(rows, start=1)
    ]
    categories = [{"id": k, "name": f"class {k}"} for k in range(1, CLASSES + 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (split / "_annotations.coco.json").write_text(json.dumps(content))
    (folder / "results.json").write_text(json.dumps(detect(generator, image_count, owners, labels, boxes)))


def detect(
    generator: np.random.Generator, image_count: int, owners: np.ndarray, labels: np.ndarray, boxes: np.ndarray
) -> list[dict]:
    """Objects, some moved, some taken for others, and a rest on background: 100 an image."""
    objects, rest = len(boxes), image_count * DETECTIONS - len(boxes)
    mistaken = generator.random(objects) < 0.1
    all_owners = np.concatenate([owners, generator.integers(1, image_count + 1, rest)])
    predictions = np.where(mistaken, generator.integers(1, CLASSES + 1, objects), labels)
    all_labels = np.concatenate([predictions, generator.integers(1, CLASSES + 1, rest)])
    moved = boxes + generator.normal(0, 0.08, boxes.shape) * boxes[:, [2, 3, 2, 3]]
    all_boxes = np.concatenate([moved, random_boxes(generator, rest)]).round(2)
    scores = np.concatenate([generator.beta(5, 2, objects), generator.beta(1, 12, rest)]).round(4)
    columns = (all_owners.tolist(), all_labels.tolist(), all_boxes.tolist(), scores.tolist())
    return [{"image_id": o, "category_id": k, "bbox": b, "score": s} for o, k, b, s in zip(*columns, strict=True)]


def random_boxes(generator: np.random.Generator, number: int) -> np.ndarray:
    """Left, top, width, height inside the image."""
    size = np.exp(generator.uniform(np.log(12), np.log(240), (number, 2)))
    return np.concatenate([generator.random((number, 2)) * ((WIDTH, HEIGHT) - size), size], axis=1).round(2)


def make_parser() -> argparse.ArgumentParser:
    return base_parser(__doc__)


def main(words: Sequence[str] | None = None) -> None:
    """Make the data, write the report, and check that it keeps its limits."""
    options = make_parser().parse_args(words)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder, np.random.default_rng(0), *(TINY if options.tiny else FULL))
        page = folder / "report.html"
        command = [sys.executable, "-m", "fasterrcnn", "evaluate", str(folder), "--split", "test"]
        command += ["--results", str(folder / "results.json"), "-o", str(page)]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        numbers = {
            "seconds": round(seconds, 1),
            "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
            "peak_gb": round(usage.ru_maxrss / 2**20, 2),
            "page_mb": round(page.stat().st_size / 1e6, 1),
        }
    print(json.dumps(numbers, indent=1))
    if options.output:
        options.output.write_text(json.dumps(numbers, indent=1))
    if options.tiny:
        return
    assert numbers["seconds"] < MOST_SECONDS, "too slow"
    assert numbers["peak_gb"] < MOST_GB, "too much memory"
    assert numbers["page_mb"] < MOST_MB, "too large a page"


if __name__ == "__main__":
    main()
