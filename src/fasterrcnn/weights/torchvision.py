"""torchvision's layouts: its four Faster R-CNN detectors (old and new keys) and its ImageNet trunks.

Pure maps of keys and rows. torchvision puts background first and gives it box deltas that nothing uses; here
background is the last logit and has no deltas.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from fasterrcnn import presets
from fasterrcnn.config import ModelConfig
from fasterrcnn.errors import WeightsError
from fasterrcnn.weights.checkpoint import State

_RENAMES = [
    (r"backbone\.body\.(\d+)\.", r"backbone.trunk.layers.\1."),  # MobileNetV3
    (r"backbone\.body\.", "backbone.trunk."),
    (r"backbone\.fpn\.inner_blocks\.(\d+)\.(weight|bias)$", r"backbone.neck.lateral.\1.0.\2"),  # old layout
    (r"backbone\.fpn\.layer_blocks\.(\d+)\.(weight|bias)$", r"backbone.neck.output.\1.0.\2"),  # old layout
    (r"backbone\.fpn\.inner_blocks\.", "backbone.neck.lateral."),
    (r"backbone\.fpn\.layer_blocks\.", "backbone.neck.output."),
    (r"rpn\.head\.conv\.(weight|bias)$", r"rpn.convs.0.\1"),  # old layout
    (r"rpn\.head\.conv\.(\d+)\.0\.", r"rpn.convs.\1."),
    (r"rpn\.head\.cls_logits\.", "rpn.objectness."),
    (r"rpn\.head\.bbox_pred\.", "rpn.deltas."),
    (r"roi_heads\.box_head\.fc6\.", "box_head.trunk.1."),
    (r"roi_heads\.box_head\.fc7\.", "box_head.trunk.3."),
    (r"roi_heads\.box_head\.5\.", "box_head.trunk.13."),
    (r"roi_heads\.box_predictor\.cls_score\.", "box_head.class_logits."),
    (r"roi_heads\.box_predictor\.bbox_pred\.", "box_head.box_deltas."),
]
_V2_HEAD = re.compile(r"roi_heads\.box_head\.(\d)\.([01])\.")


def is_detector(state: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of one of torchvision's Faster R-CNN detectors."""
    predictor = (f"roi_heads.box_predictor.{name}" for name in ("cls_score.weight", "cls_score.bias"))
    deltas = (f"roi_heads.box_predictor.{name}" for name in ("bbox_pred.weight", "bbox_pred.bias"))
    return all(key in state for key in (*predictor, *deltas, "rpn.head.cls_logits.weight"))


def recognise(state: Mapping[str, Tensor], preset: str | None = None) -> ModelConfig:
    """The configuration of a detector, without class names, told by its keys.

    The two MobileNetV3 detectors hold the same keys and differ in input size and proposals only: the answer is
    ``mobilenetv3-large-fpn``; who has the other says so by ``preset``. The published first version of
    ``resnet50-fpn`` has the old key layout and batch norms without eps; files in the new layout get 1e-5.

    Raises:
        WeightsError: a Faster R-CNN of torchvision's, but of none of the four architectures, or not of the one
            that was named.
    """
    config = _by_keys(state)
    if preset is None or preset == config.preset:
        return config
    named = presets.get(preset)
    if {preset, config.preset} != {"mobilenetv3-large-fpn", "mobilenetv3-large-320-fpn"}:
        raise WeightsError(f"the file holds a {config.preset}, not a {preset}")
    return named


def _by_keys(state: Mapping[str, Tensor]) -> ModelConfig:
    if "backbone.body.0.0.weight" in state:
        return presets.get("mobilenetv3-large-fpn")
    if "roi_heads.box_head.5.weight" in state:
        return presets.get("resnet50-fpn-v2")
    if "backbone.body.layer4.2.conv3.weight" in state and "roi_heads.box_head.fc6.weight" in state:
        config = presets.get("resnet50-fpn")
        if "rpn.head.conv.weight" in state:
            backbone = config.backbone.model_copy(update={"norm_eps": 0.0})
            return config.model_copy(update={"backbone": backbone})
        return config
    raise WeightsError("a torchvision Faster R-CNN, but none of its four architectures")


def num_classes(state: Mapping[str, Tensor]) -> int:
    """Classes without background."""
    return len(state["roi_heads.box_predictor.cls_score.weight"]) - 1


def detector_to_native(state: Mapping[str, Tensor]) -> State:
    """The tensors of a detector under our names, rows in our order."""
    native = {native_name(key): value for key, value in state.items()}
    for part in ("weight", "bias"):
        logits, deltas = f"box_head.class_logits.{part}", f"box_head.box_deltas.{part}"
        native[logits] = torch.cat([native[logits][1:], native[logits][:1]])  # background: first -> last
        native[deltas] = native[deltas][4:]  # background's four rows go
    return native


def trunk_to_native(state: Mapping[str, Tensor], *, layer4_in_head: bool = False) -> State:
    """The tensors of an ImageNet ResNet-50 or MobileNetV3-Large under our names, without the classifier.

    Args:
        state: torchvision's state_dict.
        layer4_in_head: ResNet's last stage is the box head (C4).
    """
    native = {}
    for key, value in state.items():
        if key.startswith(("fc.", "classifier.")):
            continue
        if layer4_in_head and key.startswith("layer4."):
            native[f"box_head.trunk.stage.{key.removeprefix('layer4.')}"] = value
        else:
            native[f"backbone.trunk.{re.sub(r'^features.', 'layers.', key)}"] = value
    return native


def native_name(key: str) -> str:
    """Our name of one of a detector's tensors."""
    for pattern, replacement in _RENAMES:
        renamed, hits = re.subn(rf"^{pattern}", replacement, key)
        if hits:
            return renamed
    # The second version's head: blocks of convolution, norm and ReLU, counted one by one here.
    return _V2_HEAD.sub(lambda m: f"box_head.trunk.{3 * int(m[1]) + int(m[2])}.", key)
