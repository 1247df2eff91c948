"""Which parameters are trained, at which learning rate, and the running average of the weights."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from fasterrcnn.config import TrainConfig
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.weights.transfer import is_imagenet_body


def make_optimizer(model: FasterRCNN, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW or SGD over the parameters that are trained.

    A pretrained backbone gets a lower learning rate; norms and biases get no weight decay.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (config.weights is not None and is_imagenet_body(name), parameter.ndim > 1)
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
    fused = next(model.parameters()).device.type in ("cpu", "cuda")  # one kernel in place of many
    adamw: Any = torch.optim.AdamW(options, betas=(config.momentum, 0.999), fused=fused or None)
    # Otherwise Lightning refuses to clip gradients in mixed precision; only float16 scales them, before this step.
    adamw._step_supports_amp_scaling = False
    return cast(torch.optim.AdamW, adamw)


def learning_rate_factor(step: int, steps: int, config: TrainConfig) -> float:
    """Factor of the learning rate at a step, 0..1: linear warm-up, then half a cosine ("cosine") or drops ("steps").

    A run too short for its warm-up spends a tenth of its steps on it.
    """
    warmup = min(config.warmup_steps, steps // 10)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if config.schedule == "steps":
        return 0.1 ** sum(step >= drop * steps for drop in config.drops)
    done = (step - warmup) / max(1, steps - warmup)
    return config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * done))


def freeze_stages(model: FasterRCNN, config: TrainConfig, epoch: int) -> None:
    """Freeze a pretrained backbone's stages, but not its norms, that are not trained in this epoch, counted from 1."""
    if config.weights is None:
        return
    stages = model.backbone.depth if config.freeze == "backbone" else config.freeze
    model.backbone.freeze(0 if _is_unfrozen(config, epoch) else stages)


def backbone_is_frozen(config: TrainConfig, epoch: int) -> bool:
    """Whether the whole backbone is frozen in that epoch, counted from 1."""
    return config.weights is not None and config.freeze == "backbone" and not _is_unfrozen(config, epoch)


def _is_unfrozen(config: TrainConfig, epoch: int) -> bool:
    return config.unfreeze_at is not None and epoch >= config.unfreeze_at


def pretrained_norms(model: nn.Module) -> list[str]:
    """Names of the batch norms that came with pretrained weights; small batches would spoil their statistics.

    Freshly initialised norms have a running mean of zero. They are left out, because they must be trained.
    """
    norms = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    return [name for name, norm in norms if norm.running_mean is not None and bool(norm.running_mean.any())]


class WeightAverage(Callback):
    """Exponential moving average of the weights (Polyak and Juditsky 1992; as in Tarvainen and Valpola 2017).

    Early in a run the average is short, so that the random start is soon forgotten: after n steps the old average
    has a share of at most (1 + n) / (10 + n), later of `decay`, 0..1; 0 means no average. Frozen tensors are not
    averaged.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self._average: dict[str, Tensor] = {}
        self._swapped = ExitStack()

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Update the average after each step of the optimizer."""
        if self.decay and trainer.global_step != self.steps:
            self.update(module, trainer.global_step)

    def update(self, module: nn.Module, step: int) -> None:
        """Move the average towards the weights after that step, counted from 1."""
        self.steps = step
        share = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        current = _trained_tensors(module)
        for key in current.keys() - self._average.keys():
            self._average[key] = current[key].clone()
        keys = sorted(current)
        torch._foreach_lerp_([self._average[key] for key in keys], [current[key] for key in keys], share)

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """The module has the averaged weights inside the block, and its own again after it."""
        tensors = _all_tensors(module)
        current = {key: tensors[key].data for key in self._average}
        copies = {key: value.clone() for key, value in current.items()}
        try:
            for key, value in current.items():
                value.copy_(self._average[key])
            yield
        finally:
            for key, value in current.items():
                value.copy_(copies[key])

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Validate the averaged weights, which are the ones that are saved."""
        self._swapped.enter_context(self.applied(module))

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Continue training from the weights themselves."""
        self._swapped.close()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"steps": self.steps, "average": dict(self._average)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore it."""
        self.steps = state["steps"]
        self._average = dict(state["average"])

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Move a restored average to the device of the weights."""
        tensors = _all_tensors(module)
        self._average = {key: value.to(tensors[key].device) for key, value in self._average.items()}


def _all_tensors(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.named_parameters()) | dict(module.named_buffers())


def _trained_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Weights and running statistics that change in training, without gradients."""
    tensors = {name: parameter.detach() for name, parameter in module.named_parameters() if parameter.requires_grad}
    for path, child in module.named_modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm) and child.training:
            for name, buffer in child.named_buffers(recurse=False):
                if buffer.is_floating_point():
                    tensors[f"{path}.{name}"] = buffer
    return tensors
