"""The one place where configuration meets the model."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from fasterrcnn import presets
from fasterrcnn.config import AssignConfig, BackboneConfig, ModelConfig, RegionConfig
from fasterrcnn.errors import UsageError, WeightsError
from fasterrcnn.model.anchors import AnchorGenerator
from fasterrcnn.model.backbones import Backbone
from fasterrcnn.model.backbones.fpn import FeaturePyramid, Reduction
from fasterrcnn.model.backbones.mobilenet import MobileNetV3Large
from fasterrcnn.model.backbones.norms import Norm
from fasterrcnn.model.backbones.resnet import BLOCKS, ResNet, make_stage
from fasterrcnn.model.backbones.timm_trunk import TimmTrunk
from fasterrcnn.model.box_head import BoxHead, StageTrunk, fully_connected_trunk
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.model.losses import RegionLoss, RPNLoss
from fasterrcnn.model.postprocess import PostProcess
from fasterrcnn.model.proposals import ProposalGenerator
from fasterrcnn.model.roi_pooling import RoIPooling
from fasterrcnn.model.rpn import RegionProposalNetwork
from fasterrcnn.model.targets import Assigner
from fasterrcnn.weights import native, pretrained, torchvision
from fasterrcnn.weights.checkpoint import fill, read_torch


def build_model(
    model: str | ModelConfig, classes: Sequence[str] | None = None, *, weights: str | None = "imagenet"
) -> FasterRCNN:
    """A detector, ready to train or to detect.

    Args:
        model: name of a preset, or a configuration.
        classes: names of the classes; label i means ``classes[i]``. Default: those of the configuration.
        weights: "imagenet" starts the trunk from ImageNet, "coco" the whole network from COCO (class rows
            are fresh), a path from a checkpoint of this library or torchvision, None from random numbers.

    Raises:
        UsageError: no such preset, or no classes.
        WeightsError: the weights are not there, or do not fit.
    """
    config = presets.get(model) if isinstance(model, str) else model
    if classes is not None:
        config = config.with_classes(classes)
    config = pretrained.numerics_of(config, weights)
    network = assemble(config)
    if weights is not None:
        pretrained.start_from(network, config, weights)
    return network


def load_model(
    path: Path,
    *,
    classes: Sequence[str] | None = None,
    preset: str | None = None,
    norm_eps: float | None = None,
) -> tuple[FasterRCNN, ModelConfig]:
    """The detector that a checkpoint holds, in eval() mode, and its configuration.

    Args:
        path: a checkpoint of this library (.safetensors), or a state_dict of one of torchvision's detectors.
        classes: names instead of those in the file; torchvision's files have none, and get ``class_0``...
        preset: architecture of a torchvision file whose keys do not tell ("mobilenetv3-large-320-fpn").
        norm_eps: eps of its batch norms, which the keys do not tell either: 0 for a ``resnet50-fpn`` that was
            fine-tuned from torchvision's COCO weights and saved anew.

    Raises:
        WeightsError: the file cannot be read, or its tensors do not fit the architecture.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        state, config, _ = native.load(path)
        state = {key: value for key, value in state.items() if not key.startswith(native.EXTRA)}
    else:
        state = read_torch(path)
        if not torchvision.is_detector(state):
            raise WeightsError(f"{path}: neither a checkpoint of this library nor a torchvision Faster R-CNN")
        config = torchvision.recognise(state, preset)
        names = tuple(f"class_{i}" for i in range(torchvision.num_classes(state)))
        config = config.with_classes(names)
        state = torchvision.detector_to_native(state)
    if classes is not None:
        if len(classes) != len(config.classes):
            raise WeightsError(f"{path}: holds {len(config.classes)} classes, not {len(classes)}")
        config = config.with_classes(classes)
    if norm_eps is not None:
        backbone = config.backbone.model_copy(update={"norm_eps": norm_eps})
        config = config.model_copy(update={"backbone": backbone})
    try:
        network = assemble(config)
    except ValueError as error:
        raise WeightsError(f"{path}: its header describes no model ({error})") from None
    fill(network, state, str(path))
    return network.eval(), config


