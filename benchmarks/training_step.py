"""A training step on a CPU in float32 and in bfloat16, one after the other.

python benchmarks/training_step.py [--model resnet50-fpn] [--rounds 5] [--threads 1]

Losses, backward pass, clipping, AdamW and the average of the weights, for two images of 480x640 with eight objects
each; random weights with frozen norms, the stem frozen. Prints the shortest processor time of the process, which other
programs disturb least, by part; and for one image the memory in MiB that the backbone keeps for its backward pass.
"""

import argparse
import time
from collections.abc import Sequence

from fasterrcnn.cli.options import configure_process

configure_process()

import torch
from compare import base_parser, report
from torch import Tensor

from fasterrcnn import presets
from fasterrcnn.build import build_model
from fasterrcnn.config import TrainConfig
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.structures import ImageBatch, Target
from fasterrcnn.training.optimizer import WeightAverage, make_optimizer

IMAGE_HW, OBJECTS = (480, 640), 8
TINY_HW, TINY_MODEL = (64, 96), "timm:test_efficientnet"


class Trainer:
    """A network and a batch to train it on."""

    def __init__(self, name: str, image_hw: tuple[int, int]) -> None:
        torch.manual_seed(0)
        preset = presets.get(name, ["a", "b", "c"])
        self.model = build_model(preset, weights=None).train()
        self.model.backbone.freeze(1)
        self.optimizer = make_optimizer(self.model, TrainConfig(data="", model=preset, weights=None))
        self.average, self.steps = WeightAverage(0.99), 0
        self.batch = ImageBatch(torch.rand(2, 3, *image_hw), [image_hw] * 2)
        corners = torch.rand(2, OBJECTS, 2) * torch.tensor(image_hw[::-1]) * 0.5
        boxes = torch.cat([corners, corners * 1.5 + 8], dim=-1)
        self.targets = [Target(own, torch.randint(0, 3, (OBJECTS,))) for own in boxes]

    def step(self, dtype: torch.dtype) -> dict[str, float]:
        """Seconds of each part."""
        times = [time.process_time()]
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            losses = self.model.losses(self.batch, self.targets, generator=torch.Generator().manual_seed(0))
            total = torch.stack([value for _, value in losses]).sum()
        times.append(time.process_time())
        self.optimizer.zero_grad()
        total.backward()
        times.append(time.process_time())
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
        self.optimizer.step()
        self.steps += 1
        self.average.update(self.model, self.steps)
        times.append(time.process_time())
        parts = ("forward", "backward", "update")
        return {part: after - before for part, before, after in zip(parts, times, times[1:], strict=False)}


def kept_mib(model: FasterRCNN, image_hw: tuple[int, int]) -> float:
    """MiB that backbone and neck keep for the backward pass of one image, weights excepted."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        maps = model.features(torch.rand(1, 3, *image_hw))
    assert all(level.requires_grad for level in maps)
    return sum(sizes.values()) / 2**20


def make_parser() -> argparse.ArgumentParser:
    parser = base_parser(__doc__)
    parser.add_argument("--model", default="resnet50-fpn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    return parser


def main(command: Sequence[str] | None = None) -> None:
    options = make_parser().parse_args(command)
    image_hw, large_hw = IMAGE_HW, (800, 1344)
    if options.tiny:
        options.model, options.rounds, image_hw, large_hw = TINY_MODEL, 1, TINY_HW, TINY_HW
    torch.set_num_threads(options.threads)
    trainer = Trainer(options.model, image_hw)
    kept = {"kept_mib": kept_mib(trainer.model, large_hw)}
    steps: dict[str, list[dict[str, float]]] = {"float32": [], "bf16": []}
    for _ in range(options.rounds + 1):  # the first is a warm-up
        steps["float32"].append(trainer.step(torch.float32))
        steps["bf16"].append(trainer.step(torch.bfloat16))
    rows = {name: {part: min(step[part] for step in timed[1:]) for part in timed[0]} for name, timed in steps.items()}
    for row in rows.values():
        row["seconds"] = sum(row.values())
    rows["bf16"]["ratio"] = rows["float32"]["seconds"] / rows["bf16"]["seconds"]
    report("training_step", {**rows, f"image of {large_hw[0]}x{large_hw[1]}": kept}, options.output)


if __name__ == "__main__":
    main()
