"""Detectron2's layout: Faster R-CNN with C4, DC5 or a pyramid, and its ImageNet backbones.

Three orders differ from ours: its pixels are BGR (mostly), its anchors of a cell come size by size, and a file holds no
names of classes. Pixels become RGB by turning the stem's input channels round, which changes no number.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fasterrcnn import presets
from fasterrcnn.config import AnchorConfig, ModelConfig, changed
from fasterrcnn.errors import UsageError, WeightsError
from fasterrcnn.model.anchors import cell_anchors
from fasterrcnn.model.backbones.resnet import Shape
from fasterrcnn.weights.layout import KeyMap, State, head_widths, resnet_shape

BackboneStyle = Literal["caffe", "pytorch"]

STEM = "backbone.body.conv1.weight"
_RPN, _BOX = "proposal_generator.rpn_head", "roi_heads.box_predictor"
_ANCHORS = "proposal_generator.anchor_generator.cell_anchors."
_PIXELS = ("pixel_mean", "pixel_std")


@dataclass(frozen=True)
class Pixels:
    """What a backbone takes for a pixel: mean and standard deviation of red, green and blue, 0..255."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool  # the file's stem takes blue first

    @classmethod
    def in_order_of_file(cls, mean: Sequence[float], std: Sequence[float], *, bgr: bool) -> "Pixels":
        """From numbers that begin with the colour that the stem takes first."""
        (red, green, blue), (std_red, std_green, std_blue) = (v[::-1] if bgr else v for v in (mean, std))
        return cls((red, green, blue), (std_red, std_green, std_blue), bgr)

    @property
    def caffe(self) -> bool:
        """Pixels that are not divided come with the strides of the original ResNet: in the first 1x1 convolution."""
        return self.std == (1.0, 1.0, 1.0)

    def applied(self, config: ModelConfig) -> ModelConfig:
        """The configuration with these pixels."""
        mean, std = (tuple(value / 255 for value in values) for values in (self.mean, self.std))
        return changed(config, input={"mean": mean, "std": std}, backbone={"stride_in_1x1": self.caffe})

    def __str__(self) -> str:
        scale = "0..255 less the mean" if self.caffe else "normalised"
        return f"{'BGR' if self.bgr else 'RGB'} pixels, {scale}"


_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
CAFFE = Pixels(_MEAN, (1.0, 1.0, 1.0), bgr=True)
PYTORCH = Pixels(_MEAN, _STD, bgr=False)
RESNEXT = Pixels(_MEAN, _STD, bgr=True)


