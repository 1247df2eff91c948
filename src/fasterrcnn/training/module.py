"""The network as Lightning trains it: training step, validation step, optimizer."""

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
from fasterrcnn.training.data import Step, seeded_rng
from fasterrcnn.training.feature_cache import frozen_maps
from fasterrcnn.training.validation import Validation


class TrainingModule(LightningModule):
    """The training of a network.

    Several processes that share a batch learn exactly what one process would learn from the whole batch: losses are
    weighted by the number of sampled anchors and regions, and the sampling of each image follows from the seed, the
    epoch and the image alone. `steps` are the optimizer's in the whole run.
    """

    def __init__(
        self,
        model: FasterRCNN,
        config: TrainConfig,
        images: Sequence[AnnotatedImage],
        steps: int,
        validation: Validation | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.images = images
        self.steps = steps
        self.validation = validation
        self.measured: dict[str, float] = {}  # the last validation, see `Validation.result`
        self._losses: Float[Tensor, 4] = torch.zeros(4)  # of the last step over all processes, on their way to the CPU
        self._copied: torch.cuda.Event | None = None  # when they have arrived
        self._own_losses: Float[Tensor, 4] = torch.zeros(4)  # of the last step in this process
        self._own_images: list[AnnotatedImage] = []
        # What this process asks all processes to do after the next step: to stop (number of the signal), to save (0 or
        # 1); after the step, the largest values of all processes.
        self.requests = {"stop": 0, "save": 0}
        self._fixed_norms = optimizer.pretrained_norms(model) if config.weights and not config.train_norms else []
        # DDP reads requires_grad once, before the first step: parameters that are unfrozen later must be included.
        self.freeze_for(config.epochs)

    def training_step(self, step: Step, batch_index: int) -> Float[Tensor, ""]:
        """The loss of this process's part of a batch."""
        images = [self.images[index] for index in step.plan.indices]
        generators = [self._generator("training", self.current_epoch, image.image_id) for image in images]
        # Dropout uses the global generator; it is seeded for each step, so that no random state has to be saved.
        torch.manual_seed(_seed(self.config.seed, self.current_epoch, batch_index, self.global_rank))
        features = self._features(step)
        losses = self.model.losses(step.batch, step.targets, generator=generators, features=features)
        values = torch.stack([value for _, value in losses])
        self._own_losses, self._own_images = values.detach(), images
        return self._over_processes(values, losses.weights * step.plan.counts)

    @property
    def losses(self) -> Float[Tensor, "4"]:
        """The four losses of the last step over all processes, on the CPU."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._losses

    def on_after_backward(self) -> None:
        """Before the optimizer changes a weight: a `TrainingError` names the images of a loss that is not finite.

        On a GPU the gradients are still being computed now, but the losses are there: only these are waited for.
        """
        if not bool(self.losses.isfinite().all()):
            raise _not_finite(self._own_losses, self.global_step + 1, self._own_images)

    def validation_step(self, step: Step, batch_index: int) -> None:
        """Losses and detections of a batch from the same features; sampling is the same in every epoch."""
        assert self.validation is not None
        generators = [self._generator("validation", index) for index in step.plan.indices]
        features = self._features(step) or self.model.features(step.batch.pixels)
        losses = self.model.losses(step.batch, step.targets, generator=generators, features=features)
        self.validation.add(step, losses, self.model(step.batch, features=features))

    def on_validation_epoch_start(self) -> None:
        """Forget the results of the last validation."""
        assert self.validation is not None
        self.validation.clear()

    def on_validation_epoch_end(self) -> None:
        """Score the detections."""
        assert self.validation is not None
        self.measured = self.validation.result()
        self.log_dict(self.measured, logger=False)  # EarlyStopping reads it there

    def configure_optimizers(self) -> Any:
        """The optimizer over all parameters that are trained in any epoch of the run, and its schedule."""
        self.freeze_for(self.config.epochs)
        chosen = optimizer.make_optimizer(self.model, self.config)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            chosen, lambda step: optimizer.learning_rate_factor(step, self.steps, self.config)
        )
        return {"optimizer": chosen, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_epoch_start(self) -> None:
        """Freeze what is frozen in this epoch, and unfreeze what is trained from it on."""
        self.freeze_for(self.current_epoch + 1)

    on_train_start = on_train_epoch_start  # Lightning does not call the former in a run resumed within an epoch

    def freeze_for(self, epoch: int) -> None:
        """Freeze the parameters that are not trained in that epoch, counted from 1."""
        optimizer.freeze_stages(self.model, self.config, epoch)
        for name in self._fixed_norms:
            self.model.get_submodule(name).requires_grad_(False)

    def train(self, mode: bool = True) -> "TrainingModule":
        """As for any module, but pretrained norms stay in eval mode."""
        super().train(mode)
        for name in self._fixed_norms:
            self.model.get_submodule(name).eval()
        return self

    def transfer_batch_to_device(self, batch: Step, device: torch.device, dataloader_idx: int) -> Step:
        """The batch on the device of the network."""
        return batch.to(device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save which norms are fixed: once trained, fresh norms cannot be distinguished from pretrained ones."""
        checkpoint["trained_norms"] = list(self._fixed_norms)

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Fix the same norms again."""
        self._fixed_norms = list(checkpoint["trained_norms"])
        self.freeze_for(self.config.epochs)
        self.train(self.training)  # Lightning has called it already, before these norms were known

    def _features(self, step: Step) -> list[Float[Tensor, "b _ _ _"]] | None:
        """Feature maps of a step in which the backbone is frozen; it runs on each image alone, as for the cache."""
        if step.maps is not None:
            maps = step.maps
        elif optimizer.backbone_is_frozen(self.config, self.current_epoch + 1):
            maps = frozen_maps(self.model, step.batch)
        else:
            return None
        features: list[Tensor] = self.model.backbone.neck(maps)
        return features

    def _over_processes(self, losses: Float[Tensor, "4"], weights: Float[Tensor, "4"]) -> Float[Tensor, ""]:
        """The loss whose gradients, averaged over the processes, are those of the whole batch."""
        if self.trainer.world_size == 1:
            self._copy(losses.detach())
            return losses.sum()
        sums = torch.cat([losses.detach() * weights, weights])
        torch.distributed.all_reduce(sums)
        total_weights = sums[4:].clamp(min=torch.finfo(sums.dtype).tiny)
        self._copy(sums[:4] / total_weights)
        requests = torch.tensor(list(self.requests.values()), device=losses.device)
        torch.distributed.all_reduce(requests, torch.distributed.ReduceOp.MAX)
        self.requests = dict(zip(self.requests, requests.tolist(), strict=True))
        return (losses * (weights * self.trainer.world_size / total_weights)).sum()

    def _copy(self, losses: Float[Tensor, "4"]) -> None:
        """Begin to copy the losses of a step to the CPU, into pinned memory, without waiting for the GPU."""
        if losses.device.type != "cuda":
            self._losses = losses.cpu()
            return
        self._losses = losses.to("cpu", non_blocking=True)
        self._copied = torch.cuda.current_stream(losses.device).record_event()

    def _generator(self, *parts: object) -> torch.Generator:
        return torch.Generator().manual_seed(_seed(self.config.seed, *parts))


def check_weights(model: nn.Module, epoch: int) -> None:
    """Refuse weights that are not finite: the last update of an epoch is not covered by its losses."""
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise TrainingError(f"{name} is not finite after epoch {epoch}; lower the learning rate")


def _seed(*parts: object) -> int:
    return seeded_rng(*parts).getrandbits(63)


def _not_finite(losses: Float[Tensor, "4"], step: int, images: Sequence[AnnotatedImage]) -> TrainingError:
    values = ", ".join(f"{name} {value:g}" for name, value in Losses(*losses).as_floats().items())
    return TrainingError(
        f"a loss is not finite at step {step}: {values}; images: {', '.join(str(i.path) for i in images)}; "
        "lower the learning rate, or check the boxes of these images"
    )
