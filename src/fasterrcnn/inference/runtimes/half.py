"""The runtime ``torch`` in half precision: weights and maps of 16 bits, all coordinates in float32.

Axes: b images, c channels, h w pixels, r regions, s side of a pooled map, k classes.
"""

import copy

import torch
from jaxtyping import Float
from torch import Tensor

from fasterrcnn.acceleration.flat_graphs import flatten
from fasterrcnn.acceleration.fused_convs import fuse_convs
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.model.stages import DenseOutputs, Stages


def half_stages(model: FasterRCNN, dtype: torch.dtype) -> Stages:
    """Both parts of a network in half precision, on the network's device.

    Logits and deltas leave in float32; feature maps have the type of the weights.

    Args:
        model: in evaluation mode, batch norms folded; it is copied.
        dtype: `torch.bfloat16` or `torch.float16`.
    """
    return HalfStages(model, dtype)


class HalfStages:
    """See `half_stages`."""

    def __init__(self, model: FasterRCNN, dtype: torch.dtype) -> None:
        half = copy.deepcopy(model)
        for part in (half.backbone, half.rpn, half.box_head):
            part.to(dtype)
        self._model = fuse_convs(flatten(half))
        self._dtype = dtype
        self._shift, self._scale = (-model.mean / model.std).flatten(), (1 / model.std).flatten()

    def dense(self, pixels: Float[Tensor, "b 3 h w"]) -> DenseOutputs:
        """Feature maps in half precision, RPN outputs in float32."""
        maps: list[Tensor] = self._model.backbone(self._normalised(pixels))
        logits, deltas = self._model.rpn(maps)
        return DenseOutputs(
            maps,
            tuple((level.shape[-2], level.shape[-1]) for level in maps),
            [level.float() for level in logits],
            [level.float() for level in deltas],
        )

    def head(
        self, pooled: Float[Tensor, "r c s s"]
    ) -> tuple[Float[Tensor, "r k_and_background"], Float[Tensor, "r k 4"]]:
        """Class logits and box deltas in float32."""
        logits, deltas = self._model.box_head(pooled.to(self._dtype))
        return logits.float(), deltas.float()

    def _normalised(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """As `FasterRCNN.normalised`, over whole rows: three numbers at a time would take twice as long."""
        b, c, h, w = pixels.shape
        rows = pixels.permute(0, 2, 3, 1).reshape(b, h, w * c)
        normalised = torch.addcmul(self._shift.repeat(w), rows, self._scale.repeat(w)).to(self._dtype)
        return normalised.view(b, h, w, c).permute(0, 3, 1, 2)
