"""Measuring as much as COCO val2017 has: 5,000 images, 36,000 objects, 100 detections an image, 80 classes.

The 12 numbers and the whole report, against pycocotools where asked: equality first, then seconds and memory, each in a
process of its own. ``python benchmarks/evaluation.py [--images 5000]``
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from compare import base_parser

CLASSES = 80
TINY_IMAGES = 20


def make(image_count: int) -> tuple[dict, list[dict]]:
    """A data set like COCO's, and detections that find two thirds of it among many mistakes."""
    rng = np.random.default_rng(0)
    annotations, results = [], []
    for image in range(1, image_count + 1):
        count = int(rng.poisson(7.2))
        box = np.concatenate([rng.uniform(0, 400, (count, 2)), np.exp(rng.uniform(1.5, 5.3, (count, 2)))], axis=1)
        label = rng.integers(1, CLASSES + 1, max(1, count // 2))[rng.integers(0, max(1, count // 2), count)]
        for xywh, category in zip(box.tolist(), label.tolist(), strict=True):
            number = len(annotations) + 1
            crowd = int(rng.random() < 0.01)
            row = {"id": number, "image_id": image, "category_id": category, "bbox": xywh, "iscrowd": crowd}
            annotations.append({**row, "area": xywh[2] * xywh[3] * 0.7})
        near = rng.integers(0, count, 100) if count else np.zeros(100, int)
        noise = np.concatenate([rng.uniform(0, 400, (100, 2)), np.exp(rng.uniform(1.5, 5.3, (100, 2)))], axis=1)
        hits = rng.random(100) < (0.15 if count else 0)
        predictions = np.where(hits[:, None], box[near] * rng.normal(1, 0.05, (100, 4)) if count else noise, noise)
        classes = np.where(hits, label[near] if count else 1, rng.integers(1, CLASSES + 1, 100))
        scores = np.where(hits, rng.beta(4, 2, 100), rng.beta(1, 6, 100))
        for xywh, category, score in zip(predictions.tolist(), classes.tolist(), scores.tolist(), strict=True):
            results.append({"image_id": image, "category_id": category, "bbox": xywh, "score": score})
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 480, "width": 640} for i in range(1, image_count + 1)]
    categories = [{"id": i, "name": f"class {i}"} for i in range(1, CLASSES + 1)]
    return {"images": images, "annotations": annotations, "categories": categories}, results


def ours(ground_truth: dict, results: list[dict]) -> list[float]:
    from fasterrcnn.evaluation.report import score_detections

    return list(score_detections(ground_truth, results).numbers.values())


def official(ground_truth: dict, results: list[dict]) -> list[float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        dataset = COCO()
        dataset.dataset = ground_truth
        dataset.createIndex()
        evaluation = COCOeval(dataset, dataset.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


def report(ground_truth: dict, results: list[dict]) -> list[float]:
    import tempfile

    from fasterrcnn.evaluation.analysis import MeasurementOrigin, analyse
    from fasterrcnn.evaluation.ground_truth import read_ground_truth, read_results
    from fasterrcnn.evaluation.options import SAMPLES
    from fasterrcnn.evaluation.report import make_report

    objects = read_ground_truth(ground_truth)
    origin = MeasurementOrigin("", "", "", "", 100)
    analysis = analyse(objects, read_results(objects, results), origin, samples=SAMPLES)
    whole = make_report(objects, analysis.numbers, analysis.per_class, analysis)
    with tempfile.TemporaryDirectory() as folder:
        whole.save(Path(folder) / "report")
    return list(whole.numbers.values())


def run(function, images: int, queue) -> None:
    ground_truth, results = make(images)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    numbers = function(ground_truth, results)
    seconds = time.perf_counter() - started
    queue.put((numbers, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, base / 1024))


def alone(function, images: int):
    """Numbers, seconds, peak MiB, and MiB of the data alone, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=run, args=(function, images, queue))
    process.start()
    answer = queue.get()
    process.join()
    return answer


def make_parser() -> argparse.ArgumentParser:
    parser = base_parser(__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=3)
    return parser


def main(command: Sequence[str] | None = None) -> None:
    options = make_parser().parse_args(command)
    if options.tiny:
        options.images, options.repeats = TINY_IMAGES, 1
    rows: dict[str, list] = {"ours": [], "pycocotools": [], "whole report": []}
    for _ in range(options.repeats):
        for name, function in (("ours", ours), ("pycocotools", official), ("whole report", report)):
            rows[name].append(alone(function, options.images))
    expected = np.array(rows["pycocotools"][0][0])
    for name in ("ours", "whole report"):
        difference = float(np.abs(np.array(rows[name][0][0], float) - expected).max())
        assert difference < 1e-9, f"{name}: {difference}"
    measured = {
        name: {
            "seconds": statistics.median(r[1] for r in runs),
            "peak_mib": max(r[2] for r in runs),
            "data_mib": runs[0][3],
        }
        for name, runs in rows.items()
    }
    for name, row in measured.items():
        print(
            f"{name:14}{row['seconds']:8.1f} s   peak {row['peak_mib']:6.0f} MiB, of which data {row['data_mib']:.0f}"
        )
    ratios = sorted(b[1] / a[1] for a, b in zip(rows["ours"], rows["pycocotools"], strict=True))
    print(f"pycocotools / ours: {statistics.median(ratios):.0f} ({ratios[0]:.0f} to {ratios[-1]:.0f})")
    if options.output:
        options.output.write_text(json.dumps({**measured, "ratios": ratios}, indent=1))


if __name__ == "__main__":
    main()
