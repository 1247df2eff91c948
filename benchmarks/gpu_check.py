"""Does the library do on a GPU what it does on a CPU, and how fast? Beside torchvision, with the same weights.

python benchmarks/gpu_check.py --output OUT.json                    # on a machine with a GPU
python benchmarks/gpu_check.py --device cpu --tiny                  # the same way anywhere, with a tiny network

Random weights and noise as images; nothing is downloaded. Sections: parity (the gradients of every preset against the
CPU in float32), training (a step of resnet50-fpn at 800x1333, ours and torchvision's), predict (latency, and
batches of images in memory), pieces (parts where there is a choice). Each number is the median of several calls;
"waits" counts how often a call makes the CPU wait for the GPU. A section that fails is reported, and the next one runs.
"""

import argparse
import contextlib
import copy
import statistics
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from compare import base_parser, report
from competitors import torchvision_model
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from fasterrcnn import presets
from fasterrcnn.build import assemble
from fasterrcnn.config import ModelConfig, changed
from fasterrcnn.inference.detector import Detector
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.ops import roi_align
from fasterrcnn.ops.image import make_batch
from fasterrcnn.structures import ByteBatch, ImageBatch, Target

CLASSES = ["a", "b", "c", "d", "e"]
MEAN = (0.485, 0.456, 0.406)
AUTOCAST = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
LIMITS = {"float32": 0.02, "bf16": 0.35, "fp16": 0.1}
"""Largest relative difference of the gradients from those of the CPU in float32."""

Rows = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Bench:
    """Where and how much is measured."""

    device: torch.device
    tiny: bool

    @property
    def precisions(self) -> list[str]:
        """Those that the device has."""
        return ["float32", "bf16", "fp16"] if self.device.type == "cuda" else ["float32", "bf16"]

    def preset(self, name: str) -> ModelConfig:
        """A preset, with small inputs and few proposals if everything is to be tiny."""
        config = presets.get("timm:test_efficientnet" if self.tiny and "resnet50-fpn" not in name else name, CLASSES)
        if not self.tiny:
            return config
        few = dict.fromkeys(("candidates", "proposals", "training_candidates", "training_proposals"), 50)
        return changed(config, input={"short_side": 64, "long_side": 96}, proposals=few)

    def autocast(self, precision: str) -> contextlib.AbstractContextManager[object]:
        """Autocast of the device in that precision."""
        dtype = AUTOCAST[precision]
        return torch.autocast(self.device.type, dtype or torch.bfloat16, enabled=dtype is not None)

    def wait(self) -> None:
        """Until the device has done everything."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def times(self, call: Callable[[], object]) -> dict[str, float]:
        """Milliseconds of a call, and until the CPU has nothing left to do; GiB at the peak; waits."""
        warm, rounds = (1, 1) if self.tiny else (3, 9)
        for _ in range(warm):
            call()
        whole, host = [], []
        for _ in range(rounds):
            self.wait()
            started = time.perf_counter()
            call()
            host.append(1e3 * (time.perf_counter() - started))
            self.wait()
            whole.append(1e3 * (time.perf_counter() - started))
        numbers = {"ms": statistics.median(whole), "host_ms": statistics.median(host)}
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            waits, places = blocking(call)
            numbers |= {"waits": waits, "peak_gib": torch.cuda.max_memory_allocated() / 2**30}
            for place, count in places.most_common(12):
                print(f"    waits {count} times: {place}", file=sys.stderr)
        return numbers


def blocking(call: Callable[[], object]) -> tuple[int, Counter[str]]:
    """How often a call makes the CPU wait for a CUDA GPU, and in which lines."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    places = Counter(f"{w.filename}:{w.lineno}" for w in seen if "synchronizing CUDA operation" in str(w.message))
    return sum(places.values()), places


# ---- networks and images


def network(config: ModelConfig) -> FasterRCNN:
    """With random weights, and the stem frozen as in a run with pretrained ones."""
    torch.manual_seed(0)
    model = assemble(config)
    model.backbone.freeze(1)
    return model


