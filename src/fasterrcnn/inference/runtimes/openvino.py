"""The runtimes ``openvino`` and ``openvino-int8``: both parts in OpenVINO, in float32 or with 8-bit integers.

Axes: b images, h w pixels, r regions, s side of a pooled map, c channels.
"""

import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fasterrcnn.acceleration.autotune import cache_digest, weights_digest
from fasterrcnn.config import Precision
from fasterrcnn.errors import UsageError, require
from fasterrcnn.files import atomic_write, cache_folder
from fasterrcnn.inference.runtimes.parts import PartName, Program, ProgramStages, part_of
from fasterrcnn.model.faster_rcnn import FasterRCNN

SUFFIXES = (".xml", ".bin")
"""Of the two files of an OpenVINO model: its graph and its numbers."""


def openvino_stages(
    model: FasterRCNN,
    threads: int | None,
    quantized: Mapping[str, Tensor] | None = None,
    precision: Precision = "float32",
) -> ProgramStages:
    """Converted once for each file of weights, into the cache folder; by default with as many threads as torch.

    Args:
        quantized: both parts as `quantize` made them; None converts the model as it is.
        precision: what layers compute in that are not quantized: "float32" or "bf16".

    Raises:
        MissingExtraError: OpenVINO is not installed.
        UsageError: OpenVINO has no bfloat16 on this processor; it would compute in float32.
    """
    openvino = import_openvino()
    if precision == "bf16" and "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise UsageError("OpenVINO has no bfloat16 on this processor; take precision float32")

    def make(part: PartName) -> Program:
        core = openvino.Core()
        if quantized:
            graph = core.read_model(*(quantized[part + suffix].numpy().tobytes() for suffix in SUFFIXES))
        else:
            graph = core.read_model(converted(model, part))
        return OpenVinoProgram(compile_graph(graph, threads or torch.get_num_threads(), precision))

    return ProgramStages(model, make)


def compile_graph(graph: Any, threads: int, precision: Precision = "float32") -> Any:
    """A graph of OpenVINO, ready to run on the CPU; its float32 layers compute in that precision."""
    settings = {
        # Without the hint, processors with AMX compute in bfloat16.
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
    }
    return import_openvino().Core().compile_model(graph, "CPU", settings)


class OpenVinoProgram:
    """A compiled model, with working memory for each thread that calls it."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._own = threading.local()

    def __call__(self, x: Tensor) -> list[Tensor]:
        """All outputs; they are overwritten by this thread's next call."""
        request = getattr(self._own, "request", None)
        if request is None:
            request = self._own.request = self._compiled.create_infer_request()
        request.infer([x.contiguous().numpy()], share_inputs=True)
        outputs = (request.get_output_tensor(number).data for number in range(len(self._compiled.outputs)))
        return [torch.from_numpy(output) for output in outputs]


def converted(model: FasterRCNN, part: PartName) -> Path:
    """The graph of a part in the cache folder; converted if it is not there yet."""
    openvino = import_openvino()
    module = part_of(model, part)
    mark = cache_digest(weights_digest(module), openvino.__version__, torch.__version__)
    path = cache_folder() / "openvino" / f"{part}-{mark}.xml"
    if not path.exists():
        # The graph is written last: if it exists, the file of its weights is complete.
        save_graph(to_openvino(module, *example_of(model, part)), path)
    return path


def save_graph(graph: Any, path: Path) -> None:
    """Write both files of a graph, under another name first."""
    with atomic_write(path, shared=True) as temporary:
        import_openvino().save_model(graph, str(temporary), compress_to_fp16=False)
        temporary.with_suffix(".bin").replace(path.with_suffix(".bin"))


def example_of(model: FasterRCNN, part: PartName) -> tuple[Tensor, list[int]]:
    """An input of a part, and its shape with -1 where it is free."""
    if part == "dense":
        return torch.rand(1, 4 * model.size_divisor, 5 * model.size_divisor, 3), [-1, -1, -1, 3]
    side, channels = model.roi_pooling.output_size, model.backbone.channels
    return torch.rand(3, side, side, channels), [-1, side, side, channels]


def to_openvino(module: nn.Module, example: Tensor, shape: Sequence[int]) -> Any:
    """A module as a graph of OpenVINO."""
    with _quiet(), torch.no_grad():
        # Without the tracer's own check: it compares graphs as text, and checks of shapes change that text.
        trace: Any = torch.jit.trace
        traced = trace(module, example, check_trace=False)
        return import_openvino().convert_model(traced, example_input=example, input=list(shape))


def as_tensors(part: PartName, graph: Any, folder: Path) -> dict[str, Tensor]:
    """Both files of a graph as bytes in tensors, by part and suffix."""
    path = folder / f"{part}.xml"
    save_graph(graph, path)
    return {
        part + suffix: torch.from_numpy(np.fromfile(path.with_suffix(suffix), dtype=np.uint8)) for suffix in SUFFIXES
    }


def import_openvino() -> Any:
    """The library.

    Raises:
        MissingExtraError: it is not installed.
    """
    return require("openvino", "openvino")


@contextmanager
def _quiet() -> Iterator[None]:
    """Tracing warns of every size that becomes a constant; those of our networks are constants."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
