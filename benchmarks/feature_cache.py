"""Training with a frozen backbone: with and without the feature cache.

python benchmarks/feature_cache.py DATA

First, what arithmetic allows: of each preset, the operations of the frozen backbone and of everything else in a step,
per image; a cache spares the first alone. Then the time of some detectors on the first 120 training images, 2 epochs of
one view, the second of which counts. A cached run pays for the backbone before its first epoch; "over_10_epochs" is the
time of 10 uncached epochs over that of 10 cached ones. Checks that both give the same weights. Start weights are random
but for those of efficientnet-lite0's backbone, which changes nothing about time.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fasterrcnn.cli.options import configure_process

configure_process()

import torch
from compare import base_parser, report
from torch.utils.flop_counter import FlopCounterMode

import fasterrcnn
from fasterrcnn import presets
from fasterrcnn.build import assemble
from fasterrcnn.config import ModelConfig
from fasterrcnn.data.annotations import AnnotatedData
from fasterrcnn.data.checks import check_and_repair
from fasterrcnn.data.dataset import BUCKET
from fasterrcnn.ops.image import pad_to
from fasterrcnn.structures import ImageBatch, Target
from fasterrcnn.training.feature_cache import frozen_maps
from fasterrcnn.training.prepare import resolve
from fasterrcnn.weights import native

MODEL = "efficientnet-lite0-fpn"
IMAGES, TINY_IMAGES, EPOCHS = 120, 2, 2
TINY = {"model": MODEL, "short_side": 64}
FEW_REGIONS = {"regions": {"assign": {"count": 128}}}
ROWS: dict[str, dict[str, Any]] = {
    MODEL: {"model": MODEL},
    "resnet50-c5": {"model": "resnet50-c5"},
    "resnet50-c5, 128 regions an image": {"model": {"preset": "resnet50-c5", **FEW_REGIONS}},
}


def run(data: AnnotatedData, folder: Path, options: dict[str, Any], *, cached: bool) -> tuple[float, float, bytes]:
    """Seconds of the last epoch, seconds before the first one, and the weights."""
    ends = [time.perf_counter()]
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    done = fasterrcnn.fit(
        data, output=folder / "run", freeze="backbone", views=1, epochs=EPOCHS, logger="none", anchors="preset",
        cache_features=cached, on_epoch=lambda row: ends.append(row["seconds"]), **options,
    )  # fmt: skip
    whole, epochs = time.perf_counter() - ends[0], ends[1:]
    return epochs[-1], whole - sum(epochs), done.last.read_bytes()


def compare(data: AnnotatedData, options: dict[str, Any]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        plain, before, ours = run(data, Path(first), options, cached=False)
        cached, filled, theirs = run(data, Path(second), options, cached=True)
    assert ours == theirs, "the cache changed the weights"
    fill = max(0.0, filled - before)
    return {
        "plain_epoch_seconds": plain,
        "cached_epoch_seconds": cached,
        "fill_seconds": fill,
        "ratio": plain / cached,
        "over_10_epochs": 10 * plain / (10 * cached + fill),
    }


def operations(config: ModelConfig) -> dict[str, float]:
    """Billions of multiplications and additions that an image of 640x480 costs, and the most a cache can gain."""
    model = assemble(config).train()
    model.backbone.freeze(model.backbone.depth)
    height, width = (pad_to(side, BUCKET) for side in config.input.resized_hw((480, 640)))
    batch = ImageBatch(torch.rand(1, 3, height, width), [(height, width)])
    target = Target(torch.tensor([[10.0, 10.0, 100.0, 90.0]]), torch.tensor([0]))
    with FlopCounterMode(display=False) as body:
        maps = frozen_maps(model, batch)
    with FlopCounterMode(display=False) as rest:
        model.losses(batch, [target], features=model.backbone.neck(maps)).total.backward()
    spared, paid = body.get_total_flops() / 1e9, rest.get_total_flops() / 1e9
    return {"body": spared, "rest": paid, "most": (spared + paid) / paid}


def make_parser() -> argparse.ArgumentParser:
    parser = base_parser(__doc__)
    parser.add_argument("data", type=Path)
    return parser


def main(command: Sequence[str] | None = None) -> None:
    arguments = make_parser().parse_args(command)
    torch.manual_seed(0)
    data = check_and_repair(fasterrcnn.read_data(arguments.data), "fix").data
    data = replace(data, splits={"train": data.split("train")[: TINY_IMAGES if arguments.tiny else IMAGES]})
    rows: dict[str, dict[str, float]] = {}
    for name in [MODEL] if arguments.tiny else presets.names():
        rows[f"operations of {name}"] = operations(presets.get(name, data.classes))
        print(name, rows[f"operations of {name}"], flush=True)
    if arguments.tiny:
        rows["tiny"] = compare(data, TINY)
        report("feature_cache", rows, arguments.output)
        return
    few = resolve({"data": "", "model": {"preset": "resnet50-c5", **FEW_REGIONS}}).model.with_classes(data.classes)
    rows["operations of resnet50-c5, 128 regions an image"] = operations(few)
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "start.safetensors"
        config = presets.get("resnet50-c5", data.classes)
        native.save_checkpoint(start, assemble(config), config)
        # What a process does once belongs to no row.
        run(replace(data, splits={"train": data.split("train")[:4]}), Path(folder), {"model": MODEL}, cached=False)
        for name, options in ROWS.items():
            weights = {} if "lite0" in name else {"weights": str(start)}
            rows[name] = compare(data, {**options, **weights})
            print(name, rows[name], flush=True)
    report("feature_cache", rows, arguments.output)


if __name__ == "__main__":
    main()