def is_detectron2_detector(state: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of a Faster R-CNN of Detectron2."""
    return any(key.startswith(f"{_RPN}.") for key in state)


def recognise_detectron2(state: State, style: BackboneStyle | None = None) -> tuple[ModelConfig, Pixels]:
    """The configuration of a detector, without class names, with the numerics of Detectron2; and its pixels.

    ``pixel_mean``, ``pixel_std`` and ``cell_anchors`` are believed where they are there, and the style where pixels are
    not; the zoo's ResNets are "caffe", the default. A `WeightsError` names a needed tensor that is missing, or an
    architecture that is none of ours.
    """
    pyramid = any(key.startswith("backbone.bottom_up.") for key in state)
    body = "backbone.bottom_up" if pyramid else "backbone"
    shape = resnet_shape(state, [f"{body}.res{stage}." for stage in (2, 3, 4)])
    single = "c4" if any(key.startswith("roi_heads.res5.") for key in state) else "dc5"
    kind = "fpn" if pyramid else single
    config = presets.get(f"{shape}-{kind}")
    pixels = _pixels(state, shape, style)
    config = pixels.applied(with_detectron2_numerics(config))
    config = config.model_copy(update={"anchors": _anchors(state, config.anchors)})
    if kind != "c4":
        widths = head_widths(state, [f"roi_heads.box_head.fc{number}" for number in (1, 2, 3, 4)], f"{_BOX}.cls_score")
        config = changed(config, regions={"widths": widths})
    return config, pixels


def with_detectron2_numerics(config: ModelConfig) -> ModelConfig:
    """Detectron2's numbers for an architecture (its Base-RCNN files, and its code)."""
    return changed(
        with_numerics_in_common(config),
        input={"resize": "pillow", "antialias": True, "size_divisor": 32 if config.backbone.neck == "fpn" else 1},
        proposals={"ranked_by": "logit"},
        regions={"levels": "detectron2"},
    )


def with_numerics_in_common(config: ModelConfig) -> ModelConfig:
    """The numbers that Detectron2 and MMDetection agree on for an architecture."""
    pyramid = config.backbone.neck == "fpn"
    counts = {"candidates": 1000, "proposals": 1000, "training_candidates": 2000, "training_proposals": 1000}
    if not pyramid:
        counts = {"candidates": 6000, "proposals": 1000, "training_candidates": 12000, "training_proposals": 2000}
    return changed(
        config,
        backbone={"norm_eps": 1e-5},
        anchors={"strides": (4, 8, 16, 32, 64) if pyramid else (16,), "rounded": False},
        rpn={"beta": 0.0},
        proposals={**counts, "min_side": 0.0},
        regions={"sampling_ratio": 0, "aligned": True, "beta": 0.0},
        postprocess={"min_side": 0.0},
    )


def _pixels(state: State, shape: Shape, style: BackboneStyle | None) -> Pixels:
    if all(key in state for key in _PIXELS):
        mean, std = ([round(float(v), 4) for v in state[key].flatten().double()] for key in _PIXELS)
        if len(mean) != 3 or len(std) != 3 or not all(map(math.isfinite, mean + std)) or min(std) <= 0:
            raise WeightsError(f"pixel_mean {mean} and pixel_std {std} are not those of three colours")
        return Pixels.in_order_of_file(mean, std, bgr=mean[0] < mean[2])  # photographs are redder than blue
    if style is not None:
        return CAFFE if style == "caffe" else PYTORCH
    return CAFFE if shape.groups == 1 else RESNEXT


def _anchors(state: State, default: AnchorConfig) -> AnchorConfig:
    """The anchors of a file that holds them, else the default ones."""
    cells = [
        state[key].double() for key in (f"{_ANCHORS}{level}" for level in range(len(default.sizes))) if key in state
    ]
    if len(cells) != len(default.sizes):
        return default
    levels = []
    for level, cell in enumerate(cells):
        if cell.dim() != 2 or cell.shape[1] != 4 or not len(cell):
            raise WeightsError(f"{_ANCHORS}{level} has shape {tuple(cell.shape)}, and not (anchors, 4)")
        sides = cell[:, 2:] - cell[:, :2]
        sizes = tuple(dict.fromkeys(round(float(s), 2) for s in sides.prod(dim=1).sqrt()))
        ratios = tuple(dict.fromkeys(round(float(r), 3) for r in sides[:, 1] / sides[:, 0]))
        expected = _turned(cell_anchors(sizes, ratios, rounded=False), (len(ratios), len(sizes)))
        if expected.shape != cell.shape or not torch.allclose(expected.double(), cell, atol=0.5):
            raise WeightsError(f"{_ANCHORS}{level}: its anchors are not every size in every ratio")
        levels.append((sizes, ratios))
    return default.model_copy(update={"sizes": tuple(s for s, _ in levels), "ratios": tuple(r for _, r in levels)})


def detectron2_key_map(config: ModelConfig) -> KeyMap:
    """Detectron2's names of the tensors of a network, or a `UsageError` where it has no such network."""
    regions, kind = config.regions, (config.backbone.neck, config.regions.body)
    plain = config.rpn.convs == 1 and regions.convs == 0 and config.backbone.norm != "group"
    if Shape.of(config.backbone.body) is None or not plain or kind[0] == "reduction" or config.backbone.neck_norm:
        raise UsageError(f"Detectron2 has no network like {config.preset}: only ResNets with C4, DC5 or a pyramid")
    body = "backbone.bottom_up" if kind[0] == "fpn" else "backbone"
    return KeyMap(
        (
            ("box_head.body.stage", "roi_heads.res5"),
            *_body_branches(body),
            *((f"backbone.neck.lateral.{i}.0", f"backbone.fpn_lateral{i + 2}") for i in range(4)),
            *((f"backbone.neck.output.{i}.0", f"backbone.fpn_output{i + 2}") for i in range(4)),
            ("rpn.convs.0", f"{_RPN}.conv"),
            ("rpn.objectness", f"{_RPN}.objectness_logits"),
            ("rpn.deltas", f"{_RPN}.anchor_deltas"),
            *((f"box_head.body.{2 * i + 1}", f"roi_heads.box_head.fc{i + 1}") for i in range(len(regions.widths))),
            ("box_head.class_logits", f"{_BOX}.cls_score"),
            ("box_head.box_deltas", f"{_BOX}.bbox_pred"),
        ),
        _IN_BLOCKS,
    )


_IN_BLOCKS = (
    ("bn1", "conv1.norm"),
    ("bn2", "conv2.norm"),
    ("bn3", "conv3.norm"),
    ("downsample.1", "shortcut.norm"),
    ("downsample.0", "shortcut"),
)


def _body_branches(body: str) -> list[tuple[str, str]]:
    stages = [(f"backbone.body.layer{stage}", f"{body}.res{stage + 1}") for stage in (1, 2, 3, 4)]
    return [*stages, ("backbone.body", f"{body}.stem")]


def from_detectron2(state: State, config: ModelConfig, *, bgr: bool) -> State:
    """The tensors of a detector under our names, colours and anchors in our order."""
    names = detectron2_key_map(config)
    state = {key: value for key, value in state.items() if key not in _PIXELS and not key.startswith(_ANCHORS)}
    native = {names.ours(key): value for key, value in state.items()}
    sizes, ratios = len(config.anchors.sizes[0]), len(config.anchors.ratios[0])
    return _in_other_order(native, (sizes, ratios), turn_colours=bgr)


def to_detectron2(state: State, config: ModelConfig) -> State:
    """Our tensors under Detectron2's names and in its orders, BGR first, with its pixel statistics and anchors."""
    names = detectron2_key_map(config)
    sizes, ratios = len(config.anchors.sizes[0]), len(config.anchors.ratios[0])
    turned = _in_other_order(state, (ratios, sizes), turn_colours=True)
    detector = {names.theirs(key): value for key, value in turned.items()}
    for key, values in zip(_PIXELS, (config.input.mean, config.input.std), strict=True):
        detector[key] = (torch.tensor(values[::-1], dtype=torch.float64) * 255).float().view(3, 1, 1)
    for level, (of_level, its_ratios) in enumerate(zip(config.anchors.sizes, config.anchors.ratios, strict=True)):
        cell = cell_anchors(of_level, its_ratios, rounded=False)
        detector[f"{_ANCHORS}{level}"] = _turned(cell, (len(its_ratios), len(of_level)))
    return detector


def _in_other_order(state: State, outer_inner: tuple[int, int], *, turn_colours: bool) -> State:
    """Our names, with the anchors of a cell and the stem's colours turned round; tensors of odd shapes stay."""
    ordered = dict(state)
    for key, value in state.items():
        if key.startswith(("rpn.objectness.", "rpn.deltas.")):
            ordered[key] = _turned(value, outer_inner)
        elif key == STEM and turn_colours:
            ordered[key] = value.flip(1)
    return ordered


def _turned(rows: Tensor, outer_inner: tuple[int, int]) -> Tensor:
    """Rows (or groups of rows) that come in one order of sizes and ratios, in the other."""
    outer, inner = outer_inner
    if rows.dim() == 0 or len(rows) % (outer * inner):
        return rows
    grouped = rows.reshape(outer, inner, -1, *rows.shape[1:]).transpose(0, 1)
    return grouped.reshape(rows.shape)


def detectron2_options(config: ModelConfig) -> list[str]:
    """Lines of Detectron2's configuration that belong to a file of this network."""
    shape = Shape.of(config.backbone.body)
    assert shape is not None
    mean, std = ([round(255 * value, 3) for value in values[::-1]] for values in (config.input.mean, config.input.std))
    options = {
        "MODEL.RESNETS.DEPTH": shape.depth,
        "MODEL.RESNETS.NUM_GROUPS": shape.groups,
        "MODEL.RESNETS.WIDTH_PER_GROUP": shape.width,
        "MODEL.RESNETS.STRIDE_IN_1X1": config.backbone.stride_in_1x1,
        "MODEL.PIXEL_MEAN": mean,
        "MODEL.PIXEL_STD": std,
        "INPUT.FORMAT": "BGR",
        "INPUT.MIN_SIZE_TEST": config.input.short_side,
        "INPUT.MAX_SIZE_TEST": config.input.long_side,
        "MODEL.ANCHOR_GENERATOR.SIZES": [list(sizes) for sizes in config.anchors.sizes],
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [list(config.anchors.ratios[0])],
        "MODEL.RPN.PRE_NMS_TOPK_TEST": config.proposals.candidates,
        "MODEL.RPN.POST_NMS_TOPK_TEST": config.proposals.proposals,
        "MODEL.ROI_HEADS.NUM_CLASSES": len(config.classes),
        "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlignV2" if config.regions.aligned else "ROIAlign",
        "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": config.regions.sampling_ratio,
    }
    if config.regions.widths:
        options |= {"MODEL.ROI_BOX_HEAD.NUM_FC": len(config.regions.widths)}
        options |= {"MODEL.ROI_BOX_HEAD.FC_DIM": config.regions.widths[0]}
    return [f"{name} {str(value).replace(' ', '')}" for name, value in options.items()]


# ---- ImageNet backbones

_CAFFE2_NAMES = (
    (r"^(res\.)?conv1\.(?=w$|bn\.)", "stem.conv1."),
    (r"\.branch1\.", ".shortcut."),
    (r"\.branch2a\.", ".conv1."),
    (r"\.branch2b\.", ".conv2."),
    (r"\.branch2c\.", ".conv3."),
    (r"\.bn\.s$", ".norm.weight"),
    (r"\.bn\.b$", ".norm.bias"),
    (r"\.bn\.rm$", ".norm.running_mean"),
    (r"\.bn\.riv$", ".norm.running_var"),
    (r"\.w$", ".weight"),
)
"""Parts of Caffe2's names, with dots for its underscores, and what Detectron2 calls them."""


def is_detectron2_body(state: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of one of its ImageNet backbones: Caffe2's names, or its own without a detector."""
    return "res2_0_branch2a_w" in state or "res2.0.conv1.weight" in state


def body_from_detectron2(state: State, *, layer4_in_head: bool) -> tuple[State, Pixels]:
    """The tensors of an ImageNet ResNet under our names, without the classifier; and its pixels."""
    caffe2 = "conv1_w" in state
    named = {_caffe2_name(key) if caffe2 else key: value for key, value in state.items()}
    named = {f"backbone.{key}": value for key, value in named.items() if key.startswith(("stem.", "res"))}
    shape = resnet_shape(named, [f"backbone.res{stage}." for stage in (2, 3, 4)])
    pixels = (CAFFE if shape.groups == 1 else RESNEXT) if caffe2 else PYTORCH
    in_head = [("box_head.body.stage", "backbone.res5")] if layer4_in_head else []
    names = KeyMap([*in_head, *_body_branches("backbone")], _IN_BLOCKS)
    native = {names.ours(key): value for key, value in named.items()}
    for key in [key for key in native if ".bn" in key or ".downsample.1." in key]:
        module, _, _ = key.rpartition(".")  # folded norms have no statistics
        native.setdefault(f"{module}.running_mean", torch.zeros_like(native[key]))
        native.setdefault(f"{module}.running_var", torch.ones_like(native[key]))
    return _in_other_order(native, (1, 1), turn_colours=pixels.bgr), pixels


def _caffe2_name(key: str) -> str:
    key = key.replace("_", ".")
    for pattern, replacement in _CAFFE2_NAMES:
        key = re.sub(pattern, replacement, key)
    return key
