"""The target of each anchor and each region: assignment and sampling.

Axes: a anchors of an image, g ground truth, r sampled regions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from fasterrcnn.errors import UsageError
from fasterrcnn.ops import boxes
from fasterrcnn.ops.matching import IGNORED, NEGATIVE, inside_ignored, match, sample_balanced
from fasterrcnn.structures import Proposals, Target


@dataclass(frozen=True)
class Assigner:
    """Rules by which anchors or proposals are matched to objects and drawn for a mini-batch.

    Attributes:
        positive_iou: lowest IoU of a positive, 0..1.
        negative_iou: IoU under which it is a negative, 0..1.
        count: members drawn per image.
        positive_fraction: largest share of positives among them, 0..1.
        best_for_each: every object gets at least the anchors that overlap it most.
        zero_overlap: torchvision's rule for objects that no anchor overlaps, see `match`.
    """

    positive_iou: float
    negative_iou: float
    count: int
    positive_fraction: float
    best_for_each: bool = False
    zero_overlap: bool = False

    def assign(self, candidates: Float[Tensor, "a 4"], target: Target) -> Int64[Tensor, " a"]:
        """Index of each candidate's object, or NEGATIVE, or IGNORED."""
        matched = match(
            candidates,
            target.boxes,
            positive_iou=self.positive_iou,
            negative_iou=self.negative_iou,
            best_for_each=self.best_for_each,
            zero_overlap=self.zero_overlap,
        )
        if len(target.ignored):
            matched[(matched == NEGATIVE) & inside_ignored(candidates, target.ignored)] = IGNORED
        return matched

    def sample(self, matched: Int64[Tensor, " a"], generator: torch.Generator | None) -> Int64[Tensor, " s"]:
        """Indices of the candidates that take part in the loss, sorted."""
        return sample_balanced(
            matched >= 0,
            matched == NEGATIVE,
            count=self.count,
            positive_fraction=self.positive_fraction,
            generator=generator,
        )


@dataclass(frozen=True)
class RegionSample:
    """Regions of one image that take part in the second stage's losses.

    Attributes:
        boxes: the regions.
        labels: 0..K-1, or K for background.
        target_boxes: the object each region belongs to; a copy of the region for background.
    """

    boxes: Float[Tensor, "r 4"]
    labels: Int64[Tensor, " r"]
    target_boxes: Float[Tensor, "r 4"]


def sample_regions(
    proposals: Proposals,
    target: Target,
    assigner: Assigner,
    num_classes: int,
    generator: torch.Generator | None = None,
) -> RegionSample:
    """Draw regions from the proposals and the ground truth itself, which is always a good proposal."""
    candidates = torch.cat([proposals.boxes, target.boxes])
    matched = assigner.assign(candidates, target)
    chosen = assigner.sample(matched, generator)
    regions, matched = candidates[chosen], matched[chosen]
    positive = matched >= 0
    labels = torch.full_like(matched, num_classes)
    labels[positive] = target.labels[matched[positive]]
    target_boxes = regions.clone()
    target_boxes[positive] = target.boxes[matched[positive]]
    return RegionSample(regions, labels, target_boxes)


def check_targets(targets: Sequence[Target], classes: Sequence[str]) -> None:
    """Refuse targets that would make the losses invalid, naming the image of the batch, the box and the value.

    Raises:
        UsageError: a label outside 0..K-1, a box that is not finite or has no area, or counts that differ.
    """
    for number, target in enumerate(targets):
        where = f"target of image {number} in the batch"
        for name, tensor, dtype in (("boxes", target.boxes, torch.float32), ("labels", target.labels, torch.int64)):
            if tensor.dtype != dtype:
                raise UsageError(f"{where}: {name} are {tensor.dtype}, {dtype} is needed")
        if len(target.boxes) != len(target.labels):
            raise UsageError(f"{where}: {len(target.boxes)} boxes but {len(target.labels)} labels")
        unknown = (target.labels < 0) | (target.labels >= len(classes))
        if unknown.any():
            label = int(target.labels[unknown][0])
            raise UsageError(
                f"{where}: label {label} is not in 0..{len(classes) - 1} ({len(classes)} classes: "
                f"{', '.join(classes[:5])}{', ...' if len(classes) > 5 else ''}); background has no label"
            )
        good = target.boxes.isfinite().all(dim=1) & (boxes.areas(target.boxes) > 0)
        good &= boxes.at_least(target.boxes, 0.0)
        if not good.all():
            index = int((~good).nonzero()[0, 0])
            raise UsageError(
                f"{where}: box {index} is {target.boxes[index].tolist()}; x1 < x2 and y1 < y2 are needed, finite"
            )
