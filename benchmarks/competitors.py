"""torchvision's own detector with the weights of ours, to be measured beside it.

Axes: h w pixels, n detections.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.ops import FrozenBatchNorm2d

from fasterrcnn.build import load_model
from fasterrcnn.config import ModelConfig
from fasterrcnn.detections import Detections
from fasterrcnn.errors import UsageError
from fasterrcnn.inference.runtimes.openvino import Program, compile_graph, to_openvino
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.weights.torchvision import torchvision_names

Variant = Literal["torchvision", "torchvision-channels-last", "torchvision-compiled", "torchvision-openvino"]
"""The model as it comes, with another memory layout, compiled whole, or with backbone and RPN head in OpenVINO."""

VARIANTS: tuple[Variant, ...] = get_args(Variant)

_MODELS: dict[str, Callable[..., nn.Module]] = {
    "resnet50-fpn": detection.fasterrcnn_resnet50_fpn,
    "resnet50-fpn-v2": detection.fasterrcnn_resnet50_fpn_v2,
    "mobilenetv3-large-fpn": detection.fasterrcnn_mobilenet_v3_large_fpn,
    "mobilenetv3-large-320-fpn": detection.fasterrcnn_mobilenet_v3_large_320_fpn,
}


@dataclass(frozen=True)
class MakeTorchvision:
    """torchvision's detector with the weights of a checkpoint, for `fasterrcnn.inference.benchmark`.

    Attributes:
        weights: the checkpoint.
        variant: how the model is run.
    """

    weights: Path
    variant: Variant

    def __call__(self, threads: int) -> "TorchvisionDetector":
        """The detector; `threads` are those of torch and OpenVINO."""
        torch.set_num_threads(threads)
        model, config = load_model(self.weights)
        return TorchvisionDetector(torchvision_model(model, config), config.classes, self.variant, threads)


class TorchvisionDetector:
    """torchvision's detector, run the way its users would do it.

    Args:
        net: torchvision's model; it is changed.
        classes: names; torchvision's label i means ``classes[i - 1]``.
        variant: how the model is run.
        threads: of OpenVINO.
    """

    def __init__(self, net: Any, classes: tuple[str, ...], variant: Variant, threads: int) -> None:
        if variant == "torchvision-channels-last":
            net = net.to(memory_format=torch.channels_last)
        elif variant == "torchvision-compiled":
            net.backbone = torch.compile(net.backbone.to(memory_format=torch.channels_last))
            net.rpn.head = torch.compile(net.rpn.head.to(memory_format=torch.channels_last))
        elif variant == "torchvision-openvino":
            graph = to_openvino(_Dense(net), torch.rand(1, 3, 128, 160), [-1, 3, -1, -1])
            outputs = _Split(Program(compile_graph(graph, threads)))
            net.backbone, net.rpn.head = outputs, outputs.head
        self._net, self._classes = net, classes
        self._frozen = variant == "torchvision-compiled"

    def predict(self, image: UInt8[np.ndarray, "h w 3"]) -> Detections:
        """Detections of an RGB image."""
        pixels = torch.from_numpy(image).permute(2, 0, 1).contiguous().float() / 255
        with torch.no_grad(), warnings.catch_warnings(), torch._inductor.config.patch(freezing=self._frozen):
            warnings.simplefilter("ignore")
            outputs = self._net([pixels])[0]
        boxes, scores, labels = (outputs[key].numpy() for key in ("boxes", "scores", "labels"))
        return Detections(boxes, scores, labels - 1, self._classes, image.shape[:2])


def torchvision_model(model: FasterRCNN, config: ModelConfig) -> nn.Module:
    """torchvision's detector with the same weights and numbers.

    Raises:
        UsageError: torchvision has no such architecture.
    """
    if config.preset not in _MODELS:
        raise UsageError(f"torchvision has no {config.preset}; it can be compared with {', '.join(_MODELS)}")
    theirs = _MODELS[config.preset](
        weights=None,
        weights_backbone=None,
        num_classes=len(config.classes) + 1,
        min_size=config.input.short_side,
        max_size=config.input.long_side,
        rpn_pre_nms_top_n_test=config.proposals.candidates,
        rpn_post_nms_top_n_test=config.proposals.proposals,
        rpn_nms_thresh=config.proposals.nms_threshold,
        rpn_score_thresh=config.proposals.min_score,
        box_score_thresh=config.postprocess.score_threshold,
        box_nms_thresh=config.postprocess.nms_threshold,
        box_detections_per_img=config.postprocess.max_detections,
    )
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
            module.eps = config.backbone.norm_eps
    ours, names = model.state_dict(), torchvision_names(convs=config.regions.convs > 0)
    # Their norms count batches, which no prediction reads.
    wanted = [key for key in theirs.state_dict() if not key.endswith("num_batches_tracked")]
    theirs.load_state_dict({key: _rows(key, ours[names.ours(key)]) for key in wanted}, strict=False)
    return theirs.eval()


class _Dense(nn.Module):
    """Backbone and RPN head as one graph."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.backbone, self.head = net.backbone, net.rpn.head

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        features = list(self.backbone(pixels).values())
        logits, deltas = self.head(features)
        return (*features, *logits, *deltas)


class _Split(nn.Module):
    """The graph's outputs, given to torchvision in two halves, as it asks for them."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self._program = program
        self._rest: list[Tensor] = []

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        outputs = self._program(pixels)
        levels = len(outputs) // 3
        self._rest = outputs[levels:]
        return {str(level) if level < levels - 1 else "pool": outputs[level] for level in range(levels)}

    @property
    def head(self) -> nn.Module:
        """Gives what the backbone's call has left."""
        return _Rest(self)


class _Rest(nn.Module):
    def __init__(self, split: _Split) -> None:
        super().__init__()
        self._split = [split]  # in a list: no child of this module

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        rest = self._split[0]._rest
        return rest[: len(features)], rest[len(features) :]


def _rows(key: str, value: Tensor) -> Tensor:
    """Background first, with box deltas that nothing reads."""
    if ".cls_score." in key:
        return torch.cat([value[-1:], value[:-1]])
    if ".bbox_pred." in key and key.startswith("roi_heads"):
        return torch.cat([torch.zeros_like(value[:4]), value])
    return value
