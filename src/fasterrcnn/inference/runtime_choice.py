"""What "auto" stands for: the fastest runtime and precision on this machine whose numbers stay near those of float32.

On a CPU the candidates are measured once for each network, and the choice is remembered in the cache folder. On a GPU
a rule decides.
"""

import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fasterrcnn.acceleration.autotune import cache_digest, clear_winner, remembered_choice, weights_digest
from fasterrcnn.config import InputConfig, Precision
from fasterrcnn.demo.scenes import draw_scene
from fasterrcnn.errors import FasterRCNNError
from fasterrcnn.inference.devices import has_fast_bf16, has_fast_fp16
from fasterrcnn.inference.runtimes import (
    RuntimeChoice,
    RuntimeName,
    check_precision,
    check_runtime,
    has_precision,
    make_runtime,
)
from fasterrcnn.inference.runtimes.parts import outputs_of, relative_error
from fasterrcnn.inference.sources import batch_of_images
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.model.roi_pooling import as_rois
from fasterrcnn.model.stages import Stages
from fasterrcnn.structures import CPU, ImageBatch

MAX_RELATIVE_ERROR = 0.1
"""Of each output, as a share of its size: bfloat16 gives trained networks 0.002 to 0.07."""

_ROUNDS = 4
"""The first warms up; the shortest counts."""


class Combination(NamedTuple):
    """How the network may run: a runtime and a precision."""

    runtime: RuntimeName
    precision: Precision  # not "auto"

    def __str__(self) -> str:
        return f"runtime {self.runtime}, precision {self.precision}"


def choose_runtime(
    runtime: RuntimeChoice,
    precision: Precision,
    model: FasterRCNN,
    input_config: InputConfig,
    *,
    threads: int | None = None,
    quantized: Mapping[str, Tensor] | None = None,
    log: Callable[[str], None] | None = None,
) -> Combination:
    """A runtime and a precision without "auto".

    Args:
        runtime: the one that is wanted, or "auto" for any that is installed, except those that compile for a minute.
        precision: likewise; "auto" is float32 where the device has no fast 16-bit numbers.
        model: from `accelerate(..., for_="inference")`, on its device.
        input_config: to what size images are resized; the measurement takes one of 480x640.
        threads: as for `make_runtime`.
        quantized: as for `make_runtime`.
        log: called with one line that states what was taken, where something was "auto".

    Raises:
        UsageError: there is no such runtime or precision, or not together, or not on the model's device.
    """
    if runtime != "auto":
        check_runtime(runtime, model.mean.device)
        check_precision(precision, runtime, model.mean.device)
        if precision != "auto":
            return Combination(runtime, precision)
    ways = candidates(runtime, precision, model.mean.device, quantized is not None)
    if len(ways) == 1:
        (way,) = ways.values()
    else:
        names = cache_digest(*ways, str(input_config.resized_hw(_IMAGE_HW)))
        key = f"runtime of {weights_digest(model)} among {names}"

        def choose() -> str:
            return _fastest(ways, model, input_config, threads, quantized)

        way = ways[remembered_choice(key, ways, choose)]
    if log is not None:
        log(f"auto: {way}" + (", the fastest here" if len(ways) > 1 else ""))
    return way


def candidates(
    runtime: RuntimeChoice, precision: Precision, device: torch.device, is_quantized: bool
) -> dict[str, Combination]:
    """The ways that "auto" may take, by name, the safest first.

    Raises:
        UsageError: no runtime has the precision on that device.
    """
    runtimes = _auto_runtimes(device, is_quantized) if runtime == "auto" else [runtime]
    precisions = _auto_precisions(device) if precision == "auto" else [precision]
    ways = [Combination(name, each) for name in runtimes for each in precisions if has_precision(name, each, device)]
    if not ways:
        check_precision(precision, "torch", device)  # raises, with the reason
    return {str(way): way for way in ways}


def _auto_runtimes(device: torch.device, is_quantized: bool) -> list[RuntimeName]:
    if device.type != "cpu":
        return ["torch"]
    names: list[RuntimeName] = ["torch", "winograd"]
    if find_spec("openvino") is not None:
        names += ["openvino", "openvino-int8"] if is_quantized else ["openvino"]
    if find_spec("onnxruntime") is not None and find_spec("onnxscript") is not None:
        names.append("onnxruntime")
    return names


def _auto_precisions(device: torch.device) -> list[Precision]:
    """On a CPU float32 and what may be faster; on a GPU the best one alone."""
    if device.type == "cpu":
        return ["float32", "bf16"] if has_fast_bf16(device) else ["float32"]
    if has_fast_bf16(device):
        return ["bf16"]
    return ["fp16"] if has_fast_fp16(device) else ["float32"]


_IMAGE_HW = (480, 640)


@torch.inference_mode()
def _fastest(
    ways: Mapping[str, Combination],
    model: FasterRCNN,
    input_config: InputConfig,
    threads: int | None,
    quantized: Mapping[str, Tensor] | None,
) -> str:
    """Name of the fastest way that is near float32, or of the first; one is in memory at a time."""
    batch = _example(input_config)
    pooled, exact = _reference(model, batch)
    seconds: dict[str, float] = {}
    for name, way in ways.items():
        try:
            stages = make_runtime(way.runtime, model, threads=threads, quantized=quantized, precision=way.precision)
            outputs = outputs_of(stages, batch.pixels, pooled, len(model.roi_pooling.strides))
        except (FasterRCNNError, RuntimeError):  # no compiler, for example
            continue
        errors = [relative_error(output, expected) for output, expected in zip(outputs, exact, strict=True)]
        # 8-bit integers are compared by `fasterrcnn quantize`, which wrote them.
        if way.runtime != "openvino-int8" and not max(errors) <= MAX_RELATIVE_ERROR:
            continue
        seconds[name] = min(_seconds(model, batch, stages) for _ in range(_ROUNDS))
    return clear_winner(seconds) if seconds else next(iter(ways))


def _seconds(model: FasterRCNN, batch: ImageBatch, stages: Stages) -> float:
    started = time.perf_counter()
    model(batch, stages=stages)
    return time.perf_counter() - started


def _example(config: InputConfig) -> ImageBatch:
    """A drawn scene as the network gets it."""
    image = torch.from_numpy(np.array(draw_scene(seed=0, index=0, size_hw=_IMAGE_HW).image)).permute(2, 0, 1)
    return batch_of_images([image], config, CPU)


def _reference(model: FasterRCNN, batch: ImageBatch) -> tuple[Tensor, list[Tensor]]:
    """Pooled maps of the proposals, and all outputs of the network in float32."""
    features = model.features(batch.pixels)
    height, width = batch.sizes_hw[0]
    whole = batch.pixels.new_tensor([[0, 0, width, height]])  # where nothing is proposed
    regions = [torch.cat([image.boxes, whole]) for image in model.propose(features, batch)]
    levels = len(model.roi_pooling.strides)
    pooled = model.roi_pooling(features, as_rois(regions))
    return pooled, outputs_of(model, batch.pixels, pooled, levels)
