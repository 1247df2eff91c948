"""Where the two heavy parts of the network run: plain torch, compiled, OpenVINO or ONNX Runtime.

Every runtime is a `fasterrcnn.model.stages.Stages`; anchors, proposals, RoI pooling and post-processing are those of
`FasterRCNN.forward` for all of them. Naming a runtime needs no torch, so each is imported when it is made.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, get_args

from fasterrcnn.config import Precision
from fasterrcnn.errors import UsageError

if TYPE_CHECKING:
    import torch

    from fasterrcnn.model.faster_rcnn import FasterRCNN
    from fasterrcnn.model.stages import Stages

RuntimeName = Literal["torch", "winograd", "compiled", "compiled-direct", "openvino", "openvino-int8", "onnxruntime"]
"""``winograd`` and ``compiled`` use Winograd's algorithm where it is faster; the others never do."""

RuntimeChoice = Literal["auto", RuntimeName]
"""A runtime, or "auto" for the one that is fastest on this machine."""

_HALF: dict[str, tuple[Precision, ...]] = {"torch": ("bf16", "fp16"), "openvino": ("bf16",), "openvino-int8": ("bf16",)}
"""Precisions of the runtimes besides float32, which all have."""


def runtime_names() -> tuple[RuntimeName, ...]:
    """All runtimes, the default first."""
    return get_args(RuntimeName)


def check_runtime(name: str, device: "torch.device | None" = None) -> None:
    """Refuse a name that no runtime has, and a runtime that does not work on a device.

    Raises:
        UsageError: the message lists all names, or has the runtime to take.
    """
    if name not in runtime_names():
        raise UsageError(f"no runtime is called {name!r}; there are {', '.join(runtime_names())}")
    if device is not None and name != "torch" and device.type != "cpu":
        raise UsageError(f"runtime {name} works on the CPU, not on {device}; use the runtime torch there")


def has_precision(name: RuntimeName, precision: Precision, device: "torch.device | str") -> bool:
    """Whether a runtime can compute in a precision on a device."""
    try:
        check_precision(precision, name, device)
    except UsageError:
        return False
    return True


def check_precision(precision: str, name: RuntimeName, device: "torch.device | str") -> None:
    """Refuse a precision in which a runtime cannot compute on a device.

    Raises:
        UsageError: there is no such precision, or the runtime or the device has none; the message has another one.
    """
    if precision not in get_args(Precision):
        raise UsageError(f"precision is {precision!r}; there are {', '.join(get_args(Precision))}")
    if precision in ("auto", "float32"):
        return
    if precision not in _HALF.get(name, ()):
        others = ", ".join(runtime for runtime, precisions in _HALF.items() if precision in precisions)
        raise UsageError(f"runtime {name} has no precision {precision}; take float32, or one of the runtimes: {others}")
    kind = str(device).partition(":")[0]
    if precision == "fp16" and kind == "cpu":
        raise UsageError("precision fp16 needs a GPU; on a CPU there are float32 and bf16")
    if precision == "bf16" and kind == "cuda":
        import torch  # noqa: PLC0415

        from fasterrcnn.inference.devices import has_fast_bf16  # noqa: PLC0415

        if not has_fast_bf16(torch.device(device)):
            raise UsageError(f"{device} is too old for precision bf16 (compute capability 8.0); take fp16 or float32")


def make_runtime(
    name: RuntimeName,
    model: "FasterRCNN",
    *,
    threads: int | None = None,
    quantized: "Mapping[str, torch.Tensor] | None" = None,
    precision: Precision = "float32",
) -> "Stages":
    """The runtime of that name for a network; conversions happen at its first use.

    Args:
        name: which.
        model: in evaluation mode, batch norms folded; it is not copied and must not be changed.
        threads: CPU threads of runtimes that have their own; default is as many as torch uses.
        quantized: the result of `quantize_parts`, for "openvino-int8".
        precision: what the two parts compute in; not "auto". What enters and leaves them is float32.

    Raises:
        UsageError: no such runtime, it cannot work on the model's device or in the precision, or nothing is quantized.
        MissingExtraError: its library is not installed.
    """
    check_runtime(name, model.mean.device)
    check_precision(precision, name, model.mean.device)
    if name == "torch" and precision != "float32":
        import torch  # noqa: PLC0415

        from fasterrcnn.inference.runtimes.half import half_stages  # noqa: PLC0415

        return half_stages(model, torch.bfloat16 if precision == "bf16" else torch.float16)
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
    return openvino_stages(model, threads, quantized if name == "openvino-int8" else None, precision)
