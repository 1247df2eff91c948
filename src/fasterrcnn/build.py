"""Build networks from configurations, and load and convert checkpoints."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from fasterrcnn import presets
from fasterrcnn.acceleration import accelerate
from fasterrcnn.config import MAX_SIDE, AnchorConfig, BackboneConfig, ModelConfig, RegionConfig, changed
from fasterrcnn.errors import UsageError, WeightsError, first_line
from fasterrcnn.model.anchors import AnchorGenerator
from fasterrcnn.model.backbones import Backbone
from fasterrcnn.model.backbones.fpn import FeaturePyramid, Reduction
from fasterrcnn.model.backbones.mobilenet import MobileNetV3Large
from fasterrcnn.model.backbones.norms import Norm
from fasterrcnn.model.backbones.resnet import ResNet, Shape, make_stage
from fasterrcnn.model.backbones.timm_backbone import TimmBackbone
from fasterrcnn.model.box_head import BoxHead, StageBody, fully_connected_body
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.model.losses import RegionLoss, RPNLoss
from fasterrcnn.model.postprocess import PostProcess
from fasterrcnn.model.proposals import ProposalGenerator
from fasterrcnn.model.roi_pooling import RoIPooling
from fasterrcnn.model.rpn import RegionProposalNetwork
from fasterrcnn.model.targets import Assigner
from fasterrcnn.structures import MEMORY_FORMAT
from fasterrcnn.weights import load, transfer
from fasterrcnn.weights.catalog import Located, locate
from fasterrcnn.weights.detectron2 import BackboneStyle
from fasterrcnn.weights.layout import check_fit
from fasterrcnn.weights.transfer import LoadReport


def build_model(
    model: str | ModelConfig, classes: Sequence[str] | None = None, *, weights: str | None = "imagenet"
) -> FasterRCNN:
    """A detector, ready to train or to detect.

    Args:
        model: name of a preset, or a configuration.
        classes: names of the classes; label i means ``classes[i]``. Default: those of the configuration.
        weights: "imagenet" starts the backbone from ImageNet, "coco" the whole network from COCO, a path from a
            checkpoint of this library, torchvision, Detectron2 or MMDetection (class rows are kept by name), None from
            random numbers.

    Raises:
        UsageError: no such preset, or no classes.
        WeightsError: the weights are not there, or do not fit.
    """
    config = presets.get(model) if isinstance(model, str) else model
    if classes is not None:
        config = config.with_classes(classes)
    return start_model(transfer.numerics_of(config, weights), weights)[0]


def start_model(config: ModelConfig, weights: str | None) -> tuple[FasterRCNN, LoadReport | None]:
    """As `build_model`, with a report of which start weights were loaded; None without start weights.

    The configuration is complete: it has the numbers of the weights already (`transfer.numerics_of`).
    """
    network = assemble(config)
    return network, None if weights is None else transfer.start_from(network, config, weights)


def load_model(
    weights: str | Path | Located,
    *,
    classes: Sequence[str] | None = None,
    preset: str | None = None,
    norm_eps: float | None = None,
    style: BackboneStyle | None = None,
    anchors: AnchorConfig | None = None,
    short_side: int | None = None,
    long_side: int | None = None,
    log: Callable[[str], None] | None = None,
) -> tuple[FasterRCNN, ModelConfig]:
    """The detector that a checkpoint holds, in eval() mode, and its configuration.

    The weights are a file or a name that `catalog.locate` resolves, or its result; the options are those of
    `fasterrcnn.load`. A file that cannot be read, or whose tensors do not fit the architecture, is a `WeightsError`.
    """
    located = weights if isinstance(weights, Located) else locate(weights)
    given = _Given(classes, preset, norm_eps, style, anchors, short_side, long_side)
    network, config, source = _open(located, given)
    if log is not None and source.family != "fasterrcnn":
        log(source.line)
        if source.family == "torchvision" and located.preset is None and not (anchors or short_side or long_side):
            log(_TORCHVISION_DEFAULTS)
    return network.eval(), config


def convert_weights(
    path: str | Path,
    target: Path,
    *,
    to: load.WeightFormat | None = None,
    classes: Sequence[str] | None = None,
    preset: str | None = None,
    norm_eps: float | None = None,
    style: BackboneStyle | None = None,
    anchors: AnchorConfig | None = None,
    short_side: int | None = None,
    long_side: int | None = None,
    log: Callable[[str], None] | None = None,
) -> list[str]:
    """Write a detector of any family as a file of ours, torchvision's or Detectron2's.

    The suffix of the target decides its format, but for a .pth, which `to` can make "detectron2" (default:
    "torchvision"). The other options are those of `load_model`; any file is logged. Gives notes about what the written
    file cannot hold: names of classes, settings that differ in its family. Where that family has no such network, or
    the suffix is none of these, it is a `UsageError`.
    """
    kind = load.weight_format_of(target, to)
    given = _Given(classes, preset, norm_eps, style, anchors, short_side, long_side)
    network, config, source = _open(locate(path), given)
    if log is not None:
        log(source.line)
    return load.write_detector(source, network.state_dict(), config, target, kind)


@dataclass(frozen=True)
class _Given:
    """What the user states about a file; see `fasterrcnn.load`."""

    classes: Sequence[str] | None
    preset: str | None
    norm_eps: float | None
    style: BackboneStyle | None
    anchors: AnchorConfig | None
    short_side: int | None
    long_side: int | None

    def applied(self, config: ModelConfig, path: Path) -> ModelConfig:
        """The configuration of the file with what is stated."""
        if self.classes is not None:
            if len(self.classes) != len(config.classes):
                raise WeightsError(f"{path}: holds {len(config.classes)} classes, not {len(self.classes)}")
            config = config.with_classes(self.classes)
        sides = {"short_side": self.short_side, "long_side": self.long_side}
        config = changed(config, input={name: side for name, side in sides.items() if side is not None})
        short, long = config.input.short_side, config.input.long_side
        if not 0 < short <= long <= MAX_SIDE:
            raise UsageError(f"input of {short} x {long} pixels: 0 < short side <= long side <= {MAX_SIDE} is needed")
        if self.anchors is None:
            return config
        levels = len(config.anchors.sizes), len(self.anchors.sizes)
        if levels[0] != levels[1]:
            raise UsageError(f"anchors of {levels[1]} levels, but {path} holds a network with {levels[0]}")
        return config.model_copy(update={"anchors": self.anchors})


_TORCHVISION_DEFAULTS = (
    "note: files of torchvision hold neither anchors nor input size; its defaults are taken. If it was trained with "
    "others, state them (--anchors FILE, --short-side, --long-side)"
)


def _open(located: Located, given: _Given) -> tuple[FasterRCNN, ModelConfig, load.WeightFile]:
    path = located.path
    source = load.open_weights(path, preset=given.preset or located.preset, style=given.style)
    if source.config is None:
        raise WeightsError(
            f"{path}: neither a checkpoint of this library nor a Faster R-CNN of torchvision, Detectron2 or MMDetection"
        )
    config = given.applied(source.config, path)
    norm_eps = located.norm_eps if given.norm_eps is None else given.norm_eps
    if norm_eps is not None:
        config = changed(config, backbone={"norm_eps": norm_eps})
    _check_anchor_rows(config, source)
    try:
        with torch.device("meta"):  # no memory is allocated before the names of the tensors fit the configuration
            sketch = assemble(config)
    except (ValueError, RuntimeError, OverflowError) as error:
        raise WeightsError(f"{path}: its header describes no model ({first_line(error)})") from None
    tensors = check_fit(sketch, source.state, str(path), source.name_in_file)
    network = _materialise(sketch, config)
    network.load_state_dict(tensors, strict=False)
    return network, config, source


def _check_anchor_rows(config: ModelConfig, source: load.WeightFile) -> None:
    """Refuse a network for another number of anchors than is stated, or than its family has by default."""
    logits = source.state.get("rpn.objectness.weight")
    if source.family == "fasterrcnn" or logits is None or logits.dim() != 4:
        return
    per_cell = len(config.anchors.sizes[0]) * len(config.anchors.ratios[0])
    if len(logits) != per_cell:
        raise WeightsError(
            f"{source.path}: its RPN has {len(logits)} anchors of a cell, not {per_cell}, and the file does not hold "
            f"which; state their sizes and ratios (--anchors FILE, for {len(config.anchors.sizes)} levels)"
        )


def assemble(config: ModelConfig) -> FasterRCNN:
    """The network that the configuration describes, with random weights, channels last, accelerated for training."""
    if not config.classes:
        raise UsageError('a model needs classes, for example classes=["cat", "dog"]')
    backbone = _backbone(config.backbone)
    levels = len(backbone.strides) + (config.backbone.neck == "fpn")
    if len(config.anchors.sizes) != levels:
        raise UsageError(f"anchors of {len(config.anchors.sizes)} levels for a backbone with {levels} feature maps")
    anchors = AnchorGenerator(**config.anchors.model_dump())
    rpn, regions, selection = config.rpn, config.regions, config.proposals
    proposals = ProposalGenerator(**selection.model_dump(exclude={"training_candidates", "training_proposals"}))
    network = FasterRCNN(
        classes=config.classes,
        mean=config.input.mean,
        std=config.input.std,
        size_divisor=config.input.size_divisor,
        backbone=backbone,
        anchors=anchors,
        rpn=RegionProposalNetwork(backbone.channels, anchors.per_cell, convs=rpn.convs),
        proposals=proposals,
        training_proposals=replace(
            proposals, candidates=selection.training_candidates, proposals=selection.training_proposals
        ),
        roi_pooling=RoIPooling(
            regions.output_size,
            backbone.strides,
            regions.pooling,
            regions.sampling_ratio,
            regions.aligned,
            levels_of=regions.levels,
        ),
        box_head=_box_head(config, backbone.channels),
        rpn_loss=RPNLoss(Assigner(**rpn.assign.model_dump(), best_for_each=True), rpn.beta),
        region_loss=_region_loss(regions, len(config.classes)),
        postprocess=PostProcess(**config.postprocess.model_dump()),
    )
    return accelerate(network.to(memory_format=MEMORY_FORMAT), for_="training")


def _materialise(sketch: FasterRCNN, config: ModelConfig) -> FasterRCNN:
    """The network of a sketch on the device "meta", with memory that a state_dict then fills; no random numbers."""
    unsaved = {name for name, _ in sketch.named_buffers()} - set(sketch.state_dict())
    if unsaved != {"mean", "std"}:  # a timm backbone that computes what it does not save
        return assemble(config)
    network = sketch.to_empty(device="cpu")
    for name in unsaved:
        getattr(network, name).copy_(torch.tensor(getattr(config.input, name)).view(3, 1, 1))
    for name, buffer in network.named_buffers():
        if name.endswith("num_batches_tracked"):  # files may leave it out
            buffer.zero_()
    return network


def anchor_strides(config: ModelConfig) -> tuple[int, ...]:
    """Pixels of the network input between the anchors of each level; those of torchvision's presets are nominal."""
    if config.anchors.strides is not None:
        return config.anchors.strides
    with torch.device("meta"):
        strides = _backbone(config.backbone).strides
    return (*strides, 2 * strides[-1]) if config.backbone.neck == "fpn" else tuple(strides)


