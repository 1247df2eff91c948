"""MMDetection's layout (2.x and 3.x): Faster R-CNN with C4, DC5 or a pyramid, in Caffe's or PyTorch's style.

Rows are in our order: background last, anchors ratio by ratio. What the keys do not hold (colours, strides, names of
the classes) stands in the configuration that training keeps beside the tensors.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from fasterrcnn import presets
from fasterrcnn.config import ModelConfig, changed
from fasterrcnn.errors import WeightsError
from fasterrcnn.model.backbones.resnet import Shape
from fasterrcnn.weights import detectron2
from fasterrcnn.weights.detectron2 import CAFFE, PYTORCH, RESNEXT, BackboneStyle, Pixels
from fasterrcnn.weights.layout import KeyMap, State, head_widths, resnet_shape

_HEAD = "roi_head.bbox_head"
MMDETECTION_NAMES = KeyMap(
    (
        ("box_head.body.stage", "roi_head.shared_head.layer4"),
        *((f"backbone.neck.lateral.{i}.0", f"neck.lateral_convs.{i}.conv") for i in range(4)),
        *((f"backbone.neck.output.{i}.0", f"neck.fpn_convs.{i}.conv") for i in range(4)),
        ("backbone.body", "backbone"),
        ("rpn.convs.0", "rpn_head.rpn_conv"),
        ("rpn.objectness", "rpn_head.rpn_cls"),
        ("rpn.deltas", "rpn_head.rpn_reg"),
        *((f"box_head.body.{2 * i + 1}", f"{_HEAD}.shared_fcs.{i}") for i in range(4)),
        ("box_head.class_logits", f"{_HEAD}.fc_cls"),
        ("box_head.box_deltas", f"{_HEAD}.fc_reg"),
    )
)
_NUMBERS = r"['\"]?\s*[=:]\s*[\[(]\s*([\d.]+),\s*([\d.]+),\s*([\d.]+),?\s*[\])]"


def is_mmdetection_detector(state: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of a Faster R-CNN of MMDetection, of any release."""
    return any(key.startswith("rpn_head.rpn_") for key in state)


def recognise_mmdetection(
    state: State, metadata: Mapping[str, Any], style: BackboneStyle | None = None
) -> tuple[ModelConfig, Pixels]:
    """The configuration of a detector, without class names, with the numerics of MMDetection; and its pixels.

    The ``meta`` that the file holds beside the tensors has the configuration as text; a style that is given goes before
    it, and "pytorch" is the default. Files of release 1, and architectures that are none of ours, are a `WeightsError`.
    """
    if "bbox_head.fc_cls.weight" in state:
        raise WeightsError(
            "written by MMDetection 1, whose classes and boxes have another order; convert it with MMDetection's "
            "tools/model_converters/upgrade_model_version.py"
        )
    shape = resnet_shape(state, [f"backbone.layer{stage}." for stage in (1, 2, 3)])
    single = "c4" if any(key.startswith("roi_head.shared_head.") for key in state) else "dc5"
    kind = "fpn" if any(key.startswith("neck.") for key in state) else single
    config = changed(  # MMDetection's numbers: of its `_base_` files, and of its code
        detectron2.with_numerics_in_common(presets.get(f"{shape}-{kind}")),
        input={"resize": "opencv", "antialias": False, "size_divisor": 32},
        regions={"levels": "mmdetection"},
    )
    meta = _meta(metadata)
    text = str(meta.get("config") or meta.get("cfg") or "")
    pixels, stride_in_1x1 = _pixels_and_strides(state, text, shape, style)
    config = changed(pixels.applied(config), backbone={"stride_in_1x1": stride_in_1x1})
    if kind != "c4":
        widths = head_widths(state, [f"{_HEAD}.shared_fcs.{number}" for number in range(4)], f"{_HEAD}.fc_cls")
        config = changed(config, regions={"widths": widths})
    return config, pixels


def mmdetection_class_names(metadata: Mapping[str, Any]) -> Sequence[str]:
    """Names of the classes, in order; empty where the file has none."""
    meta = _meta(metadata)
    of_data = meta.get("dataset_meta")
    holder = of_data if isinstance(of_data, Mapping) else meta
    names = holder.get("classes") or holder.get("CLASSES") or ()
    strings = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    return tuple(names) if strings else ()


def _meta(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    meta = metadata.get("meta")
    return meta if isinstance(meta, Mapping) else {}


def _pixels_and_strides(state: State, text: str, shape: Shape, style: BackboneStyle | None) -> tuple[Pixels, bool]:
    """Pixels, and whether strides lie in the first 1x1: as given, else as the configuration has it, else the default.

    Backbones that Caffe trained came with folded norms: a stem whose running means are all zero is one of these.
    """
    if style is not None:
        return (CAFFE, True) if style == "caffe" else (PYTORCH, False)
    mean, std = (re.search(rf"\b{name}{_NUMBERS}", text) for name in ("mean", "std"))
    if mean and std:
        rgb = re.search(r"\b(?:bgr_to_rgb|to_rgb)['\"]?\s*[=:]\s*True", text) is not None
        pixels = Pixels.in_order_of_file(*([float(n) for n in match.groups()] for match in (mean, std)), bgr=not rgb)
        return pixels, re.search(r"\bstyle['\"]?\s*[=:]\s*['\"]caffe", text) is not None
    running_mean = state.get("backbone.bn1.running_mean")
    if running_mean is not None and not bool(running_mean.any()):
        return (CAFFE, True) if shape.groups == 1 else (RESNEXT, False)
    return PYTORCH, False


def from_mmdetection(state: State, *, bgr: bool) -> State:
    """The tensors of a detector under our names, red first."""
    native = {
        MMDETECTION_NAMES.ours(key): value
        for key, value in state.items()
        if not key.startswith(("data_preprocessor.", "ema_"))  # the last: copies that a hook of release 2 left
    }
    if bgr and detectron2.STEM in native:
        native[detectron2.STEM] = native[detectron2.STEM].flip(1)
    return native
