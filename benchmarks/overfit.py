"""Can every preset learn four photographs by heart? A check of the whole of training, not a benchmark of speed.

python benchmarks/overfit.py VOC_FOLDER [PRESET ...]

Takes one photograph of each class (four in all) from a Pascal VOC folder, trains each preset on them from the
weights that are available offline (ImageNet for efficientnet-lite0, random for the rest), and prints by what factor
the loss fell, and AP50 on the four.
"""

import argparse
import csv
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from compare import base_parser

import fasterrcnn
from fasterrcnn import presets
from fasterrcnn.config import ModelConfig
from fasterrcnn.data.formats import read_data

SHORT_SIDE, TINY_SHORT_SIDE = 160, 64
PHOTOGRAPHS = 4
REGIONS = 64  # drawn per photograph, instead of up to 512
STEPS = {
    "efficientnet-lite0-fpn": 60,
    "mobilenetv3-large-fpn": 160,
    "mobilenetv3-large-320-fpn": 160,
    "resnet50-c4": 300,
    "resnet50-dc5": 80,
}
FEW_REGIONS = {"resnet50-c4": 32, "resnet50-dc5": 32}  # their box heads are heavy
DEFAULT_STEPS, TINY_STEPS = 100, 2
LEARNING_RATE = 3e-4


def pick(data: Path, folder: Path) -> None:
    """Copy photographs with few boxes, of as many classes as there are, as a data set of their own."""
    annotated = read_data(data)
    records = sorted(annotated.split("train"), key=lambda r: (len(set(r.labels.tolist())), len(r.boxes), r.path.name))
    chosen = []
    for label in list(range(len(annotated.classes))) * PHOTOGRAPHS:
        fresh = [r for r in records if label in r.labels and r not in chosen]
        if fresh and len(chosen) < PHOTOGRAPHS:
            # The largest objects: at this input size a distant sign is a few pixels.
            chosen.append(max(fresh[:60], key=lambda r: (r.boxes[:, 2] - r.boxes[:, 0]).min() / r.size_hw[1]))
    for part in ("JPEGImages", "Annotations"):
        (folder / part).mkdir(parents=True)
    for record in chosen:
        shutil.copy(record.path, folder / "JPEGImages")
        shutil.copy(record.path.parents[1] / "Annotations" / f"{record.path.stem}.xml", folder / "Annotations")


def overfit(preset: str, folder: Path, run_folder: Path, *, tiny: bool) -> dict[str, float]:
    """Train one preset on the photographs; factor by which the loss fell, AP50, seconds."""
    started = time.monotonic()
    run = fasterrcnn.fit(
        folder,
        model=_with_few_regions(preset),
        output=run_folder,
        weights="imagenet" if preset == "efficientnet-lite0-fpn" else None,
        epochs=TINY_STEPS if tiny else STEPS.get(preset, DEFAULT_STEPS),
        batch_size=PHOTOGRAPHS,
        short_side=TINY_SHORT_SIDE if tiny else SHORT_SIDE,
        learning_rate=LEARNING_RATE,
        backbone_rate=1.0,
        augmentation="none",
        anchors="preset",
        weight_decay=0.0,
    )
    with (run.path / "metrics.csv").open() as file:
        losses = [float(row["total"]) for row in csv.DictReader(file)]
    report = fasterrcnn.evaluate(run.last, folder, split="all")
    return {
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "fell_by": losses[0] / losses[-1],
        "ap50": report.ap50 or 0.0,
        "ap": report.ap or 0.0,
        "seconds": time.monotonic() - started,
    }


def _with_few_regions(preset: str) -> ModelConfig:
    config = presets.get(preset)
    assign = config.regions.assign.model_copy(update={"count": FEW_REGIONS.get(preset, REGIONS)})
    return config.model_copy(update={"regions": config.regions.model_copy(update={"assign": assign})})


def make_parser() -> argparse.ArgumentParser:
    parser = base_parser(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("presets", nargs="*", default=presets.names())
    return parser


def main(command: Sequence[str] | None = None) -> None:
    """Overfit the presets that were asked for, or all."""
    arguments = make_parser().parse_args(command)
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        pick(arguments.data, Path(folder) / "photographs")
        for preset in arguments.presets:
            run_folder = Path(folder) / preset.replace(":", "-")
            rows[preset] = overfit(preset, Path(folder) / "photographs", run_folder, tiny=arguments.tiny)
            print(preset, {key: round(value, 3) for key, value in rows[preset].items()}, flush=True)
            shutil.rmtree(run_folder)
    if arguments.output:
        arguments.output.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
