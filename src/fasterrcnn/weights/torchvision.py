"""torchvision's layouts: its four Faster R-CNN detectors (old and new keys) and its ImageNet backbones.

Pure maps of keys and rows. torchvision puts background first and gives it box deltas that nothing uses; here
background is the last logit and has no deltas.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from fasterrcnn import presets
from fasterrcnn.config import ModelConfig
from fasterrcnn.errors import UsageError, WeightsError
from fasterrcnn.model.backbones.resnet import Shape
from fasterrcnn.weights.layout import changed, head_widths, resnet_shape
from fasterrcnn.weights.state_dict import State

_RENAMES = [
    (r"backbone\.body\.(\d+)\.", r"backbone.body.layers.\1."),  # MobileNetV3
    (r"backbone\.body\.", "backbone.body."),
    (r"backbone\.fpn\.inner_blocks\.(\d+)\.(weight|bias)$", r"backbone.neck.lateral.\1.0.\2"),  # old layout
    (r"backbone\.fpn\.layer_blocks\.(\d+)\.(weight|bias)$", r"backbone.neck.output.\1.0.\2"),  # old layout
    (r"backbone\.fpn\.inner_blocks\.", "backbone.neck.lateral."),
    (r"backbone\.fpn\.layer_blocks\.", "backbone.neck.output."),
    (r"rpn\.head\.conv\.(weight|bias)$", r"rpn.convs.0.\1"),  # old layout
    (r"rpn\.head\.conv\.(\d+)\.0\.", r"rpn.convs.\1."),
    (r"rpn\.head\.cls_logits\.", "rpn.objectness."),
    (r"rpn\.head\.bbox_pred\.", "rpn.deltas."),
    (r"roi_heads\.box_head\.fc6\.", "box_head.body.1."),
    (r"roi_heads\.box_head\.fc7\.", "box_head.body.3."),
    (r"roi_heads\.box_head\.5\.", "box_head.body.13."),
    (r"roi_heads\.box_predictor\.cls_score\.", "box_head.class_logits."),
    (r"roi_heads\.box_predictor\.bbox_pred\.", "box_head.box_deltas."),
]
_EXPORT = [
    (r"backbone\.body\.(layers\.)?", "backbone.body."),
    (r"backbone\.neck\.lateral\.", "backbone.fpn.inner_blocks."),
    (r"backbone\.neck\.output\.", "backbone.fpn.layer_blocks."),
    (r"rpn\.convs\.(\d+)\.", r"rpn.head.conv.\1.0."),
    (r"rpn\.objectness\.", "rpn.head.cls_logits."),
    (r"rpn\.deltas\.", "rpn.head.bbox_pred."),
    (r"box_head\.class_logits\.", "roi_heads.box_predictor.cls_score."),
    (r"box_head\.box_deltas\.", "roi_heads.box_predictor.bbox_pred."),
]
_V2_HEAD = re.compile(r"roi_heads\.box_head\.(\d)\.([01])\.")


def is_torchvision_detector(state: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of one of torchvision's Faster R-CNN detectors."""
    return all(any(key.startswith(part) for key in state) for part in ("rpn.head.", "roi_heads.box_"))


def recognise_torchvision(state: Mapping[str, Tensor], preset: str | None = None) -> ModelConfig:
    """The configuration of a detector, without class names, recognised by its keys.

    The two MobileNetV3 detectors hold the same keys and differ in input size and proposals only: the answer is
    ``mobilenetv3-large-fpn``; ``preset`` chooses the other. The published first version of
    ``resnet50-fpn`` has the old key layout and batch norms without eps; files in the new layout get 1e-5.

    Raises:
        WeightsError: a Faster R-CNN of torchvision's, but of none of the four architectures, or not of the one
            that was named.
    """
    config = _by_keys(state)
    if preset is None or preset == config.preset:
        return config
    named = changed(presets.get(preset), regions={"widths": config.regions.widths})
    if {preset, config.preset} != {"mobilenetv3-large-fpn", "mobilenetv3-large-320-fpn"}:
        raise WeightsError(f"the file holds a {config.preset}, not a {preset}")
    return named


