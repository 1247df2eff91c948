"""Where the two heavy parts of the network run: plain torch, compiled, OpenVINO or ONNX Runtime.

Every runtime is a `fasterrcnn.model.stages.Stages`; anchors, proposals, RoI pooling and post-processing are those of
`FasterRCNN.forward` for all of them. Naming a runtime needs no torch, so each is imported when it is made.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, get_args

from fasterrcnn.errors import UsageError

if TYPE_CHECKING:
    import torch

    from fasterrcnn.model.faster_rcnn import FasterRCNN
    from fasterrcnn.model.stages import Stages

RuntimeName = Literal["torch", "winograd", "compiled", "compiled-direct", "openvino", "openvino-int8", "onnxruntime"]
"""``winograd`` and ``compiled`` use Winograd's algorithm where it is faster; the others never do."""


def runtime_names() -> tuple[RuntimeName, ...]:
    """All runtimes, the default first."""
    return get_args(RuntimeName)


def check_runtime(name: str) -> None:
    """Refuse a name that no runtime has.

    Raises:
        UsageError: there is no such runtime; the message lists all.
    """
    if name not in runtime_names():
        raise UsageError(f"no runtime is called {name!r}; there are {', '.join(runtime_names())}")


def make_runtime(
    name: RuntimeName,
    model: "FasterRCNN",
    *,
    threads: int | None = None,
    quantized: "Mapping[str, torch.Tensor] | None" = None,
) -> "Stages":
    """The runtime of that name for a network; conversions happen at its first use.

    Args:
        name: which.
        model: in evaluation mode, batch norms folded; it is not copied and must not be changed.
        threads: CPU threads of runtimes that have their own; default is as many as torch uses.
        quantized: the result of `quantize_parts`, for "openvino-int8".

    Raises:
        UsageError: no such runtime, it cannot work on the model's device, or there is nothing quantized.
        MissingExtraError: its library is not installed.
    """
    check_runtime(name)
    device = model.mean.device
    if name != "torch" and device.type != "cpu":
        raise UsageError(f"runtime {name} works on the CPU, not on {device}; use the runtime torch there")
    if name in ("torch", "winograd"):
        from fasterrcnn.acceleration.flat_graphs import flatten  # noqa: PLC0415
        from fasterrcnn.acceleration.fused_convs import fuse_convs  # noqa: PLC0415
        from fasterrcnn.acceleration.winograd import with_winograd  # noqa: PLC0415

        return fuse_convs(flatten(with_winograd(model) if name == "winograd" else model))
    if name in ("compiled", "compiled-direct"):
        from fasterrcnn.inference.runtimes.compiled import compiled_stages  # noqa: PLC0415

        return compiled_stages(model, fast_3x3=name == "compiled")
    if name == "onnxruntime":
        from fasterrcnn.inference.runtimes.onnx import onnx_stages  # noqa: PLC0415

        return onnx_stages(model, threads)
    from fasterrcnn.inference.runtimes.openvino import openvino_stages  # noqa: PLC0415

    if name == "openvino-int8" and not quantized:
        raise UsageError(
            "runtime openvino-int8 needs a file written by `fasterrcnn quantize`, or calibration images"
            " (load(..., calibration=...))"
        )
    return openvino_stages(model, threads, quantized if name == "openvino-int8" else None)