def _backbone(config: BackboneConfig) -> Backbone:
    norm = Norm(config.norm, config.norm_eps)
    body: ResNet | MobileNetV3Large | TimmBackbone
    if (shape := Shape.of(config.body)) is not None:
        body = ResNet(shape, config.stages, norm=norm, dilated=config.dilated, stride_in_1x1=config.stride_in_1x1)
    elif config.body == "mobilenetv3-large":
        body = MobileNetV3Large(norm=norm)
    elif config.body.startswith("timm:"):
        if config.norm == "group":
            raise UsageError("a timm backbone keeps its own norms: norm must be frozen or batch")
        body = TimmBackbone(config.body.removeprefix("timm:"), config.strides, frozen_norm=config.norm == "frozen")
    else:
        raise UsageError(
            f"no backbone is called {config.body!r}: "
            '"resnet50", "resnext101-32x8d", "mobilenetv3-large" or "timm:<name>"'
        )
    if config.neck == "none":
        return Backbone(body, nn.Identity(), body.channels[-1])
    neck: nn.Module = Reduction(body.channels, config.neck_channels)
    if config.neck == "fpn":
        neck_norm = norm if config.neck_norm else None
        neck = FeaturePyramid(body.channels, config.neck_channels, norm=neck_norm)
    return Backbone(body, neck, config.neck_channels)