def _by_keys(state: Mapping[str, Tensor]) -> ModelConfig:
    second = "roi_heads.box_head.5.weight" in state
    layers = ["roi_heads.box_head.5"] if second else ["roi_heads.box_head.fc6", "roi_heads.box_head.fc7"]
    if "backbone.body.0.0.weight" in state:
        widths = head_widths(state, layers, "roi_heads.box_predictor.cls_score")
        return changed(presets.get("mobilenetv3-large-fpn"), regions={"widths": widths})
    if "backbone.body.layer4.2.conv3.weight" not in state or not (second or "roi_heads.box_head.fc6.weight" in state):
        raise WeightsError("a torchvision Faster R-CNN, but none of its four architectures")
    shape = resnet_shape(state, [f"backbone.body.layer{stage}." for stage in (1, 2, 3)])
    config = presets.get(f"{shape}-fpn-v2" if second else f"{shape}-fpn")
    widths = head_widths(state, layers, "roi_heads.box_predictor.cls_score")
    config = changed(config, regions={"widths": widths})
    return changed(config, backbone={"norm_eps": 0.0}) if "rpn.head.conv.weight" in state else config


def num_classes(state: Mapping[str, Tensor]) -> int:
    """Classes without background."""
    return len(state["roi_heads.box_predictor.cls_score.weight"]) - 1


def from_torchvision(state: Mapping[str, Tensor]) -> State:
    """The tensors of a detector under our names, rows in our order."""
    native = {native_name(key): value for key, value in state.items()}
    for part in ("weight", "bias"):
        logits, deltas = f"box_head.class_logits.{part}", f"box_head.box_deltas.{part}"
        if logits in native and native[logits].dim():
            native[logits] = torch.cat([native[logits][1:], native[logits][:1]])  # background: first -> last
        if deltas in native and native[deltas].dim():
            native[deltas] = native[deltas][4:]  # background's four rows go
    return native


def torchvision_name(key: str, *, convs: int) -> str:
    """torchvision's name, in its new layout, of one of our tensors.

    Args:
        key: our name.
        convs: convolutions of the box head, which decide what its layers are called.
    """
    for pattern, replacement in _EXPORT:
        renamed, hits = re.subn(rf"^{pattern}", replacement, key)
        if hits:
            return renamed
    number, _, tensor = key.removeprefix("box_head.body.").partition(".")
    if not key.startswith("box_head.body.") or not number.isdigit():
        return key
    if not convs:
        return f"roi_heads.box_head.fc{6 + int(number) // 2}.{tensor}"
    block, layer = divmod(int(number), 3)
    return f"roi_heads.box_head.{block}.{layer}.{tensor}" if block < convs else f"roi_heads.box_head.5.{tensor}"


def to_torchvision(state: Mapping[str, Tensor], config: ModelConfig) -> State:
    """Our tensors under torchvision's names and in its order of rows; background's box deltas are zeros.

    Raises:
        UsageError: torchvision has no such network.
    """
    backbone, regions = config.backbone, config.regions
    has_body = backbone.body.startswith("mobilenet") or (Shape.of(backbone.body) and backbone.stages == (1, 2, 3, 4))
    heads = {(1, 0, 2), (2, 4, 1)}
    if not has_body or backbone.neck != "fpn" or (config.rpn.convs, regions.convs, len(regions.widths)) not in heads:
        raise UsageError(f"torchvision has no network like {config.preset}: only its four presets and their likes")
    if backbone.stride_in_1x1 or backbone.norm == "group":
        raise UsageError(
            "torchvision's ResNets have batch norms, and strides in the 3x3 convolutions; this one has not"
        )
    theirs = dict(state)
    for part in ("weight", "bias"):
        logits, deltas = f"box_head.class_logits.{part}", f"box_head.box_deltas.{part}"
        theirs[logits] = torch.cat([state[logits][-1:], state[logits][:-1]])
        theirs[deltas] = torch.cat([torch.zeros_like(state[deltas][:4]), state[deltas]])
    return {torchvision_name(key, convs=regions.convs): value for key, value in theirs.items()}


def body_from_torchvision(state: Mapping[str, Tensor], *, layer4_in_head: bool = False) -> State:
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
            native[f"box_head.body.stage.{key.removeprefix('layer4.')}"] = value
        else:
            native[f"backbone.body.{re.sub(r'^features.', 'layers.', key)}"] = value
    return native


def native_name(key: str) -> str:
    """Our name of one of a detector's tensors."""
    for pattern, replacement in _RENAMES:
        renamed, hits = re.subn(rf"^{pattern}", replacement, key)
        if hits:
            return renamed
    # The second version's head: blocks of convolution, norm and ReLU, counted one by one here.
    return _V2_HEAD.sub(lambda m: f"box_head.body.{3 * int(m[1]) + int(m[2])}.", key)
