"""torchvision's layouts: its four Faster R-CNN detectors (old and new keys) and its ImageNet backbones.

Pure maps of keys and rows. torchvision puts background first and gives it box deltas that nothing uses; here
background is the last logit and has no deltas.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from fasterrcnn import presets
from fasterrcnn.config import ModelConfig, changed
from fasterrcnn.errors import UsageError, WeightsError
from fasterrcnn.model.backbones.resnet import Shape
from fasterrcnn.weights.layout import KeyMap, State, head_widths, resnet_shape

_BRANCHES = (
    *((f"backbone.body.layers.{i}", f"backbone.body.{i}") for i in range(17)),  # MobileNetV3
    *((f"backbone.neck.lateral.{i}.{j}", f"backbone.fpn.inner_blocks.{i}.{j}") for i in range(4) for j in (0, 1)),
    *((f"backbone.neck.output.{i}.{j}", f"backbone.fpn.layer_blocks.{i}.{j}") for i in range(4) for j in (0, 1)),
    *((f"backbone.neck.lateral.{i}.0", f"backbone.fpn.inner_blocks.{i}") for i in range(4)),  # old layout
    *((f"backbone.neck.output.{i}.0", f"backbone.fpn.layer_blocks.{i}") for i in range(4)),  # old layout
    *((f"rpn.convs.{i}", f"rpn.head.conv.{i}.0") for i in (0, 1)),
    ("rpn.convs.0", "rpn.head.conv"),  # old layout
    ("rpn.objectness", "rpn.head.cls_logits"),
    ("rpn.deltas", "rpn.head.bbox_pred"),
    ("box_head.class_logits", "roi_heads.box_predictor.cls_score"),
    ("box_head.box_deltas", "roi_heads.box_predictor.bbox_pred"),
)
_FIRST_HEAD = (("box_head.body.1", "roi_heads.box_head.fc6"), ("box_head.body.3", "roi_heads.box_head.fc7"))
_SECOND_HEAD = (  # blocks of convolution, norm and ReLU, counted one by one here
    *((f"box_head.body.{3 * i + j}", f"roi_heads.box_head.{i}.{j}") for i in range(4) for j in (0, 1)),
    ("box_head.body.13", "roi_heads.box_head.5"),
)

SAME_KEYS = {"mobilenetv3-large-fpn", "mobilenetv3-large-320-fpn"}


def torchvision_names(*, convs: bool) -> KeyMap:
    """torchvision's names, the new ones for writing; a box head with convolutions is that of its second version."""
    return KeyMap((*_BRANCHES, *(_SECOND_HEAD if convs else _FIRST_HEAD)))


def is_torchvision_detector(state: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of one of torchvision's Faster R-CNN detectors."""
    return all(any(key.startswith(part) for key in state) for part in ("rpn.head.", "roi_heads.box_"))


def recognise_torchvision(state: Mapping[str, Tensor], preset: str | None = None) -> ModelConfig:
    """The configuration of a detector, without class names, recognised by its keys.

    The two MobileNetV3 detectors hold the same keys and differ in input size and proposals only: the answer is
    ``mobilenetv3-large-fpn``; ``preset`` chooses the other. The published first version of
    ``resnet50-fpn`` has the old key layout and batch norms without eps; files in the new layout get 1e-5. Other
    architectures than these four, or than the one that was named, are a `WeightsError`.
    """
    second = "roi_heads.box_head.5.weight" in state
    if "backbone.body.0.0.weight" in state:
        name, numerics = "mobilenetv3-large-fpn", {}
    elif "backbone.body.layer4.1.conv2.weight" in state and (second or "roi_heads.box_head.fc6.weight" in state):
        shape = resnet_shape(state, [f"backbone.body.layer{stage}." for stage in (1, 2, 3)])
        name = f"{shape}-fpn-v2" if second else f"{shape}-fpn"
        numerics = {"norm_eps": 0.0} if "rpn.head.conv.weight" in state else {}
    else:
        raise WeightsError(
            "a torchvision Faster R-CNN, but of none of the networks that are read: a pyramid on ResNet, ResNeXt or "
            "wide ResNet with a box head of two layers (fc6, fc7), its v2, and MobileNetV3-Large"
        )
    config = presets.get(preset or name)
    if preset not in (None, name) and {preset, name} != SAME_KEYS:
        raise WeightsError(f"the file holds a {name}, not a {preset}")
    layers = ["roi_heads.box_head.5"] if second else ["roi_heads.box_head.fc6", "roi_heads.box_head.fc7"]
    widths = head_widths(state, layers, "roi_heads.box_predictor.cls_score")
    return changed(config, regions={"widths": widths}, backbone=numerics)


def from_torchvision(state: Mapping[str, Tensor]) -> State:
    """The tensors of a detector under our names, rows in our order."""
    names = torchvision_names(convs="roi_heads.box_head.5.weight" in state)
    native = {names.ours(key): value for key, value in state.items()}
    for part in ("weight", "bias"):
        logits, deltas = f"box_head.class_logits.{part}", f"box_head.box_deltas.{part}"
        if logits in native and native[logits].dim():
            native[logits] = torch.cat([native[logits][1:], native[logits][:1]])  # background: first -> last
        if deltas in native and native[deltas].dim():
            native[deltas] = native[deltas][4:]  # background's four rows go
    return native


def to_torchvision(state: Mapping[str, Tensor], config: ModelConfig) -> State:
    """Our tensors under torchvision's names and in its order of rows; background's box deltas are zeros."""
    backbone, regions = config.backbone, config.regions
    has_body = backbone.body.startswith("mobilenet") or (Shape.of(backbone.body) and backbone.stages == (1, 2, 3, 4))
    heads = {(1, 0, 2), (2, 4, 1)}
    if not has_body or backbone.neck != "fpn" or (config.rpn.convs, regions.convs, len(regions.widths)) not in heads:
        raise UsageError(f"torchvision has no network like {config.preset}: only its four presets and their likes")
    if backbone.stride_in_1x1 or backbone.norm == "group":
        raise UsageError("torchvision's ResNets have batch norms and strides in the 3x3 convolutions; this one has not")
    theirs = dict(state)
    for part in ("weight", "bias"):
        logits, deltas = f"box_head.class_logits.{part}", f"box_head.box_deltas.{part}"
        theirs[logits] = torch.cat([state[logits][-1:], state[logits][:-1]])
        theirs[deltas] = torch.cat([torch.zeros_like(state[deltas][:4]), state[deltas]])
    names = torchvision_names(convs=regions.convs > 0)
    return {names.theirs(key): value for key, value in theirs.items()}


def body_from_torchvision(state: Mapping[str, Tensor], *, layer4_in_head: bool = False) -> State:
    """The tensors of an ImageNet ResNet-50 or MobileNetV3-Large under our names, without the classifier.

    In C4, ResNet's last stage is in the box head.
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
