"""A training step on a CPU: torchvision's `fasterrcnn_resnet50_fpn` against our `resnet50-fpn`.

python benchmarks/training_step_torchvision.py [--precision bf16] [--images 2] [--rounds 5]

Forward and backward of random images with 12 objects each, in alternation in one process, with the same threads.
Both sides compute in the given precision, torch's autocast with bf16. Norms are frozen, all
layers are trained. Without the optimizer.
"""

import argparse
from collections.abc import Callable, Sequence

from fasterrcnn.cli.options import configure_process

configure_process()

import torch
from compare import alternate, base_parser, report
from torch import Tensor
from torchvision.models.detection import fasterrcnn_resnet50_fpn
from torchvision.ops import FrozenBatchNorm2d

from fasterrcnn import presets
from fasterrcnn.build import build_model
from fasterrcnn.structures import ImageBatch, Target

OBJECTS, CLASSES = 12, ("a", "b", "c")
NORM_SCALE = 0.5
"""With 1, activations of random weights would grow from block to block."""
Step = Callable[[], None]


def random_boxes(height: int, width: int) -> Tensor:
    """Objects of an eighth to a half of the sides."""
    sides = torch.tensor([width, height]).float()
    corners = torch.rand(OBJECTS, 2) * sides / 2
    return torch.cat([corners, corners + sides * (0.125 + 0.375 * torch.rand(OBJECTS, 2))], 1)


def both_steps(images: int, height: int, width: int, precision: str) -> tuple[Step, Step]:
    """Our step and theirs, with the same images and objects."""
    boxes = [random_boxes(height, width) for _ in range(images)]
    labels = [torch.randint(len(CLASSES), (OBJECTS,)) for _ in range(images)]
    pixels = torch.rand(images, 3, height, width)
    ours = build_model(presets.get("resnet50-fpn", CLASSES), weights=None).train()
    theirs = fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=len(CLASSES) + 1,
        min_size=min(height, width), max_size=max(height, width), norm_layer=frozen_norm,
    ).train()  # fmt: skip
    for name, buffer in ours.named_buffers():
        if name.endswith(".weight"):  # of a frozen norm
            buffer.fill_(NORM_SCALE)
    batch = ImageBatch(pixels.contiguous(memory_format=torch.channels_last), [(height, width)] * images)
    our_targets = [Target(xyxy, own, torch.zeros(0, 4)) for xyxy, own in zip(boxes, labels, strict=True)]
    their_targets = [{"boxes": xyxy, "labels": own + 1} for xyxy, own in zip(boxes, labels, strict=True)]

    def step(model: torch.nn.Module, losses: Callable[[], Tensor]) -> None:
        with torch.autocast("cpu", torch.bfloat16, precision == "bf16"):
            total = losses()
        model.zero_grad()
        total.backward()

    return (
        lambda: step(ours, lambda: torch.stack([value for _, value in ours.losses(batch, our_targets)]).sum()),
        lambda: step(theirs, lambda: sum(theirs(list(pixels), their_targets).values())),
    )


def frozen_norm(channels: int) -> torch.nn.Module:
    """As torchvision builds it with pretrained weights, scaled."""

    norm = FrozenBatchNorm2d(channels)
    norm.weight.fill_(NORM_SCALE)
    return norm


def make_parser() -> argparse.ArgumentParser:
    parser = base_parser(__doc__)
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    return parser


def main(command: Sequence[str] | None = None) -> None:
    options = make_parser().parse_args(command)
    if options.tiny:
        options.height = options.width = 64
        options.images = options.rounds = 1
    torch.manual_seed(0)
    ours, theirs = both_steps(options.images, options.height, options.width, options.precision)
    name = f"resnet50-fpn {options.images} x {options.height} x {options.width} {options.precision}"
    report("training_step_torchvision", {name: alternate(ours, theirs, options.rounds)}, options.output)


if __name__ == "__main__":
    main()
