"""Where the heavy parts of the network run: plain torch, compiled, OpenVINO or ONNX Runtime.

A `Runtime` does two things: pixels to feature maps and the RPN's numbers, and pooled regions to class logits and box
deltas. Anchors, proposals, RoI pooling and post-processing are the same for all of them (`passing.py`).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from fasterrcnn.errors import UsageError
from fasterrcnn.inference.runtime_names import RuntimeName, check_name
from fasterrcnn.inference.runtimes.parts import Runtime
from fasterrcnn.model.faster_rcnn import FasterRCNN

__all__ = ["Runtime", "RuntimeName", "make_runtime"]


def make_runtime(
    name: RuntimeName,
    model: FasterRCNN,
    device: torch.device,
    *,
    threads: int | None = None,
    quantized: Mapping[str, Tensor] | None = None,
) -> Runtime:
    """The runtime of that name for a network; conversions happen at its first use.

    Args:
        name: which.
        model: in evaluation mode, batch norms folded; it is not copied and must not be changed.
        device: where the model is.
        threads: CPU threads of runtimes that have their own; default is as many as torch uses.
        quantized: what `quantize` made, for "openvino-int8".

    Raises:
        UsageError: no such runtime, it cannot work on this device, or there is nothing quantized.
        MissingExtraError: its library is not installed.
    """
    check_name(name)
    if name == "torch":
        from fasterrcnn.inference.runtimes.eager import EagerRuntime  # noqa: PLC0415 - each runtime when it is wanted

        return EagerRuntime(model)
    if device.type != "cpu":
        raise UsageError(f"runtime {name} works on the CPU, not on {device}; use the runtime torch there")
    if name == "winograd":
        from fasterrcnn.inference.runtimes.eager import EagerRuntime  # noqa: PLC0415

        return EagerRuntime(model, fast_3x3=True)
    if name in ("compiled", "compiled-direct"):
        from fasterrcnn.inference.runtimes.compiled import CompiledRuntime  # noqa: PLC0415

        return CompiledRuntime(model, fast_3x3=name == "compiled")
    if name == "onnxruntime":
        from fasterrcnn.inference.runtimes.onnx import OnnxRuntime  # noqa: PLC0415

        return OnnxRuntime(model, threads)
    from fasterrcnn.inference.runtimes.openvino import OpenVinoRuntime  # noqa: PLC0415

    if name == "openvino-int8" and not quantized:
        raise UsageError(
            "runtime openvino-int8 needs a file written by `fasterrcnn quantize`, or calibration images"
            " (load(..., calibration=...))"
        )
    return OpenVinoRuntime(model, threads, quantized if name == "openvino-int8" else None)
