"""The recipe: which parameters learn, how fast, and how the rate changes over a run."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from fasterrcnn.config import TrainConfig
from fasterrcnn.data.records import Record
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
    return torch.optim.AdamW(options, betas=(config.momentum, 0.999))


def rate_at(step: int, steps: int, config: TrainConfig) -> float:
    """Share of the full learning rate at a step: a linear warm-up, then half a cosine to the final rate.

    A run too short for its warm-up spends a tenth of its steps on it.
    """
    warmup = min(config.warmup_steps, steps // 10)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, steps - warmup)
    return config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * done))


def freeze_trained_norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    """Stop the batch norms that came with pre-trained weights: small batches would spoil what they know.

    Those of fresh layers, told by statistics that nothing has moved yet, go on learning.

    Returns:
        The stopped layers, which have to stay in eval() mode.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    trained = [norm for norm in norms if norm.running_mean is not None and bool(norm.running_mean.any())]
    for norm in trained:
        norm.eval().requires_grad_(False)
    return trained


def epoch_batches(records: Sequence[Record], batch_size: int, generator: torch.Generator) -> list[list[int]]:
    """Indices of one epoch in batches, shuffled, wide pictures and tall ones apart to save padding."""
    order = torch.randperm(len(records), generator=generator).tolist()
    wide = [i for i in order if records[i].size_hw[0] <= records[i].size_hw[1]]
    tall = [i for i in order if records[i].size_hw[0] > records[i].size_hw[1]]
    batches = [group[i : i + batch_size] for group in (wide, tall) for i in range(0, len(group), batch_size)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