def torchvision_network(model: FasterRCNN, config: ModelConfig) -> nn.Module:
    """Torchvision's detector with the same weights, its norms and stem frozen as in its own reference training."""
    theirs = torchvision_model(model, config)
    for name, norm in list(theirs.named_modules()):
        if isinstance(norm, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(norm.num_features, norm.eps)
            frozen.load_state_dict(norm.state_dict())
            theirs.set_submodule(name, frozen)
    for name, parameter in theirs.named_parameters():
        parameter.requires_grad_(not name.startswith("backbone.body.conv1"))
    return theirs


def image(hw: tuple[int, int], seed: int) -> Tensor:
    """Coarse noise under fine noise, RGB in 0..1: no two anchors have the same pixels."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, max(2, hw[0] // 32), max(2, hw[1] // 32), generator=rng)
    return 0.8 * nn.functional.interpolate(coarse, size=hw, mode="bilinear")[0] + 0.2 * torch.rand(
        3, *hw, generator=rng
    )


def batch_of(hw: tuple[int, int], count: int) -> tuple[ImageBatch, list[Target]]:
    """Images of one size with eight objects each."""
    targets = []
    for seed in range(count):
        rng = torch.Generator().manual_seed(1000 + seed)
        limits = torch.tensor([hw[1], hw[0]])
        size = torch.rand(8, 2, generator=rng) * limits * 0.35 + 12
        corner = torch.rand(8, 2, generator=rng) * (limits - size)
        labels = torch.randint(0, len(CLASSES), (8,), generator=rng)
        targets.append(Target(torch.cat([corner, corner + size], 1), labels))
    return make_batch([image(hw, seed) for seed in range(count)], fill=MEAN, size_divisor=32), targets


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(number) for number in range(count)]


def relative(tensor: Tensor, reference: Tensor) -> float:
    tensor, reference = tensor.detach().cpu().double(), reference.detach().cpu().double()
    return float((tensor - reference).norm() / reference.norm().clamp(min=1e-30))


# ---- sections: rows of numbers, one by one


def parity(bench: Bench) -> Iterator[tuple[str, dict[str, float]]]:
    """The gradients of each preset against the CPU's; "failed" is 1 where the limit is exceeded."""
    names = ("timm:test_efficientnet",) if bench.tiny else presets.names()
    batch, targets = batch_of((64, 96) if bench.tiny else (256, 320), 2)
    there, targets_there = batch.to(bench.device), [target.to(bench.device) for target in targets]
    for name in names:
        on_cpu = network(bench.preset(name)).train()
        on_device = copy.deepcopy(on_cpu).to(bench.device)
        regions: list[Tensor] = []
        reference = gradients(on_cpu, batch, targets, regions)
        for precision in bench.precisions:
            scale = 256.0 if precision == "fp16" else 1.0
            with bench.autocast(precision):
                found = gradients(on_device, there, targets_there, regions, scale)
            difference = relative(found, reference)
            yield f"parity {name} {precision}", {"gradients": difference, "failed": difference > LIMITS[precision]}


def gradients(
    model: FasterRCNN, batch: ImageBatch, targets: list[Target], regions: list[Tensor], scale: float = 1.0
) -> Tensor:
    """All gradients in one row. The model's own proposals fill empty `regions`, else these take their place.

    Proposals of noise differ wherever two scores do by a rounding error, and the regions drawn with them.
    """
    own = model.training_proposals

    def propose(*arguments: object, **options: object) -> object:
        proposals = own(*arguments, **options)
        if not regions:
            regions.extend(proposal.boxes.cpu() for proposal in proposals)
        pairs = zip(proposals, regions, strict=True)
        return [type(p)(boxes.to(p.boxes.device), p.scores.new_ones(len(boxes))) for p, boxes in pairs]

    model.zero_grad(set_to_none=True)
    model.training_proposals = propose  # type: ignore[assignment]
    try:
        losses = model.losses(batch, targets, generator=generators(len(targets)))
    finally:
        model.training_proposals = own
    (losses.total * scale).backward()
    parts = [p.grad.float().flatten() / scale for p in model.parameters() if p.grad is not None]
    return torch.cat(parts)


def training(bench: Bench) -> Iterator[tuple[str, dict[str, float]]]:
    """A step of resnet50-fpn: losses, their check, backward pass, clipping, AdamW."""
    hw, counts = ((64, 96), (1,)) if bench.tiny else ((800, 1333), (8, 16))
    config = bench.preset("resnet50-fpn")
    for count in counts:
        batch, targets = batch_of(hw, count)
        model = network(config)
        theirs = torchvision_network(model, config).to(bench.device).train()
        model = model.to(bench.device).train()
        there, targets = batch.to(bench.device), [target.to(bench.device) for target in targets]
        images = [pixels[:, : hw[0], : hw[1]] for pixels in there.pixels]
        labelled = [{"boxes": target.boxes, "labels": target.labels + 1} for target in targets]

        def our_loss(model=model, there=there, targets=targets) -> Tensor:  # type: ignore[no-untyped-def]
            losses = model.losses(there, targets, generator=generators(len(targets)))
            if not torch.stack([value for _, value in losses]).isfinite().all():
                raise RuntimeError("a loss is not finite")
            return losses.total

        def their_loss(theirs=theirs, images=images, labelled=labelled) -> Tensor:  # type: ignore[no-untyped-def]
            return sum(theirs(images, labelled).values())

        for precision in bench.precisions:
            row = f"training {precision}, batch of {count}"
            ours_ms = 0.0
            for side, owner, loss in (("ours", model, our_loss), ("torchvision", theirs, their_loss)):
                numbers = bench.times(step_of(bench, owner, loss, precision))
                numbers["images_per_second"] = 1e3 * count / numbers["ms"]
                ours_ms = ours_ms or numbers["ms"]
                if side == "torchvision":
                    numbers["ratio"] = numbers["ms"] / ours_ms
                yield f"{row}, {side}", numbers


def step_of(bench: Bench, model: nn.Module, loss: Callable[[], Tensor], precision: str) -> Callable[[], None]:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-7, fused=bench.device.type == "cuda")
    scaler = torch.amp.GradScaler(bench.device.type, enabled=precision == "fp16")

    def step() -> None:
        with bench.autocast(precision):
            total = loss()
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(total).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(parameters, 10.0)
        scaler.step(optimizer)
        scaler.update()

    return step


