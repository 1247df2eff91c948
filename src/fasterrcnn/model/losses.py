"""Loss computing: the two losses of the RPN and the two of the second stage.

Axes: b images, a anchors of an image, r regions of the batch, k classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fasterrcnn.model.targets import Assigner, RegionSample
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
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""], int]:
        """Objectness loss, box loss, number of drawn anchors; both losses are means over these.

        The anchors of each image are drawn with its own generator.
        """
        drawn_logits, drawn_ground_truth, positive_deltas, wanted_deltas = [], [], [], []
        generators = generators or [None] * len(targets)
        for image_logits, image_deltas, target, generator in zip(logits, deltas, targets, generators, strict=True):
            matched = self.assigner.assign(anchors, target)
            chosen = self.assigner.sample(matched, generator)
            positive = chosen[matched[chosen] >= 0]
            drawn_logits.append(image_logits[chosen])
            drawn_ground_truth.append((matched[chosen] >= 0).float())
            positive_deltas.append(image_deltas[positive])
            wanted_deltas.append(boxes.encode(target.boxes[matched[positive]], anchors[positive]))
        ground_truth = torch.cat(drawn_ground_truth)
        box_loss = losses.smooth_l1(torch.cat(positive_deltas), torch.cat(wanted_deltas), beta=self.beta)
        return (
            losses.objectness(torch.cat(drawn_logits), ground_truth),
            box_loss / max(1, len(ground_truth)),
            len(ground_truth),
        )


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
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""], float]:
        """Class loss, box loss, and what the class loss is divided by: the drawn regions, or their class weights.

        Both losses are means over all drawn regions, positive or not.
        """
        weights, total_weight = None, float(len(sample.labels))
        if self.class_weights is not None:
            weights = torch.tensor(self.class_weights, device=logits.device)
            total_weight = float(weights[sample.labels].sum())
        class_loss = losses.classification(
            logits,
            sample.labels,
            class_weights=weights,
            label_smoothing=self.label_smoothing,
            focal_gamma=self.focal_gamma,
        )
        positive = (sample.labels < deltas.shape[1]).nonzero()[:, 0]
        own_deltas = deltas[positive, sample.labels[positive]]
        box_loss = self._boxes(own_deltas, sample.boxes[positive], sample.target_boxes[positive])
        return class_loss, box_loss / max(1, len(sample.labels)), total_weight

    def _boxes(self, deltas: Tensor, regions: Tensor, target_boxes: Tensor) -> Tensor:
        if self.box_loss == "giou":
            return losses.giou(boxes.decode(deltas, regions, self.delta_weights), target_boxes)
        wanted = boxes.encode(target_boxes, regions, self.delta_weights)
        return losses.smooth_l1(deltas, wanted, beta=self.beta if self.box_loss == "smooth_l1" else 0.0)
