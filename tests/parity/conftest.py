"""torchvision's four detectors with random weights that detect: scores spread, boxes move, norms do something."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import detection
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.mobilenetv3 import InvertedResidual
from torchvision.models.resnet import Bottleneck

CLASSES = 5

BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "resnet50-fpn": detection.fasterrcnn_resnet50_fpn,
    "resnet50-fpn-v2": detection.fasterrcnn_resnet50_fpn_v2,
    "mobilenetv3-large-fpn": detection.fasterrcnn_mobilenet_v3_large_fpn,
    "mobilenetv3-large-320-fpn": detection.fasterrcnn_mobilenet_v3_large_320_fpn,
}
BACKGROUND = {"resnet50-fpn": 5.5, "mobilenetv3-large-fpn": 4.2, "mobilenetv3-large-320-fpn": 3.8}
"""Mean of the background logit where 4.5 is wrong: it leaves several detections of an image, fewer than 100."""


def _random_image(image_hw: tuple[int, int], seed: int) -> Tensor:
    """RGB in 0..1 with blobs of several sizes, as different from place to place as a photograph."""
    generator = torch.Generator().manual_seed(seed)
    layers = [torch.rand(1, 3, cells, cells, generator=generator) for cells in (3, 7, 19)]
    whole = [F.interpolate(layer, size=image_hw, mode="bilinear", align_corners=False) for layer in layers]
    pixels = torch.cat(whole).sum(dim=0) - 1 + 0.1 * torch.rand(3, *image_hw, generator=generator)
    return pixels.clamp(0, 1)


def _build(preset: str, *, norm_eps: float = 1e-5, **changes: Any) -> nn.Module:
    """The detector in eval mode, calibrated on images; the same weights in every run. A head of two layers is narrow.

    It runs in channels_last memory, as ours does: with the same convolution kernels both round alike.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BUILDERS[preset](weights=None, weights_backbone=None, num_classes=CLASSES + 1, **changes)
        if isinstance(model.roi_heads.box_head, TwoMLPHead):
            model.roi_heads.box_head = TwoMLPHead(256 * 7 * 7, 128)
            model.roi_heads.box_predictor = FastRCNNPredictor(128, CLASSES + 1)
        _randomise(model, norm_eps)
        _calibrate(model, BACKGROUND.get(preset, 4.5))
    return model.eval().to(memory_format=torch.channels_last)


@torch.no_grad()
def _randomise(model: nn.Module, norm_eps: float) -> None:
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = norm_eps
            layer.weight.uniform_(0.7, 1.3)
            layer.bias.uniform_(-0.2, 0.2)
        elif isinstance(layer, nn.Conv2d) and layer.bias is None:
            layer.weight *= 0.03  # variances so small that the norm's eps matters
    for block in model.modules():
        # Branches weaker than the shortcut, as training makes them; else rounding grows from block to block.
        if isinstance(block, Bottleneck):
            block.bn3.weight.uniform_(0.1, 0.3)
        elif isinstance(block, InvertedResidual):
            block.block[-1][1].weight.uniform_(0.1, 0.3)


@torch.no_grad()
def _calibrate(model: nn.Module, background: float) -> None:
    """Set the statistics of every layer while images pass through it once, as if it had been trained."""
    predictor, head = model.roi_heads.box_predictor, model.rpn.head
    deviations = {head.cls_logits: 2.0, head.bbox_pred: 0.1, predictor.cls_score: 0.8, predictor.bbox_pred: 1.0}
    hooks = []
    for name, layer in model.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
        elif isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None and "body" not in name:
            hooks.append(layer.register_forward_hook(_standardise(deviations.get(layer, 1.0))))
    images = [_random_image((160, 160), seed) for seed in range(3)]
    objects = {"boxes": torch.tensor([[20.0, 30.0, 110.0, 90.0]]), "labels": torch.tensor([1])}
    model.train()
    model(images, [objects] * len(images))
    for hook in hooks:
        hook.remove()
    predictor.cls_score.bias[0] += background


def _standardise(deviation: float) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]:
    """A hook that, the first time, gives each output channel mean 0 and this deviation over all places."""
    done = False

    def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        nonlocal done
        if done:
            return None
        done = True
        rows = output.transpose(0, 1).flatten(1)
        factor = deviation / rows.std(dim=1)
        layer.bias.copy_((layer.bias - rows.mean(dim=1)) * factor)
        layer.weight *= factor.view(-1, *[1] * (layer.weight.dim() - 1))
        return layer.forward(*inputs)

    return hook


@pytest.fixture(scope="session")
def calibrated() -> Callable[..., nn.Module]:
    """Builds a detector of torchvision from a preset's name and torchvision's own arguments."""
    return _build


@pytest.fixture(scope="session")
def random_image() -> Callable[[tuple[int, int], int], Tensor]:
    """Draws an image of some height and width from a seed."""
    return _random_image
