"""8-bit integers for the runtime ``openvino-int8``: calibrated on images, kept in a checkpoint.

Axes: b images, h w pixels, r regions, s side of a pooled map, c channels.
"""

import logging
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fasterrcnn.acceleration import accelerate
from fasterrcnn.build import load_model
from fasterrcnn.config import ModelConfig
from fasterrcnn.errors import UsageError, require
from fasterrcnn.inference.batches import input_batches
from fasterrcnn.inference.devices import use_threads
from fasterrcnn.inference.runtimes import openvino
from fasterrcnn.inference.runtimes.parts import PartName, outputs_of, relative_error
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.model.stages import DenseOutputs, Stages
from fasterrcnn.weights import native

IMAGES = 100
"""Default number of images to calibrate with: more changed AP by less than its noise."""

_REGIONS = 32
"""Regions of each image that the head is calibrated with."""

_MAX_ERROR = 0.5
"""Largest error as a share of an output's size: the rounding of trained networks gives 0.02 to 0.2."""

_PREFIX = native.EXTRA + "openvino-int8/"


def quantize(
    weights: str | Path, images: Any, output: str | Path, *, max_images: int = IMAGES, threads: int | None = None
) -> None:
    """Write a checkpoint whose network can also run with 8-bit integers, in OpenVINO.

    ``load(output)`` then uses them; ``load(output, runtime="torch")`` does not.

    Args:
        weights: a checkpoint.
        images: what to calibrate with, as `Detector.predict` takes it: a folder, a glob, a list. They should
            resemble those to come; annotations are not needed.
        output: the .safetensors file to write.
        max_images: number of images that are used, the first ones.
        threads: CPU threads of torch, for the whole process; default leaves them as they are.

    Raises:
        UsageError: the output is no .safetensors file, there is no image, or OpenVINO computes the network wrongly.
        MissingExtraError: OpenVINO or nncf is not installed.
    """
    path = Path(output)
    if path.suffix != ".safetensors":
        raise UsageError(f"{path}: a quantized checkpoint is a .safetensors file")
    use_threads(threads)
    model, config = load_model(weights)
    parts = quantize_parts(model, config, images, max_images=max_images)
    notes = {"quantized": {"weights": Path(weights).name, "openvino": openvino.import_openvino().__version__}}
    extras = {_PREFIX + name: value for name, value in parts.items()}
    native.save_state(path, model.state_dict() | extras, config, notes)


def quantize_parts(
    model: FasterRCNN, config: ModelConfig, images: Any, *, max_images: int = IMAGES
) -> dict[str, Tensor]:
    """Both parts of a network as 8-bit OpenVINO models, in bytes; see `quantize`."""
    nncf = _import_nncf()
    openvino.import_openvino()
    model = accelerate(model, for_="inference").cpu().eval().requires_grad_(False)
    recorder = _Recorder(model)
    with torch.inference_mode():
        for batch in islice(input_batches(images, config.input), max_images):
            model(batch, stages=recorder)
    if not recorder.pixels or not recorder.pooled:
        raise UsageError("there is nothing to calibrate with: no image, or none with a region of interest")
    # Weights of 7 bits: with 8, sums overflow on processors without VNNI, and errors were 3 to 11 times as large.
    settings = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE)
    parts: dict[str, Tensor] = {}
    with tempfile.TemporaryDirectory() as folder:
        examples_of: dict[PartName, list[Tensor]] = {"dense": recorder.pixels, "head": recorder.pooled}
        for part, examples in examples_of.items():
            graph = openvino.import_openvino().Core().read_model(openvino.converted(model, part))
            data = nncf.Dataset([example.permute(0, 2, 3, 1).numpy() for example in examples])
            with redirect_stdout(sys.stderr):  # its progress bars do not belong to the results
                quantized = nncf.quantize(graph, data, subset_size=len(examples), advanced_parameters=settings)
            parts |= openvino.as_tensors(part, quantized, Path(folder))
    integers = openvino.openvino_stages(model, None, parts)
    with torch.inference_mode():
        pixels, pooled = recorder.pixels[0], recorder.pooled[0]
        levels = len(model.roi_pooling.strides)
        check_outputs(*(outputs_of(stages, pixels, pooled, levels) for stages in (integers, model)))
    return parts


def check_outputs(outputs: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Refuse 8-bit outputs that are far from those in float32.

    OpenVINO 2026.4 gives zeros where a convolution without a bias ends in an output and is quantized behind it.

    Raises:
        UsageError: the root mean square of an error exceeds half that of its output.
    """
    for number, (output, exact) in enumerate(zip(outputs, expected, strict=True)):
        error = relative_error(output, exact)
        if not error <= _MAX_ERROR:
            raise UsageError(
                f"OpenVINO computes this network wrongly with 8-bit integers: output {number} is off by {error:.3g}"
                " times its size; use another runtime"
            )


def quantized_parts(path: Path) -> dict[str, Tensor] | None:
    """The 8-bit parts that `quantize` wrote into a checkpoint; None if it has none."""
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, framework="pt") as file:
            names = [key for key in file.keys() if key.startswith(_PREFIX)]  # noqa: SIM118 - not a mapping
            return {name.removeprefix(_PREFIX): file.get_tensor(name) for name in names} or None
    except (SafetensorError, OSError):  # `load_model` reports what is wrong
        return None


class _Recorder:
    """Stages that record their inputs."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self.pixels: list[Tensor] = []
        self.pooled: list[Tensor] = []

    def dense(self, pixels: Tensor) -> DenseOutputs:
        self.pixels.append(pixels.clone())
        return self._stages.dense(pixels)

    def head(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        # Regions are sorted by score: a few from the whole range.
        chosen = torch.linspace(0, len(pooled) - 1, min(_REGIONS, len(pooled))).long()
        self.pooled.append(pooled[chosen].clone())
        return self._stages.head(pooled)


def _import_nncf() -> Any:
    nncf = require("nncf", "openvino")
    nncf.set_log_level(logging.ERROR)
    return nncf