def assemble(config: ModelConfig) -> FasterRCNN:
    """The network that the configuration describes, with random weights, in channels_last memory."""
    if not config.classes:
        raise UsageError('a model needs classes, for example classes=["cat", "dog"]')
    backbone = _backbone(config.backbone)
    levels = len(backbone.strides) + (config.backbone.neck == "fpn")
    if len(config.anchors.sizes) != levels:
        raise UsageError(f"anchors of {len(config.anchors.sizes)} levels for a backbone with {levels} feature maps")
    anchors = AnchorGenerator(
        config.anchors.sizes, config.anchors.ratios, config.anchors.strides, config.anchors.rounded
    )
    rpn = config.rpn
    found = config.proposals
    network = FasterRCNN(
        classes=config.classes,
        mean=config.input.mean,
        std=config.input.std,
        size_divisor=config.input.size_divisor,
        backbone=backbone,
        anchors=anchors,
        rpn=RegionProposalNetwork(backbone.channels, anchors.per_cell, convs=rpn.convs),
        proposals=ProposalGenerator(found.candidates, found.proposals, found.nms_threshold, found.min_score),
        training_proposals=ProposalGenerator(
            found.training_candidates, found.training_proposals, found.nms_threshold, found.min_score
        ),
        roi_pooling=RoIPooling(
            config.regions.output_size,
            backbone.strides,
            config.regions.pooling,
            config.regions.sampling_ratio,
            config.regions.aligned,
        ),
        box_head=_box_head(config, backbone.channels),
        rpn_loss=RPNLoss(_assigner(rpn.assign, best_for_each=True), rpn.beta),
        region_loss=_region_loss(config.regions, len(config.classes)),
        postprocess=PostProcess(
            config.postprocess.score_threshold,
            config.postprocess.nms,
            config.postprocess.nms_threshold,
            max_detections=config.postprocess.max_detections,
        ),
    )
    return network.to(memory_format=torch.channels_last)


def anchor_strides(config: ModelConfig) -> tuple[int, ...]:
    """Pixels of the network input between the anchors of each level; those of torchvision's presets are nominal."""
    if config.anchors.strides is not None:
        return config.anchors.strides
    with torch.device("meta"):
        strides = _backbone(config.backbone).strides
    return (*strides, 2 * strides[-1]) if config.backbone.neck == "fpn" else tuple(strides)


def _backbone(config: BackboneConfig) -> Backbone:
    norm = Norm(config.norm, config.norm_eps)
    trunk: ResNet | MobileNetV3Large | TimmTrunk
    if config.trunk == "resnet50":
        trunk = ResNet(50, config.stages, norm=norm, dilated=config.dilated, stride_in_1x1=config.stride_in_1x1)
    elif config.trunk == "mobilenetv3-large":
        trunk = MobileNetV3Large(norm=norm)
    elif config.trunk.startswith("timm:"):
        if config.norm == "group":
            raise UsageError("a timm trunk keeps its own norms: norm must be frozen or batch")
        trunk = TimmTrunk(config.trunk.removeprefix("timm:"), config.strides, frozen_norm=config.norm == "frozen")
    else:
        raise UsageError(f'no trunk is called {config.trunk!r}: "resnet50", "mobilenetv3-large" or "timm:<name>"')
    if config.neck == "none":
        return Backbone(trunk, nn.Identity(), trunk.channels[-1])
    neck: nn.Module = Reduction(trunk.channels, config.neck_channels)
    if config.neck == "fpn":
        neck_norm = norm if config.neck_norm else None
        neck = FeaturePyramid(trunk.channels, config.neck_channels, norm=neck_norm)
    return Backbone(trunk, neck, config.neck_channels)


def _box_head(config: ModelConfig, channels: int) -> BoxHead:
    regions, norm = config.regions, Norm(config.backbone.norm, config.backbone.norm_eps)
    if regions.trunk == "layer4":
        stage = make_stage(4, BLOCKS[50][3], norm=norm, stride=2, stride_in_1x1=config.backbone.stride_in_1x1)
        return BoxHead(StageTrunk(stage), 2048, len(config.classes))
    if not regions.widths:
        raise UsageError("regions.widths is empty: a fully connected head needs at least one layer")
    trunk = fully_connected_trunk(
        channels,
        regions.output_size,
        regions.widths,
        convs=regions.convs,
        norm=norm if regions.convs_norm else None,
    )
    return BoxHead(trunk, regions.widths[-1], len(config.classes))


def _region_loss(config: RegionConfig, num_classes: int) -> RegionLoss:
    if config.class_weights is not None and len(config.class_weights) != num_classes + 1:
        raise UsageError(
            f"{len(config.class_weights)} class weights for {num_classes} classes and background: "
            f"{num_classes + 1} are needed"
        )
    return RegionLoss(
        _assigner(config.assign),
        config.delta_weights,
        config.box_loss,
        config.beta,
        config.class_weights,
        config.label_smoothing,
        config.focal_gamma,
    )


def _assigner(config: AssignConfig, *, best_for_each: bool = False) -> Assigner:
    return Assigner(
        config.positive_iou,
        config.negative_iou,
        config.count,
        config.positive_fraction,
        best_for_each,
        config.zero_overlap,
    )
