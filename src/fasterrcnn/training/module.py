"""The network as Lightning trains it: a step, a validation, an optimiser."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from fasterrcnn.config import TrainConfig
from fasterrcnn.data.annotations import AnnotatedImage
from fasterrcnn.errors import TrainingError
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.structures import Losses
from fasterrcnn.training import optimizer
from fasterrcnn.training.data import Step, draws
from fasterrcnn.training.feature_cache import frozen_maps
from fasterrcnn.training.validation import Validation

LOSSES = ("objectness", "rpn_boxes", "classes", "boxes")


class TrainingModule(LightningModule):
    """What a run learns from its steps.

    Several processes that share a batch learn exactly what one process would from the whole: their losses are weighed
    by what each has drawn, and every draw follows from the image.

    Args:
        model: the network.
        config: of the run.
        records: training images, to name those of a step that goes wrong.
        steps: optimiser steps of the whole run.
        validation: gathers what is measured after each epoch; none: nothing is.

    Attributes:
        losses: the four losses of the last step over all processes.
        measured: the last validation, see `Validation.result`.
        requests: what this process wants from all: to stop, to keep the state; after a step, what anyone wanted.
    """

    def __init__(
        self,
        model: FasterRCNN,
        config: TrainConfig,
        records: Sequence[AnnotatedImage],
        steps: int,
        validation: Validation | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.records = records
        self.steps = steps
        self.validation = validation
        self.measured: dict[str, float] = {}
        self.losses: Float[Tensor, 4] = torch.zeros(4)
        self.requests = {"stop": 0, "keep": 0}
        self._norms = optimizer.trained_norms(model) if config.weights and not config.train_norms else []
        # Several processes are told once which parameters will ever learn, before the first step.
        self.freeze_for(config.epochs)

    def training_step(self, step: Step, batch_index: int) -> Float[Tensor, ""]:
        """The loss of this process's part of a batch.

        Raises:
            TrainingError: a loss is not finite; the message has the losses, the step and the images.
        """
        images = [self.records[index] for index in step.plan.indices]
        generators = [self._generator("training", self.current_epoch, image.image_id) for image in images]
        # Layers that draw by themselves (dropout) follow from the step as well, so that nothing has to be remembered.
        torch.manual_seed(draws(self.config.seed, self.current_epoch, batch_index, self.global_rank).getrandbits(63))
        features = self._features(step)
        losses = self.model.losses(step.batch, step.targets, generator=generators, features=features)
        total = self._together(torch.stack([value for _, value in losses]), losses.weights * step.plan.counts)
        if not bool(self.losses.isfinite().all()):
            raise _not_finite(losses, self.global_step + 1, images)
        return total

    def validation_step(self, step: Step, batch_index: int) -> None:
        """Losses and detections of a batch from one pass, with the same random draws every time."""
        assert self.validation is not None
        generators = [self._generator("validation", index) for index in step.plan.indices]
        features = self._features(step) or self.model.features(step.batch.pixels)
        losses = self.model.losses(step.batch, step.targets, generator=generators, features=features)
        self.validation.add(step, losses, self.model(step.batch, features=features))

    def on_validation_epoch_start(self) -> None:
        """Begin a new pass."""
        assert self.validation is not None
        self.validation.clear()

    def on_validation_epoch_end(self) -> None:
        """Score the pass."""
        assert self.validation is not None
        self.measured = self.validation.result()
        # Where callbacks look for what they watch.
        self.log_dict(self.measured, logger=False)

    def configure_optimizers(self) -> Any:
        """The optimiser over all that will ever learn in this run, and its rates."""
        self.freeze_for(self.config.epochs)
        chosen = optimizer.make_optimizer(self.model, self.config)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            chosen, lambda step: optimizer.rate_at(step, self.steps, self.config)
        )
        return {"optimizer": chosen, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """Begin, or go on, with the parts that learn now."""
        self.freeze_for(self.current_epoch + 1)

    def on_train_epoch_start(self) -> None:
        """Parts may begin to learn with an epoch."""
        self.freeze_for(self.current_epoch + 1)

    def freeze_for(self, epoch: int) -> None:
        """Let learn what may learn in that epoch, counted from 1."""
        optimizer.freeze(self.model, self.config, epoch)
        for name in self._norms:
            self.model.get_submodule(name).requires_grad_(False)

    def train(self, mode: bool = True) -> "TrainingModule":
        """As any module, but norms that know something stay as they are."""
        super().train(mode)
        for name in self._norms:
            self.model.get_submodule(name).eval()
        return self

    def transfer_batch_to_device(self, batch: Step, device: torch.device, dataloader_idx: int) -> Step:
        """The batch where the network is."""
        return batch.to(device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note which norms are fixed: weights that have been trained do not tell."""
        checkpoint["trained_norms"] = list(self._norms)

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Fix the same norms again."""
        self._norms = list(checkpoint["trained_norms"])
        self.freeze_for(self.config.epochs)

    def _features(self, step: Step) -> list[Float[Tensor, "b _ _ _"]] | None:
        """Feature maps of a step in which the backbone is frozen: it sees each image alone, so its maps can be kept."""
        if step.maps is not None:
            maps = step.maps
        elif optimizer.body_is_frozen(self.config, self.current_epoch + 1):
            maps = frozen_maps(self.model, step.batch)
        else:
            return None
        features: list[Tensor] = self.model.backbone.neck(maps)
        return features

    def _together(self, four: Float[Tensor, "4"], weights: Float[Tensor, "4"]) -> Float[Tensor, ""]:
        """The loss whose gradients, averaged over the processes, are those of the whole batch."""
        if self.trainer.world_size == 1:
            self.losses = four.detach()
            return four.sum()
        mine = torch.cat([four.detach() * weights, weights])
        torch.distributed.all_reduce(mine)
        everyone = mine[4:].clamp(min=torch.finfo(mine.dtype).tiny)
        self.losses = mine[:4] / everyone
        asked = torch.tensor(list(self.requests.values()), device=four.device)
        torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
        self.requests = dict(zip(self.requests, asked.tolist(), strict=True))
        return (four * (weights * self.trainer.world_size / everyone)).sum()

    def _generator(self, *parts: object) -> torch.Generator:
        return torch.Generator().manual_seed(draws(self.config.seed, *parts).getrandbits(63))


def check_weights(model: nn.Module, epoch: int) -> None:
    """Refuse weights that are not finite: the losses of an epoch come before its last update.

    Raises:
        TrainingError: some are not; the message names one.
    """
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise TrainingError(f"{name} is not finite after epoch {epoch}; lower the learning rate")


def _not_finite(losses: Losses, step: int, images: Sequence[AnnotatedImage]) -> TrainingError:
    shown = ", ".join(f"{name} {value:g}" for name, value in losses.as_floats().items())
    return TrainingError(
        f"a loss is not finite at step {step}: {shown}; images: {', '.join(str(p.path) for p in images)}; "
        "lower the learning rate, or look at the boxes of these images"
    )