def _box_head(config: ModelConfig, channels: int) -> BoxHead:
    regions, norm = config.regions, Norm(config.backbone.norm, config.backbone.norm_eps)
    if regions.body == "layer4":
        if (shape := Shape.of(config.backbone.body)) is None:
            raise UsageError(f'a box head of "layer4" needs a ResNet, not {config.backbone.body!r}')
        stage = make_stage(4, shape, norm=norm, stride=2, stride_in_1x1=config.backbone.stride_in_1x1)
        return BoxHead(StageBody(stage), shape.channels(4), len(config.classes))
    if not regions.widths:
        raise UsageError("regions.widths is empty: a fully connected head needs at least one layer")
    convs_norm = norm if regions.convs_norm else None
    body = fully_connected_body(channels, regions.output_size, regions.widths, convs=regions.convs, norm=convs_norm)
    return BoxHead(body, regions.widths[-1], len(config.classes))


def _region_loss(config: RegionConfig, num_classes: int) -> RegionLoss:
    if config.class_weights is not None and len(config.class_weights) != num_classes + 1:
        raise UsageError(
            f"{len(config.class_weights)} class weights for {num_classes} classes and background: "
            f"{num_classes + 1} are needed"
        )
    fields = {"delta_weights", "box_loss", "beta", "class_weights", "label_smoothing", "focal_gamma"}
    return RegionLoss(Assigner(**config.assign.model_dump()), **config.model_dump(include=fields))
