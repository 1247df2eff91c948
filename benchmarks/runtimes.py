"""All runtimes and torchvision's model in four ways, with the same weights, alternately: resnet50-fpn at 800x1066.

python benchmarks/runtimes.py [--weights FILE] [--images FOLDER] [--rounds 7] [--threads 2] [--only NAME...]

Without weights they are random ones that detect. Each side runs in a process of its own, whose peak memory is shown.
The 8-bit integers are calibrated on the images, or on blobs. Float32 must find the same as the runtime torch: equal
labels, boxes within 0.5 pixels, scores within 1e-3.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from compare import base_parser
from competitors import VARIANTS, MakeTorchvision
from PIL import Image
from predict import SIDES, TINY_SIDES, lively_model

from fasterrcnn.build import load_model
from fasterrcnn.cli.options import configure_process
from fasterrcnn.inference.benchmark import BOX_TOLERANCE, SCORE_TOLERANCE, BenchmarkRow, benchmark
from fasterrcnn.inference.quantization import quantize
from fasterrcnn.inference.runtimes import runtime_names
from fasterrcnn.weights import native


def blobs(seed: int) -> np.ndarray:
    noise = torch.rand(1, 3, 480, 640, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.avg_pool2d(noise, 9, 1, 4)[0] * 2 % 1
    return np.ascontiguousarray((smooth * 255).byte().permute(1, 2, 0).numpy())


def make_parser() -> argparse.ArgumentParser:
    parser = base_parser(__doc__)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=[*VARIANTS, *runtime_names()])
    return parser


def main(command: Sequence[str] | None = None) -> None:
    arguments = make_parser().parse_args(command)
    only = arguments.only or (*VARIANTS, *runtime_names())
    with tempfile.TemporaryDirectory() as folder:
        weights, image = prepare(arguments, Path(folder), quantized="openvino-int8" in only)
        rows = benchmark(
            weights,
            image,
            [name for name in runtime_names() if name in only],
            threads=[arguments.threads],
            rounds=1 if arguments.tiny else arguments.rounds,
            others={name: MakeTorchvision(weights, name) for name in VARIANTS if name in only},
            prepare=configure_process,
            log=log,
        )
    show(rows)
    if arguments.output:
        arguments.output.write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")
    for row in rows:
        if row.failure is None and row.runtime != "openvino-int8":
            assert row.unmatched == 0, row
            assert row.box_deviation <= BOX_TOLERANCE, row
            assert row.score_deviation <= SCORE_TOLERANCE, row


def prepare(arguments: argparse.Namespace, folder: Path, *, quantized: bool) -> tuple[Path, np.ndarray]:
    """One checkpoint for every side, with 8-bit integers in it where they are asked for, and the image."""
    weights, images, sides = arguments.weights, arguments.images, TINY_SIDES if arguments.tiny else SIDES
    if weights is None:
        weights = folder / "model.pth"
        state = lively_model().state_dict()
        for name, value in state.items():
            if name.endswith("bias") and not name.startswith("backbone.body"):
                value.add_(torch.linspace(-0.01, 0.01, len(value)))  # as in a trained network
        torch.save(state, weights)
    model, config = load_model(weights)
    size = config.input.model_copy(update={"short_side": sides[0], "long_side": sides[1]})
    native.save_checkpoint(folder / "model.safetensors", model, config.model_copy(update={"input": size}))
    files = sorted(images.glob("*.jpg")) if images else []
    array = np.array(Image.open(files[0]).convert("RGB").resize((640, 480))) if files else blobs(0)
    if not quantized:
        return folder / "model.safetensors", array
    quantize(
        folder / "model.safetensors",
        files or [blobs(seed) for seed in range(8)],
        folder / "int8.safetensors",
        max_images=32,
    )
    return folder / "int8.safetensors", array


def log(text: str) -> None:
    print(text, flush=True)


def show(rows: list[BenchmarkRow]) -> None:
    """A table in Markdown; ratios of times and of processor seconds to torchvision's, as it comes."""
    base = next((row for row in rows if row.runtime == "torchvision"), None)
    print("\n| | median s | faster than torchvision | by processor seconds | peak MiB | boxes px | scores |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        if row.failure is not None:
            print(f"| {row.runtime} | {row.failure} |")
            continue
        ratios = (base.median / row.median, base.processor / row.processor) if base else (float("nan"),) * 2
        print(
            f"| {row.runtime} | {row.median:.3f} | {ratios[0]:.2f} | {ratios[1]:.2f} | {row.peak_mib:.0f} "
            f"| {row.box_deviation:.4f} | {row.score_deviation:.6f} |"
        )


if __name__ == "__main__":
    main()
