"""A batch on its way through a runtime: what all runtimes share.

Axes: b images, h w pixels or cells, p proposals, l levels.
"""

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from fasterrcnn.inference.runtimes.parts import DenseMaps, Runtime
from fasterrcnn.model.anchors import AnchorGenerator
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.model.postprocess import PostProcess
from fasterrcnn.model.proposals import ProposalGenerator
from fasterrcnn.model.roi_pooling import as_rois
from fasterrcnn.structures import ImageBatch, RawDetections

_SIZES_KEPT = 8
"""Padded sizes whose anchors are remembered: 3.5 MB each at 800x1088."""


def detect(
    model: FasterRCNN, runtime: Runtime, batch: ImageBatch, rules: PostProcess, proposals: ProposalGenerator
) -> list[RawDetections]:
    """Detections of each image, in the frame of the network input; the same as ``model(batch, rules)``.

    Images of different padded sizes pass in separate groups, as in `FasterRCNN.forward`.
    """
    found: dict[int, RawDetections] = {}
    for (height, width), members in model.groups(batch).items():
        pixels = batch.pixels[members, :, :height, :width].permute(0, 2, 3, 1).contiguous()
        group = ImageBatch(pixels.permute(0, 3, 1, 2), [batch.sizes_hw[i] for i in members])
        detected = _second_stage(model, runtime, group, runtime.dense(pixels), rules, proposals)
        found.update(zip(members, detected, strict=True))
    return [found[i] for i in range(len(batch))]


def _second_stage(
    model: FasterRCNN,
    runtime: Runtime,
    group: ImageBatch,
    maps: DenseMaps,
    rules: PostProcess,
    proposals: ProposalGenerator,
) -> list[RawDetections]:
    images = len(group)
    sizes = tuple((level.shape[1], level.shape[2]) for level in maps.logits)
    anchors = _anchors(model.anchors, sizes, group.padded_hw, group.pixels.device)
    logits = [level.reshape(images, -1) for level in maps.logits]
    deltas = [level.reshape(images, -1, 4) for level in maps.deltas]
    regions = [best.boxes for best in proposals(logits, deltas, anchors, group.sizes_hw)]
    features = [level.permute(0, 3, 1, 2) for level in maps.features]
    pooled = model.roi_pooling(features, as_rois(regions)).permute(0, 2, 3, 1)
    class_logits, box_deltas = _classify(model, runtime, pooled)
    counts = [len(boxes) for boxes in regions]
    per_image = zip(
        torch.split(class_logits, counts), torch.split(box_deltas, counts), regions, group.sizes_hw, strict=True
    )
    return [rules(*image, model.region_loss.delta_weights) for image in per_image]


def _classify(
    model: FasterRCNN, runtime: Runtime, pooled: Float[Tensor, "p s s c"]
) -> tuple[Float[Tensor, "p k_and_background"], Float[Tensor, "p k 4"]]:
    """A runtime is never asked about nothing: not all of them can say it."""
    classes = len(model.classes)
    if not len(pooled):
        return pooled.new_zeros(0, classes + 1), pooled.new_zeros(0, classes, 4)
    logits, deltas = runtime.head(pooled)
    return logits, deltas.view(-1, classes, 4)


@lru_cache(maxsize=_SIZES_KEPT)
def _anchors(
    generator: AnchorGenerator,
    sizes_hw: tuple[tuple[int, int], ...],
    padded_hw: tuple[int, int],
    device: torch.device,
) -> list[Float[Tensor, "_ 4"]]:
    """Anchors of each level; nobody writes to them."""
    return generator(sizes_hw, padded_hw, device)
