"""Whole predictions in every precision, against torchvision's model in float32 as it comes, with the same weights.

python benchmarks/precision.py [--weights FILE] [--image FILE] [--rounds 7] [--threads 2] [--only NAME...] [--processor]

Without weights: resnet50-fpn with random ones that detect, an image of 640x480 pixels at 800x1066. With the weights of
a preset that torchvision does not have, such as efficientnet-lite0-fpn, the first side is ours in float32. All sides
alternate in one process. Before that, each must give the detections of the first: as many as the bound of its
precision asks for, with equal labels and an IoU of at least .9.
`--processor` compares processor seconds, which other programs on the machine disturb less; take one thread then.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from compare import base_parser, report
from competitors import MakeTorchvision
from PIL import Image
from predict import SIDES, TINY_SIDES, lively_model
from runtimes import blobs
from torchvision.ops import box_iou

from fasterrcnn.build import load_model
from fasterrcnn.cli.options import configure_process
from fasterrcnn.detections import Detections
from fasterrcnn.errors import UsageError
from fasterrcnn.inference.detector import load
from fasterrcnn.weights import native

Predict = Callable[[np.ndarray], Detections]

SAME_IOU = 0.9
RUNTIMES = {
    "torch": ("torch", "float32", 1.0),
    "torch-bf16": ("torch", "bf16", 0.8),
    "openvino": ("openvino", "float32", 1.0),
    "openvino-bf16": ("openvino", "bf16", 0.8),
    "openvino-int8": ("openvino-int8", "bf16", 0.3),
}
"""Runtime and precision of each of our sides, and the share of the first side's detections that it must have too:
random weights exaggerate the differences."""


def make_parser() -> argparse.ArgumentParser:
    parser = base_parser(__doc__)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--image", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=list(RUNTIMES))
    parser.add_argument("--processor", action="store_true")
    return parser


def main(command: Sequence[str] | None = None) -> None:
    """Check that all sides agree, then time them alternately."""
    arguments = make_parser().parse_args(command)
    torch.set_num_threads(arguments.threads)
    image = blobs(0) if arguments.image is None else np.array(Image.open(arguments.image).convert("RGB"))
    with tempfile.TemporaryDirectory() as folder:
        weights = arguments.weights or random_weights(Path(folder), TINY_SIDES if arguments.tiny else SIDES)
        sides = make_sides(weights, image, arguments.only or installed(), arguments.threads)
    base, *others = sides
    expected = sides[base](image)
    assert len(expected) > 10, len(expected)
    shares = {name: share_of(expected, sides[name](image)) for name in others}
    for name, share in shares.items():
        assert share >= RUNTIMES[name][2], (name, share)
    clock = time.process_time if arguments.processor else time.perf_counter
    times = alternate_all(sides, image, 1 if arguments.tiny else arguments.rounds, clock)
    rows = {name: numbers(times[base], times[name]) | {"same_detections": shares[name]} for name in others}
    report("precision", rows, arguments.output)


def installed() -> list[str]:
    """Names of our sides whose libraries are here."""
    missing = [extra for extra in ("openvino", "nncf") if find_spec(extra) is None]
    needs = {"openvino": ("openvino",), "openvino-bf16": ("openvino",), "openvino-int8": ("openvino", "nncf")}
    return [name for name in RUNTIMES if not set(needs.get(name, ())) & set(missing)]


def random_weights(folder: Path, sides: tuple[int, int]) -> Path:
    """A checkpoint of resnet50-fpn that detects."""
    state = lively_model(sides).state_dict()
    for name, value in state.items():
        if name.endswith("bias") and not name.startswith("backbone.body"):
            value.add_(torch.linspace(-0.01, 0.01, len(value)))  # as in a trained network
    torch.save(state, folder / "model.pth")
    model, config = load_model(folder / "model.pth")
    size = config.input.model_copy(update={"short_side": sides[0], "long_side": sides[1]})
    native.save_checkpoint(folder / "model.safetensors", model, config.model_copy(update={"input": size}))
    return folder / "model.safetensors"


def make_sides(weights: Path, image: np.ndarray, names: Sequence[str], threads: int) -> dict[str, Predict]:
    """What predicts, by name: torchvision's model first where it has the architecture, else ours in float32."""
    sides: dict[str, Predict] = {}
    try:
        sides["torchvision"] = MakeTorchvision(weights, "torchvision")(threads).predict
    except UsageError:
        names = ["torch", *(name for name in names if name != "torch")]
    calibration = [image, *(blobs(seed) for seed in range(4))]
    for name in names:
        runtime, precision, _ = RUNTIMES[name]
        options = {"calibration": calibration} if runtime == "openvino-int8" else {}
        sides[name] = load(weights, device="cpu", runtime=runtime, precision=precision, **options).predict
    return sides


def share_of(expected: Detections, detections: Detections) -> float:
    """The share of the expected detections that have a partner of the same label and nearly the same box."""
    overlaps = box_iou(torch.from_numpy(expected.boxes), torch.from_numpy(detections.boxes)).numpy()
    same = (overlaps >= SAME_IOU) & (expected.labels[:, None] == detections.labels[None])
    return float(same.any(axis=1).mean())


def alternate_all(
    sides: Mapping[str, Predict], image: np.ndarray, rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of each round of each side, after one that does not count."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, predict in sides.items():
            started = clock()
            predict(image)
            if number:
                times[name].append(clock() - started)
    return times


def numbers(base: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    """Median seconds, and how many times faster than the first side: median and range of the rounds."""
    ratios = sorted(first / own for first, own in zip(base, ours, strict=True))
    return {
        "seconds": statistics.median(ours),
        "first_side_seconds": statistics.median(base),
        "ratio_median": statistics.median(ratios),
        "ratio_lowest": ratios[0],
        "ratio_highest": ratios[-1],
        "rounds": len(ratios),
    }


if __name__ == "__main__":
    configure_process()
    main()