def predict(bench: Bench) -> Iterator[tuple[str, dict[str, float]]]:
    """`Detector.predict` of arrays; torchvision's model of tensors that are on the device already."""
    hw, count = ((48, 64), 2) if bench.tiny else ((480, 640), 16)
    arrays = [(image(hw, seed).permute(1, 2, 0) * 255).byte().numpy() for seed in range(count)]
    for name in ("resnet50-fpn", "efficientnet-lite0-fpn"):
        config = bench.preset(name)
        model = network(config)
        for precision in bench.precisions:
            detector = Detector(model, config, device=str(bench.device), precision=precision)
            yield predictions(bench, f"{name} {precision}", partial(detector.predict, batch_size=8), arrays)
        if name == "resnet50-fpn":
            theirs = torchvision_network(model, config).to(bench.device).eval()
            tensors = [image(hw, seed).to(bench.device) for seed in range(count)]
            for precision in bench.precisions:
                with bench.autocast(precision), torch.inference_mode():
                    yield predictions(bench, f"torchvision {precision}", theirs, tensors)


def predictions(
    bench: Bench, name: str, call: Callable[[list[Any]], object], images: list[Any]
) -> tuple[str, dict[str, float]]:
    """One image alone, and all of them in batches of 8."""
    alone = bench.times(lambda: call(images[:1]))
    batches = [images[start : start + 8] for start in range(0, len(images), 8)]
    all_of_them = bench.times(lambda: [call(batch) for batch in batches])
    return f"predict {name}", alone | {"images_per_second": 1e3 * len(images) / all_of_them["ms"]}


