"""Seconds and peak memory of opening large data sets: one of COCO's size, and 10,000 Pascal VOC files.

python benchmarks/open_data.py [--supervision-python PATH]

Both are made in a temporary folder (600 MB); their images are hard links to one photograph, so that searching files
and reading their sizes is real work. Each reader runs in fresh processes: pycocotools and, where it can be imported,
supervision beside our own. One that wants more than 8 GiB fails, before it takes the machine along. Imports are not
timed, but their memory counts. On a busy machine compare the processor's seconds, not at the clock's.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from compare import base_parser
from PIL import Image

ROUNDS = 3
LIMIT_BYTES = 8 * 1024**3
SIZE_HW = (480, 640)
LINKS = 30_000  # of one file; file systems end at 65,000

COCO, TINY_COCO = (118_000, 860_000), (40, 200)  # images, boxes
# The ids of COCO's 80 classes, which lie in 1..90.
COCO_IDS = [n for n in range(1, 91) if n not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
VOC, TINY_VOC, VOC_BOXES = 10_000, 20, 7  # images, boxes of each

PROGRAMS = {
    "fasterrcnn": """
from fasterrcnn.data.formats import read_data
def count(root):
    data = read_data(root)
    assert not data.findings, data.findings[0]
    return len(data.images), sum(len(record.boxes) for record in data.images)
""",
    "pycocotools": """
from pycocotools.coco import COCO
def count(root):
    data = COCO(f"{root}/annotations/instances_train2017.json")
    return len(data.imgs), len(data.anns)
""",
    "supervision": """
from pathlib import Path
from supervision import DetectionDataset
def count(root):
    if Path(root, "annotations").is_dir():
        file = f"{root}/annotations/instances_train2017.json"
        data = DetectionDataset.from_coco(images_directory_path=f"{root}/train2017", annotations_path=file)
    else:
        folders = {"images_directory_path": f"{root}/JPEGImages", "annotations_directory_path": f"{root}/Annotations"}
        data = DetectionDataset.from_pascal_voc(**folders)
    return len(data), sum(len(found) for found in data.annotations.values())
