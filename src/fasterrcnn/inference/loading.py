"""`load`: a detector from whatever holds one."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fasterrcnn.build import load_model
from fasterrcnn.inference.detector import Detector
from fasterrcnn.inference.devices import use_threads
from fasterrcnn.inference.publish import Origin
from fasterrcnn.inference.quantization import quantize_parts, quantized_parts
from fasterrcnn.inference.runtimes import RuntimeName
from fasterrcnn.weights.catalog import locate
from fasterrcnn.weights.detectron2 import BackboneStyle


def load(
    path: str | Path,
    *,
    classes: Sequence[str] | None = None,
    preset: str | None = None,
    norm_eps: float | None = None,
    style: BackboneStyle | None = None,
    device: str | None = None,
    threads: int | None = None,
    runtime: RuntimeName | None = None,
    calibration: Any = None,
    log: Callable[[str], None] | None = None,
) -> Detector:
    """A detector from a checkpoint.

    Args:
        path: a file of this library, torchvision, Detectron2 or MMDetection, told by its content; the folder of a run;
            or a name: ``resnet50-fpn``, ``detectron2/faster_rcnn_R_50_FPN_3x``, ``hf://user/repository``
            (`fasterrcnn.weights.catalog.locate`).
        classes: names of the classes. Where a file has none, 80 and 90 classes are COCO's, others ``class_0``...
        preset: architecture of a torchvision file whose keys do not tell ("mobilenetv3-large-320-fpn").
        norm_eps: eps of its batch norms; 0 for a file fine-tuned from torchvision's COCO ``resnet50-fpn``.
        style: "caffe" or "pytorch": colours and strides of a Detectron2 or MMDetection file that does not tell.
        device: "cpu", "cuda", "mps"; default is the best there is that the runtime works on.
        threads: CPU threads of torch, for the whole process; default leaves them as they are.
        runtime: what runs the network: "torch", or on the CPU "winograd", "compiled", "compiled-direct", "openvino",
            "openvino-int8" or "onnxruntime". Default: "openvino-int8" for a file of `quantize`, else "torch".
        calibration: images, of any kind that `predict` takes, for "openvino-int8" with a file that is not quantized.
        log: called with one line that says what the file is, where it is not of this library.

    Raises:
        WeightsError: the file cannot be downloaded or read, or does not fit.
        UsageError: there is no such runtime, or it does not work on that device.
        MissingExtraError: the runtime's library is not installed.
    """
    use_threads(threads)
    found = locate(path)
    model, config = load_model(found, classes=classes, preset=preset, norm_eps=norm_eps, style=style, log=log)
    quantized = quantized_parts(found.path)
    runtime = runtime or ("openvino-int8" if quantized else "torch")
    if calibration is not None and runtime == "openvino-int8":
        quantized = quantize_parts(model, config, calibration)
    return Detector(
        model, config, device=device, threads=threads, runtime=runtime, quantized=quantized,
        source=Origin(found.path, style),
    )  # fmt: skip
