"""How much of what a detector finds in single photographs it finds again, tile by tile, in large mosaics of them.

python benchmarks/tiles.py WEIGHTS FOLDER [--tile 640] [--overlap 0.2] [--merge nms] [--mosaics 3] [--gap 0]
                           [--score 0.5]

FOLDER holds photographs of one size. A mosaic is 4000x3000 pixels; photographs that it cuts off at its right and lower
edge are there, but not counted. A detection of a photograph, score 0.5, is found when a detection of the mosaic has its
class and IoU 0.5 with it. For comparison ("shifted"): how many are found again in the same photograph alone when it is
moved by 8 pixels to the right and down, of those that stay in it. A duplicate is a detection of the mosaic that matches
nothing and has more than 0.6 of the area of the smaller of the two in common with another one of its class.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from compare import base_parser
from PIL import Image

import fasterrcnn
from fasterrcnn.images import image_files

SIZE, TINY_SIZE = (4000, 3000), (250, 200)
SCORE, SHIFT = 0.5, 8


def size_of(file: Path) -> tuple[int, int]:
    with Image.open(file) as opened:
        return opened.size


def mosaic(files: Sequence[Path], gap: int, size: tuple[int, int]) -> tuple[Image.Image, list[tuple[int, int, Path]]]:
    """The image, and left, top and file of each photograph that is whole in it."""
    width, height = size_of(files[0])
    sheet = Image.new("RGB", size, (128, 128, 128))
    places = [(x, y) for y in range(0, size[1], height + gap) for x in range(0, size[0], width + gap)]
    whole = []
    for number, (x, y) in enumerate(places):
        file = files[number % len(files)]
        with Image.open(file) as opened:
            sheet.paste(opened.convert("RGB"), (x, y))
        if x + width <= size[0] and y + height <= size[1]:
            whole.append((x, y, file))
    return sheet, whole


def overlaps(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intersection over union, and over the smaller, of every pair."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clip(0).prod(-1)
    areas_a, areas_b = ((box[:, 2:] - box[:, :2]).prod(-1) for box in (a, b))
    union = areas_a[:, None] + areas_b[None] - shared
    return shared / union, shared / np.minimum(areas_a[:, None], areas_b[None])


def match(expected: np.ndarray, labels: np.ndarray, found: fasterrcnn.Detections) -> np.ndarray:
    """Index of the detection that each expected box is found by, or -1; each serves once, the best overlap first."""
    iou, _ = overlaps(expected, found.boxes)
    iou *= labels[:, None] == found.labels[None]
    matched = np.full(len(expected), -1)
    for flat in np.argsort(-iou, axis=None):
        i, j = np.unravel_index(flat, iou.shape)
        if iou[i, j] < 0.5:
            break
        if matched[i] < 0 and j not in matched:
            matched[i] = j
    return matched


def duplicates(found: fasterrcnn.Detections, matched: np.ndarray) -> int:
    """Detections that match nothing and lie on a better one of their class."""
    _, smaller = overlaps(found.boxes, found.boxes)
    smaller *= found.labels[:, None] == found.labels[None]
    extra = np.setdiff1d(np.arange(len(found)), matched)
    return sum(bool((np.delete(smaller[i], i) > 0.6).any()) for i in extra)


def measure(detector: fasterrcnn.Detector, files: Sequence[Path], options: argparse.Namespace) -> dict[str, float]:
    """The numbers of one mosaic."""
    sheet, whole = mosaic(files, options.gap, TINY_SIZE if options.tiny else SIZE)
    boxes, labels, inner = [], [], []
    for x, y, file in whole:
        single = detector.predict(file, score=SCORE)
        boxes.append(single.boxes + np.array([x, y, x, y], np.float32))
        labels.append(single.labels)
        height, width = single.image_hw
        edge = np.array([width, height])
        inner.append(((single.boxes[:, :2] > 2) & (single.boxes[:, 2:] < edge - 2)).all(axis=1))
    expected, kinds, whole_objects = np.concatenate(boxes), np.concatenate(labels), np.concatenate(inner)
    started = time.perf_counter()
    found = detector.predict(
        sheet, score=options.score, tile=options.tile, overlap=options.overlap, merge=options.merge
    )
    seconds = time.perf_counter() - started
    matched = match(expected, kinds, found)
    if options.draw:
        found.save(options.draw)
        missed = np.flatnonzero(matched < 0)
        print([(int(kinds[i]), expected[i].round().astype(int).tolist(), bool(whole_objects[i])) for i in missed])
    stay, again = shifted(detector, [file for _, _, file in whole])
    return {
        "expected": len(expected),
        "found": int((matched >= 0).sum()),
        "expected_whole": int(whole_objects.sum()),
        "found_whole": int((matched[whole_objects] >= 0).sum()),
        "detections": len(found),
        "duplicates": duplicates(found, matched),
        "seconds": round(seconds, 2),
        "expected_shifted": stay,
        "found_shifted": again,
    }


def shifted(detector: fasterrcnn.Detector, files: Sequence[Path]) -> tuple[int, int]:
    """How many objects stay inside when their photographs move, and how many of them are found again."""
    stay = again = 0
    for file in files:
        with Image.open(file) as opened:
            photo = np.asarray(opened.convert("RGB"))
        single = detector.predict(photo, score=SCORE)
        height, width = single.image_hw
        moved = np.pad(photo, ((SHIFT, 0), (SHIFT, 0), (0, 0)), mode="edge")[:height, :width]
        inside = (single.boxes[:, 2:] < np.array([width, height]) - SHIFT - 2).all(axis=1)
        matched = match(single.boxes[inside] + SHIFT, single.labels[inside], detector.predict(moved, score=SCORE))
        stay, again = stay + len(matched), again + int((matched >= 0).sum())
    return stay, again


def make_parser() -> argparse.ArgumentParser:
    parser = base_parser(__doc__)
    parser.add_argument("weights")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tile", type=int, default=640)
    parser.add_argument("--overlap", type=float, default=0.2)
    parser.add_argument("--merge", default="nms")
    parser.add_argument("--mosaics", type=int, default=3)
    parser.add_argument("--gap", type=int, default=0)
    parser.add_argument("--score", type=float, default=SCORE, help="from which detections of the mosaic count")
    parser.add_argument("--draw")
    return parser


def main(command: Sequence[str] | None = None) -> None:
    """Print each mosaic's numbers and their sum."""
    options = make_parser().parse_args(command)
    if options.tiny:
        options.mosaics, options.tile = 1, 128
    detector = fasterrcnn.load(options.weights)
    files = image_files(options.folder)
    files = [file for file in files if size_of(file) == size_of(files[0])]
    rows = []
    for number in range(options.mosaics):
        start = number * 49 % len(files)
        rows.append(measure(detector, [*files[start:], *files[:start]], options))
        print(rows[-1], flush=True)
    total = {key: sum(row[key] for row in rows) for key in rows[0]}
    total["share"] = total["found"] / max(1, total["expected"])
    total["share_shifted"] = total["found_shifted"] / max(1, total["expected_shifted"])
    total["share_whole"] = total["found_whole"] / max(1, total["expected_whole"])
    print({key: round(value, 4) for key, value in total.items()})
    if options.output:
        settings = {key: str(value) for key, value in vars(options).items()}
        options.output.write_text(json.dumps({"settings": settings, "total": total, "mosaics": rows}, indent=1))


if __name__ == "__main__":
    main()