def pieces(bench: Bench) -> Iterator[tuple[str, dict[str, float]]]:
    """RoIAlign both ways, memory formats, and how a batch reaches the device."""
    regions, channels, (height, width) = (16, 8, (64, 96)) if bench.tiny else (4096, 256, (800, 1344))
    rng = torch.Generator().manual_seed(0)
    size = torch.rand(regions, 2, generator=rng) * min(height, width) / 2 + 8
    corner = torch.rand(regions, 2, generator=rng) * (torch.tensor([width, height]) - size)
    rois = torch.cat([torch.zeros(regions, 1), corner, corner + size], 1).to(bench.device)
    levels = torch.arange(regions, device=bench.device) % 4
    options = {
        "output_size": 7,
        "sampling_ratio": 2,
        "aligned": False,
        "spatial_scales": [1 / s for s in (4, 8, 16, 32)],
    }
    shapes = [(1, channels, height // s, width // s) for s in (4, 8, 16, 32)]
    for dtype in (torch.float32, torch.bfloat16):
        maps = [torch.randn(shape, generator=rng).to(bench.device, dtype) for shape in shapes]
        maps = [level.contiguous(memory_format=torch.channels_last).requires_grad_() for level in maps]

        def both(maps: list[Tensor] = maps) -> object:
            pooled = roi_align.pyramid_roi_align(maps, rois, levels, **options)  # type: ignore[arg-type]
            return torch.autograd.grad(pooled.float().square().sum(), maps)

        yield f"pieces RoIAlign {str(dtype)[6:]}, default", bench.times(both)
        torch.use_deterministic_algorithms(True)
        try:
            yield f"pieces RoIAlign {str(dtype)[6:]}, gather-sum", bench.times(both)
        finally:
            torch.use_deterministic_algorithms(False)
    for name in ("efficientnet-lite0-fpn", "resnet50-fpn"):
        for memory_format in (torch.channels_last, torch.contiguous_format):
            body = network(bench.preset(name)).backbone.to(bench.device).to(memory_format=memory_format)
            pixels = torch.rand(2, 3, height, width).to(bench.device).contiguous(memory_format=memory_format)
            with bench.autocast("bf16"):
                yield (
                    f"pieces backbone {name} bf16, {str(memory_format)[6:]}",
                    bench.times(
                        lambda body=body, pixels=pixels: sum(level.float().sum() for level in body(pixels)).backward()
                    ),
                )
    batch, _ = batch_of((height, width), 1 if bench.tiny else 8)
    yield "pieces a batch to the device, float32", bench.times(lambda: batch.to(bench.device))
    in_bytes = ByteBatch.of(batch, MEAN)
    in_bytes = in_bytes.pin_memory() if bench.device.type == "cuda" else in_bytes
    yield "pieces a batch to the device, pinned bytes", bench.times(lambda: in_bytes.to(bench.device))


SECTIONS = {"parity": parity, "training": training, "predict": predict, "pieces": pieces}


def make_parser() -> argparse.ArgumentParser:
    parser = base_parser(__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    return parser


def main(command: Sequence[str] | None = None) -> None:
    arguments = make_parser().parse_args(command)
    bench = Bench(torch.device(arguments.device), arguments.tiny)
    rows: Rows = {}
    failed = []
    for name in arguments.only:
        try:
            for row, numbers in SECTIONS[name](bench):
                rows[row] = {key: float(value) for key, value in numbers.items()}
                print(f"  {row}: {numbers}", file=sys.stderr, flush=True)
        except Exception:
            failed.append(name)
            traceback.print_exc()
    report("gpu check", rows, arguments.output)
    failed += [row for row, numbers in rows.items() if numbers.get("failed")]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