""",
}
MEASURE = """
import json, resource, sys, time, warnings
warnings.simplefilter("ignore")
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), int(sys.argv[2])))
started, worked = time.perf_counter(), time.process_time()
images, boxes = count(sys.argv[1])
seconds, worked = time.perf_counter() - started, time.process_time() - worked
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
row = {"seconds": seconds, "processor_seconds": worked, "peak_mebibytes": peak, "images": images, "boxes": boxes}
print("\\n" + json.dumps(row))
"""


def make_parser() -> argparse.ArgumentParser:
    parser = base_parser(__doc__)
    parser.add_argument("--supervision-python", default=sys.executable, help="where supervision is installed")
    return parser


def main(command: Sequence[str] | None = None) -> None:
    """Make both data sets, open them with every reader, and print the medians."""
    arguments = make_parser().parse_args(command)
    coco, voc = (TINY_COCO, TINY_VOC) if arguments.tiny else (COCO, VOC)
    rounds = 1 if arguments.tiny else ROUNDS
    rows: dict[str, dict[str, float]] = {}
    make: Callable[..., None]
    for name, make, readers, expected in (
        ("COCO", make_coco, ["fasterrcnn", "pycocotools", "supervision"], coco),
        ("Pascal VOC", make_voc, ["fasterrcnn", "supervision"], (voc, voc * VOC_BOXES)),
    ):
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder), *expected)
            for reader in readers:
                python = arguments.supervision_python if reader == "supervision" else sys.executable
                if not _can_import(python, reader):
                    print(f"{name}, {reader}: not installed", flush=True)
                    continue
                row = measure(python, reader, Path(folder), rounds)
                if row is None:
                    print(f"{name}, {reader}: more than {LIMIT_BYTES / 1024**3:g} GiB", flush=True)
                    continue
                assert (row["images"], row["boxes"]) == expected, row
                rows[f"{name}, {reader}"] = row
                print(f"{name}, {reader}: " + ", ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps({"benchmark": "open_data", "rows": rows}, indent=1), encoding="utf-8")


def measure(python: str, reader: str, root: Path, count: int) -> dict[str, float] | None:
    """Medians over fresh processes; None if memory ends. This process stays small: children inherit its peak."""
    rounds = []
    for _ in range(count):
        command = [python, "-c", PROGRAMS[reader] + MEASURE, str(root), str(LIMIT_BYTES)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if "MemoryError" in done.stderr:
            return None
        assert done.returncode == 0, done.stderr
        rounds.append(json.loads(done.stdout.splitlines()[-1]))
    return {key: statistics.median(row[key] for row in rounds) for key in rounds[0]}


def make_coco(root: Path, image_count: int, box_count: int) -> None:
    """Images, boxes with outlines, and crowds, as in instances_train2017.json: about as many bytes, too."""
    chance = random.Random(0)
    names = [f"{number:012}.jpg" for number in range(1, image_count + 1)]
    _link_images(root / "train2017", names)
    (root / "annotations").mkdir()
    outlines = [[[round(chance.uniform(0, 640), 2) for _ in range(50)]] for _ in range(1000)]
    texts = [json.dumps(outline) for outline in outlines]
    height, width = SIZE_HW
    with (root / "annotations" / "instances_train2017.json").open("w", encoding="utf-8") as file:
        images = (
            json.dumps({"license": 3, "file_name": name, "height": height, "width": width, "id": number})
            for number, name in enumerate(names, start=1)
        )
        file.write(f'{{"images": [{", ".join(images)}], "annotations": [')
        for number in range(box_count):
            x, y = round(chance.uniform(0, 500), 2), round(chance.uniform(0, 400), 2)
            file.write(
                f'{", " if number else ""}{{"segmentation": {texts[number % 1000]}, "area": {x + y:.4f}, '
                f'"iscrowd": {int(number % 100 == 0)}, "image_id": {chance.randint(1, image_count)}, '
                f'"bbox": [{x}, {y}, 80.25, 60.5], "category_id": {chance.choice(COCO_IDS)}, "id": {number + 1}}}'
            )
        categories = [{"supercategory": "thing", "id": number, "name": f"class {number}"} for number in COCO_IDS]
        file.write(f'], "categories": {json.dumps(categories)}}}')


def make_voc(root: Path, image_count: int, _box_count: int) -> None:
    """XML as annotation tools write it, sizes included."""
    chance = random.Random(0)
    names = [f"{number:06}" for number in range(image_count)]
    _link_images(root / "JPEGImages", [f"{name}.jpg" for name in names])
    (root / "Annotations").mkdir()
    size = f"<size><width>{SIZE_HW[1]}</width><height>{SIZE_HW[0]}</height><depth>3</depth></size>"
    for name in names:
        objects = []
        for _ in range(VOC_BOXES):
            x, y = chance.randint(0, 500), chance.randint(0, 400)
            box = f"<xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + 80}</xmax><ymax>{y + 60}</ymax>"
            marks = "<pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>"
            objects.append(f"<object><name>class {x % 20}</name>{marks}<bndbox>{box}</bndbox></object>\n")
        head = f"<filename>{name}.jpg</filename>{size}<segmented>0</segmented>\n"
        text = f"<annotation>{head}{''.join(objects)}</annotation>"
        (root / "Annotations" / f"{name}.xml").write_text(text, encoding="utf-8")


def _link_images(folder: Path, names: list[str]) -> None:
    folder.mkdir()
    first = folder / names[0]
    Image.effect_noise(SIZE_HW[::-1], 60).convert("RGB").save(first, quality=90)
    for index, name in enumerate(names[1:], start=1):
        if index % LINKS == 0:
            shutil.copy(first, folder / name)
            first = folder / name
        else:
            os.link(first, folder / name)


def _can_import(python: str, package: str) -> bool:
    return subprocess.run([python, "-c", f"import {package}"], check=False, capture_output=True).returncode == 0


if __name__ == "__main__":
    main()
