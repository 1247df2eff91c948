"""The runtime ``torch`` in bfloat16 or float16: both parts with weights of that type, on a CPU or a GPU.

Axes: b images, c channels, h w pixels or cells, r regions, s side of a pooled map, k classes.
"""

import copy

import torch
from jaxtyping import Float
from torch import Tensor

from fasterrcnn.acceleration.flat_graphs import flatten
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.model.stages import DenseOutputs, Stages


def half_stages(model: FasterRCNN, dtype: torch.dtype) -> Stages:
    """Stages that compute backbone, neck, RPN and box head in 16 bits.

    Args:
        model: from `accelerate(..., for_="inference")`; it is not changed.
        dtype: bfloat16 or float16.
    """
    return HalfStages(model, dtype)


class HalfStages:
    """Stages with weights in 16 bits; all that enters and leaves them is float32, as coordinates need it.

    A bfloat16 near 500 has steps of 2 to 4: it can be a feature, but never the corner of a box in pixels.
    """

    def __init__(self, model: FasterRCNN, dtype: torch.dtype) -> None:
        self._model, self._dtype = model, dtype
        self._half = flatten(copy.deepcopy(model).to(dtype))
        self._pooled_levels = len(model.roi_pooling.strides)

    def dense(self, pixels: Float[Tensor, "b 3 h w"]) -> DenseOutputs:
        """Feature maps and RPN outputs of RGB in 0..1."""
        features = self._half.backbone(self._model.normalised(pixels).to(self._dtype))
        logits, deltas = self._half.rpn(features)
        return DenseOutputs(
            [level.float() for level in features[: self._pooled_levels]],
            tuple((level.shape[-2], level.shape[-1]) for level in features),
            [level.float() for level in logits],
            [level.float() for level in deltas],
        )

    def head(
        self, pooled: Float[Tensor, "r c s s"]
    ) -> tuple[Float[Tensor, "r k_and_background"], Float[Tensor, "r k 4"]]:
        """Class logits, background last, and box deltas."""
        logits, deltas = self._half.box_head(pooled.to(self._dtype))
        return logits.float(), deltas.float()
