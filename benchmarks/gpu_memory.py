"""How much memory of a GPU does training a preset need? Counted on the CPU.

python benchmarks/gpu_memory.py

Autograd's hooks count what a forward pass keeps for the backward pass, for one image and for two, at the size of the
preset's own input and in float32 and under bfloat16 autocast. Weights, gradients, AdamW's two averages and the averaged
weights come to it: 16 bytes for each parameter that is trained in the run, 4 for each of the others. Not counted:
the CUDA context (about 0.5 GiB), work space of cuDNN, and what the allocator cannot reuse.
"""

import argparse
from collections.abc import Sequence

import torch
from compare import base_parser, report
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from fasterrcnn import presets
from fasterrcnn.build import assemble
from fasterrcnn.config import ModelConfig, TrainConfig, changed
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.ops.image import make_batch
from fasterrcnn.structures import Target
from fasterrcnn.training.optimizer import freeze_stages

IMAGE_HW = (800, 1333)
"""Of the image, which is resized to the preset's input; of COCO's size at the short side 800."""

CLASSES = [f"class {number}" for number in range(20)]
PRECISIONS = {"float32": None, "bf16": torch.bfloat16}
MIB = 2**20


def network_of(config: ModelConfig) -> FasterRCNN:
    """As at the start of a run from ImageNet weights: the first stages are frozen, and the norms of the backbone."""
    model = assemble(config).train()
    freeze_stages(model, TrainConfig(data="", model=config), 1)
    for module in model.backbone.body.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval().requires_grad_(False)
    return model


def kept_bytes(model: FasterRCNN, config: ModelConfig, images: int, dtype: torch.dtype | None) -> int:
    """Bytes that the forward pass of a training step keeps for the backward pass, each memory block counted once."""
    height, width = config.input.resized_hw(IMAGE_HW)
    rng = torch.Generator().manual_seed(0)
    batch = make_batch(
        [torch.rand(3, height, width, generator=rng) for _ in range(images)],
        fill=config.input.mean,
        size_divisor=config.input.size_divisor,
    )
    xyxy = torch.tensor([[0.1, 0.1, 0.4, 0.5], [0.5, 0.3, 0.9, 0.9]]) * torch.tensor([width, height] * 2)
    targets = [Target(xyxy, torch.tensor([0, 1]))] * images
    weights = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    blocks: dict[int, tuple[StorageWeakRef, int]] = {}  # a weak reference keeps the number of a block from being reused

    def count(tensor: torch.Tensor) -> None:
        """Nothing is kept: there is no backward pass, and this machine may have less memory than a GPU."""
        block = tensor.untyped_storage()
        if block.data_ptr() not in weights:
            reference = StorageWeakRef(block)
            blocks[reference.cdata] = reference, block.nbytes()

    half = torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda nothing: nothing), half:
        generators = [torch.Generator().manual_seed(number) for number in range(images)]
        model.losses(batch, targets, generator=generators)
    return sum(size for _, size in blocks.values())


def measure(config: ModelConfig) -> dict[str, float]:
    """MiB of the weights with all that is kept for them, and of each image in each precision."""
    model = network_of(config)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    every = sum(parameter.numel() for parameter in model.parameters())
    numbers = {"weights_mib": (16 * trained + 4 * (every - trained)) / MIB}
    for name, dtype in PRECISIONS.items():
        one, two = (kept_bytes(model, config, images, dtype) for images in (1, 2))
        numbers[f"{name}_image_mib"] = (two - one) / MIB
        numbers[f"{name}_step_mib"] = max(0, 2 * one - two) / MIB
        for batch in (4, 8):
            total = numbers["weights_mib"] + numbers[f"{name}_step_mib"] + batch * numbers[f"{name}_image_mib"]
            numbers[f"{name}_batch_{batch}_gib"] = total / 1024
    return numbers


def markdown(rows: dict[str, dict[str, float]]) -> str:
    """The table of docs/how-to/gpu.md."""
    lines = [
        "| preset, input | weights and optimizer | an image, float32 | bf16 | batch of 4, float32 | bf16 | of 8, bf16 |"
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for row, of in rows.items():
        mib = [of["weights_mib"], of["float32_image_mib"], of["bf16_image_mib"]]
        gib = [of["float32_batch_4_gib"], of["bf16_batch_4_gib"], of["bf16_batch_8_gib"]]
        cells = [row, *(f"{value:,.0f} MiB" for value in mib), *(f"{value:.1f} GiB" for value in gib)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def make_parser() -> argparse.ArgumentParser:
    parser = base_parser(__doc__)
    parser.add_argument("--presets", nargs="+", default=list(presets.names()))
    return parser


def main(command: Sequence[str] | None = None) -> None:
    arguments = make_parser().parse_args(command)
    names = ["timm:test_efficientnet"] if arguments.tiny else arguments.presets
    rows = {}
    for name in names:
        config = presets.get(name, CLASSES)
        if arguments.tiny:
            config = changed(config, input={"short_side": 64, "long_side": 96})
        height, width = config.input.resized_hw(IMAGE_HW)
        rows[f"{name}, {height}x{width}"] = measure(config)
        print(markdown(rows).splitlines()[-1], flush=True)
    print(f"\n{markdown(rows)}\n")
    report("gpu memory", rows, arguments.output)


if __name__ == "__main__":
    main()
