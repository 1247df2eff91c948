"""Loss computing: the two losses of the RPN and the two of the second stage.

Axes: b images, a anchors of an image, r regions of the batch, k classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from fasterrcnn.model.targets import Assigner, RegionSample, boxes_of
from fasterrcnn.ops import boxes, losses
from fasterrcnn.structures import Target


@dataclass(frozen=True)
class RPNLoss:
    """Objectness and box losses over sampled anchors (Ren et al. 2015, section 3.1.2).

    Attributes:
        assigner: which anchors are positive, and how many are drawn.
        beta: where the smooth L1 loss turns linear.
    """

    assigner: Assigner
    beta: float = 1 / 9

    def __call__(
        self,
        logits: Float[Tensor, "b a"],
        deltas: Float[Tensor, "b a 4"],
        anchors: Float[Tensor, "a 4"],
        targets: Sequence[Target],
        generators: Sequence[torch.Generator | None] | None = None,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Int64[Tensor, ""]]:
        """Objectness loss, box loss, number of drawn anchors; both losses are means over these.

        The anchors of each image are drawn with its own generator.
        """
        own_logits, own_deltas, wanted_deltas, is_object, is_drawn = [], [], [], [], []
        generators = generators or [None] * len(targets)
        for image_logits, image_deltas, target, generator in zip(logits, deltas, targets, generators, strict=True):
            matched = self.assigner.assign(anchors, target)
            sample = self.assigner.sample(matched, generator)
            index, drawn = sample.index, sample.drawn
            matched, own_anchors = matched[index], anchors[index]
            own_logits.append(image_logits[index])
            own_deltas.append(image_deltas[index])
            wanted_deltas.append(boxes.encode(boxes_of(matched, target.boxes, own_anchors), own_anchors))
            is_object.append((matched >= 0) & drawn)
            is_drawn.append(drawn)
        drawn, positive, wanted = torch.cat(is_drawn), torch.cat(is_object), torch.cat(wanted_deltas)
        deltas_of_objects = _only_where(positive, torch.cat(own_deltas), wanted)
        count = drawn.sum()
        box_loss = losses.smooth_l1(deltas_of_objects, wanted, beta=self.beta) / count.clamp(min=1)
        return losses.objectness(torch.cat(own_logits), positive, drawn), box_loss, count


@dataclass(frozen=True)
class RegionLoss:
    """Class and box losses over sampled regions (Girshick 2015, section 2.3).

    Attributes:
        assigner: which proposals are positive, and how many are drawn.
        delta_weights: factors of dx, dy, dw, dh.
        box_loss: "smooth_l1" and "l1" compare deltas, "giou" compares decoded boxes.
        beta: where the smooth L1 loss turns linear.
        class_weights: factor of each class, background last; none: all are equal.
        label_smoothing: see `ops.losses.classification`.
        focal_gamma: see `ops.losses.classification`.
    """

    assigner: Assigner
    delta_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    box_loss: Literal["smooth_l1", "l1", "giou"] = "smooth_l1"
    beta: float = 1 / 9
    class_weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0
    focal_gamma: float = 0.0

    def __call__(
        self,
        logits: Float[Tensor, "r k_and_background"],
        deltas: Float[Tensor, "r k 4"],
        sample: RegionSample,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
        """Class loss, box loss, and what the class loss is divided by: the drawn regions, or their class weights.

        Both losses are means over all drawn regions, positive or not.
        """
        count = len(sample.labels)
        weights, total_weight = None, sample.boxes.new_full((), count)
        if self.class_weights is not None:
            weights = torch.tensor(self.class_weights, device=logits.device)
            total_weight = weights[sample.labels].sum()
        class_loss = losses.classification(
            logits,
            sample.labels,
            class_weights=weights,
            label_smoothing=self.label_smoothing,
            focal_gamma=self.focal_gamma,
        )
        own_deltas = deltas[torch.arange(count, device=deltas.device), sample.labels.clamp(max=deltas.shape[1] - 1)]
        positive = sample.labels < deltas.shape[1]
        return class_loss, self._boxes(own_deltas, positive, sample) / max(1, count), total_weight

    def _boxes(self, deltas: Tensor, positive: Tensor, sample: RegionSample) -> Tensor:
        if self.box_loss == "giou":
            decoded = boxes.decode(deltas, sample.boxes, self.delta_weights)
            return losses.giou(_only_where(positive, decoded, sample.target_boxes), sample.target_boxes)
        wanted = boxes.encode(sample.target_boxes, sample.boxes, self.delta_weights)
        beta = self.beta if self.box_loss == "smooth_l1" else 0.0
        return losses.smooth_l1(_only_where(positive, deltas, wanted), wanted, beta=beta)


def _only_where(
    positive: Bool[Tensor, " n"], predicted: Float[Tensor, "n 4"], wanted: Float[Tensor, "n 4"]
) -> Float[Tensor, "n 4"]:
    """What is predicted for positives, and what is wanted elsewhere: there is no loss, and no gradient.

    To pick the positives instead, the CPU would have to wait for a GPU.
    """
    return torch.where(positive[:, None], predicted.float(), wanted)
