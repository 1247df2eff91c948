"""Averaged weights: a detector whose weights are the mean over its last steps wobbles less than any single step."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn


class WeightAverage(Callback):
    """Exponential moving average of the weights (Polyak and Juditsky 1992; as in Tarvainen and Valpola 2017).

    Early in a run the average is short, so that it does not remember the random start: after n steps the old average
    counts at most (1 + n) / (10 + n). Only what moves is averaged; what is frozen is the same in both.

    Args:
        decay: share of the old average in the new one, 0..1; with 0 the weights are their own average.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self._average: dict[str, Tensor] = {}
        self._swapped = ExitStack()

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Follow each step of the optimiser."""
        if self.decay and trainer.global_step != self.steps:
            self.update(module, trainer.global_step)

    def update(self, module: nn.Module, step: int) -> None:
        """Move the average towards the weights after that step, counted from 1."""
        self.steps = step
        share = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        current = _floating(module)
        for key in current.keys() - self._average.keys():
            self._average[key] = current[key].clone()
        keys = sorted(current)
        torch._foreach_lerp_([self._average[key] for key in keys], [current[key] for key in keys], share)

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """The module has the averaged weights for a while."""
        tensors = dict(module.named_parameters()) | dict(module.named_buffers())
        current = {key: tensors[key].data for key in self._average}
        kept = {key: value.clone() for key, value in current.items()}
        try:
            for key, value in current.items():
                value.copy_(self._average[key])
            yield
        finally:
            for key, value in current.items():
                value.copy_(kept[key])

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        """What is measured is what will be kept."""
        self._swapped.enter_context(self.applied(module))

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Training goes on from the weights themselves."""
        self._swapped.close()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"steps": self.steps, "average": dict(self._average)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from it."""
        self.steps = state["steps"]
        self._average = dict(state["average"])

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """A restored average moves to where the weights are."""
        tensors = dict(module.named_parameters()) | dict(module.named_buffers())
        self._average = {key: value.to(tensors[key].device) for key, value in self._average.items()}


def _floating(module: nn.Module) -> dict[str, Tensor]:
    """Weights and running statistics that change in training, without gradients."""
    moving = {name: parameter.detach() for name, parameter in module.named_parameters() if parameter.requires_grad}
    for path, child in module.named_modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm) and child.training:
            for name, buffer in child.named_buffers(recurse=False):
                if buffer.is_floating_point():
                    moving[f"{path}.{name}"] = buffer
    return moving
