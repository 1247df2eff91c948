"""Loss functions on tensors that are already matched: one number out, never NaN on empty input.

Axes: n rows, c classes (background last).
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F


def smooth_l1(deltas: Float[Tensor, "n 4"], target_deltas: Float[Tensor, "n 4"], *, beta: float) -> Float[Tensor, ""]:
    """Sum of the smooth L1 loss (Girshick 2015, equation 3), quadratic below ``beta``; beta 0 is plain L1."""
    return F.smooth_l1_loss(deltas.float(), target_deltas, beta=beta, reduction="sum")


def giou(boxes: Float[Tensor, "n 4"], target_boxes: Float[Tensor, "n 4"]) -> Float[Tensor, ""]:
    """Sum of 1 - GIoU of each pair of decoded xyxy boxes (Rezatofighi et al. 2019), each in 0..2."""
    low = torch.maximum(boxes[:, :2], target_boxes[:, :2])
    high = torch.minimum(boxes[:, 2:], target_boxes[:, 2:])
    shared = (high - low).clamp(min=0).prod(dim=1)
    union = _area(boxes) + _area(target_boxes) - shared
    hull_low = torch.minimum(boxes[:, :2], target_boxes[:, :2])
    hull_high = torch.maximum(boxes[:, 2:], target_boxes[:, 2:])
    hull = (hull_high - hull_low).prod(dim=1)
    tiny = torch.finfo(torch.float32).tiny
    generalised = shared / union.clamp(min=tiny) - (hull - union) / hull.clamp(min=tiny)
    return (1 - generalised).sum()


def objectness(
    logits: Float[Tensor, " n"], is_object: Bool[Tensor, " n"], counted: Bool[Tensor, " n"]
) -> Float[Tensor, ""]:
    """Mean binary cross-entropy of the objectness logits that are counted; zero without any."""
    losses = F.binary_cross_entropy_with_logits(logits.float(), is_object.float(), reduction="none")
    return torch.where(counted, losses, 0.0).sum() / counted.sum().clamp(min=1)


def classification(
    logits: Float[Tensor, "n c"],
    labels: Int64[Tensor, " n"],
    *,
    class_weights: Float[Tensor, " c"] | None = None,
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
) -> Float[Tensor, ""]:
    """Mean softmax cross-entropy, weighted by class weights; zero without rows.

    Args:
        logits: background is the last class.
        labels: 0..c-1.
        class_weights: factor of each class, background included; the mean is the weighted one.
        label_smoothing: share of the ground truth that is spread over all classes (Szegedy et al. 2016), 0..1.
        focal_gamma: damp the loss of easy rows by (1 - p)^gamma (Lin et al. 2017); 0 leaves it alone.
    """
    losses = F.cross_entropy(
        logits.float(), labels, weight=class_weights, label_smoothing=label_smoothing, reduction="none"
    )
    if focal_gamma:
        true_probability = logits.float().softmax(dim=1).gather(1, labels[:, None])[:, 0]
        # Away from 0, where the derivative of a power below 1 is infinite.
        losses = losses * (1 - true_probability).clamp(min=1e-6) ** focal_gamma
    if class_weights is None:
        return losses.sum() / max(1, len(labels))
    return losses.sum() / class_weights[labels].sum().clamp(min=torch.finfo(torch.float32).tiny)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
