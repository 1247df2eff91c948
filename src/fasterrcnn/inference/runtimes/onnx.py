"""The runtime ``onnxruntime``: both parts in ONNX Runtime.

Axes: b images, h w pixels, r regions, s side of a pooled map, c channels.
"""

import logging
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from fasterrcnn.acceleration.autotune import cache_digest, weights_digest
from fasterrcnn.errors import require
from fasterrcnn.files import atomic_write, cache_folder
from fasterrcnn.inference.runtimes.parts import PartName, Program, ProgramStages, part_of
from fasterrcnn.model.faster_rcnn import FasterRCNN

_MAX_DIM = 2**16
_INPUT = "x"


def onnx_stages(model: FasterRCNN, threads: int | None) -> ProgramStages:
    """Exported once for each file of weights, into the cache folder; by default with as many threads as torch.

    Raises:
        MissingExtraError: ONNX Runtime, or what exports to it, is not installed.
    """
    for exporter in ("onnx", "onnxscript"):
        require(exporter, "onnx")
    library = require("onnxruntime", "onnx")

    def make(part: PartName) -> Program:
        options = library.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3  # errors
        # Waiting threads that spin would slow down torch's threads, which work in between.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = library.InferenceSession(str(exported(model, part)), options, providers=["CPUExecutionProvider"])
        return partial(_run, session)

    return ProgramStages(model, make)


def exported(model: FasterRCNN, part: PartName) -> Path:
    """The ONNX file of a part in the cache folder; exported if it is not there yet."""
    module = part_of(model, part)
    mark = cache_digest(weights_digest(module), torch.__version__)
    path = cache_folder() / "onnx" / f"{part}-{mark}.onnx"
    if not path.exists():
        with atomic_write(path, shared=True) as temporary:
            _export(module, model, part, temporary)
    return path


def _export(module: nn.Module, model: FasterRCNN, part: PartName, path: Path) -> None:
    batch = Dim("batch", min=1, max=_MAX_DIM)
    if part == "dense":
        divisor = model.size_divisor
        height, width = (divisor * Dim(side, min=1, max=_MAX_DIM // divisor) for side in ("rows", "columns"))
        example, shapes = torch.rand(2, 5 * divisor, 7 * divisor, 3), {0: batch, 1: height, 2: width, 3: Dim.STATIC}
    else:
        side, channels = model.roi_pooling.output_size, model.backbone.channels
        example, shapes = torch.rand(3, side, side, channels), {0: batch, 1: Dim.STATIC, 2: Dim.STATIC, 3: Dim.STATIC}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        captured = torch.export.export(module, (example,), dynamic_shapes=(shapes,))
        program = torch.onnx.export(captured, input_names=[_INPUT], dynamo=True, verbose=False)
        assert program is not None
        proto: Any = program.model_proto
        path.write_bytes(proto.SerializeToString())


def _run(session: Any, x: Tensor) -> list[Tensor]:
    return [torch.from_numpy(output) for output in session.run(None, {_INPUT: x.contiguous().numpy()})]
