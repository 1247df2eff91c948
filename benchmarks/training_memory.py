"""Does training need more and more memory? 500 steps on images of 50 random shapes.

python benchmarks/training_memory.py

Each image has a shape of its own between 96 and 320 pixels. Prints the memory of the process after 100 steps and at
the end, in MiB, and the growth between the two.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fasterrcnn.cli.options import configure_process

configure_process()

import numpy as np
import torch
from compare import base_parser, report
from PIL import Image

from fasterrcnn import presets
from fasterrcnn.build import build_model
from fasterrcnn.config import TrainConfig
from fasterrcnn.data.annotations import AnnotatedImage
from fasterrcnn.data.dataset import BatchLoader, BatchPlan, DetectionDataset
from fasterrcnn.training.optimizer import make_optimizer

FULL, TINY = (50, 500, 100), (4, 6, 3)  # shapes, steps, steps after which memory should not grow


def write_images(folder: Path, count: int) -> list[AnnotatedImage]:
    chance = random.Random(0)
    noise = np.random.default_rng(0)
    records = []
    for number in range(count):
        height, width = chance.randint(96, 320), chance.randint(96, 320)
        path = folder / f"{number}.png"
        Image.fromarray(noise.integers(0, 255, (height, width, 3), np.uint8)).save(path)
        boxes = np.array([[5, 5, 60, 70], [20, 30, width - 5, height - 5]], np.float32)
        records.append(AnnotatedImage(path, number, (height, width), boxes, np.arange(2), np.zeros(2, np.bool_)))
    return records


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def make_parser() -> argparse.ArgumentParser:
    return base_parser(__doc__)


def main(command: Sequence[str] | None = None) -> None:
    arguments = make_parser().parse_args(command)
    shapes, steps, settled = TINY if arguments.tiny else FULL
    preset = presets.get("efficientnet-lite0-fpn", ["a", "b"])
    preset = preset.model_copy(update={"input": preset.input.model_copy(update={"short_side": 128, "long_side": 256})})
    model = build_model(preset).train()
    optimizer = make_optimizer(model, TrainConfig(data="x", model=preset))
    chance = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        records = write_images(Path(folder), shapes)
        loader = BatchLoader(DetectionDataset(records, preset.input, augmentation="default"))
        plans = [BatchPlan(tuple(chance.sample(range(shapes), 2)), step) for step in range(steps)]
        memory = []
        for batch, targets in loader.load(plans):
            optimizer.zero_grad()
            torch.autograd.backward(model.losses(batch, targets).total)
            optimizer.step()
            memory.append(resident_mib())
            if len(memory) % settled == 0:
                print(f"{len(memory)} steps: {memory[-1]:.0f} MiB", file=sys.stderr)
    growth = memory[-1] / max(memory[:settled]) - 1
    numbers = {"settled_mib": max(memory[:settled]), "end_mib": memory[-1], "growth": growth}
    report("training memory", {f"{steps} steps, {shapes} shapes": numbers}, arguments.output)


if __name__ == "__main__":
    main()
