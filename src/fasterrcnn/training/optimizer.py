"""Which parameters learn, how fast, and how the rate changes over a run."""

import math

import torch
from torch import nn

from fasterrcnn.config import TrainConfig
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.weights.pretrained import is_trunk


def make_optimizer(model: FasterRCNN, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW or SGD over the parameters that learn.

    A pre-trained trunk knows something already and learns more slowly; norms and biases are not decayed.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (config.weights is not None and is_trunk(name), parameter.ndim > 1)
            groups.setdefault(key, []).append(parameter)
    options = [
        {
            "params": parameters,
            "lr": config.learning_rate * (config.backbone_rate if is_pretrained else 1.0),
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (is_pretrained, decays), parameters in groups.items()
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(options, momentum=config.momentum)
    # One pass over the numbers; the engine does not clip gradients for it in other precisions.
    fused = config.precision == "float32" and next(model.parameters()).device.type == "cpu"
    return torch.optim.AdamW(options, betas=(config.momentum, 0.999), fused=fused or None)


def rate_at(step: int, steps: int, config: TrainConfig) -> float:
    """Share of the full learning rate at a step: a linear warm-up, then half a cosine or a stair to the end.

    A run too short for its warm-up spends a tenth of its steps on it.
    """
    warmup = min(config.warmup_steps, steps // 10)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if config.schedule == "steps":
        return 0.1 ** sum(step >= drop * steps for drop in config.drops)
    done = (step - warmup) / max(1, steps - warmup)
    return config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * done))


def freeze(model: FasterRCNN, config: TrainConfig, epoch: int) -> None:
    """Let those parts of a pre-trained network learn that may learn in this epoch, counted from 1.

    Norms are left to `trained_norms`: what they know stays.
    """
    if config.weights is None:
        return
    stages = model.backbone.depth if config.freeze == "backbone" else config.freeze
    if config.unfreeze_at is not None and epoch >= config.unfreeze_at:
        stages = 0
    model.backbone.freeze(stages)


def trunk_is_frozen(config: TrainConfig, epoch: int) -> bool:
    """Whether the whole trunk stays as it is in that epoch, counted from 1."""
    learns = config.unfreeze_at is not None and epoch >= config.unfreeze_at
    return config.weights is not None and config.freeze == "backbone" and not learns


def trained_norms(model: nn.Module) -> list[str]:
    """Names of the batch norms that came with pre-trained weights: small batches would spoil what they know.

    Those of fresh layers, told by statistics that nothing has moved yet, go on learning.
    """
    norms = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    return [name for name, norm in norms if norm.running_mean is not None and bool(norm.running_mean.any())]
