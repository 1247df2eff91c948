"""The target of each anchor and each region: assignment and sampling.

Axes: a anchors of an image, g ground truth, r sampled regions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from fasterrcnn.errors import UsageError
from fasterrcnn.ops import boxes
from fasterrcnn.ops.matching import IGNORED, NEGATIVE, BalancedSample, inside_ignored, match, sample_balanced
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
            inside = inside_ignored(candidates, target.ignored)
            matched.masked_fill_((matched == NEGATIVE) & inside, IGNORED)
        return matched

    def sample(self, matched: Int64[Tensor, " a"], generator: torch.Generator | None) -> BalancedSample:
        """The candidates that take part in the loss."""
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
    chosen = assigner.sample(matched, generator).sorted()
    regions, matched = candidates[chosen], matched[chosen]
    labels = torch.full_like(matched, num_classes)
    if len(target.labels):
        labels = torch.where(matched >= 0, target.labels[matched.clamp(min=0)], labels)
    return RegionSample(regions, labels, boxes_of(matched, target.boxes, regions))


def boxes_of(
    matched: Int64[Tensor, " a"], gt_boxes: Float[Tensor, "g 4"], candidates: Float[Tensor, "a 4"]
) -> Float[Tensor, "a 4"]:
    """The box of the object that each candidate belongs to; the candidate itself where it belongs to none."""
    if not len(gt_boxes):
        return candidates
    return torch.where(matched[:, None] >= 0, gt_boxes[matched.clamp(min=0)], candidates)


def check_targets(targets: Sequence[Target], classes: Sequence[str]) -> None:
    """Refuse targets that would make the losses invalid, naming the image of the batch, the box and the value.

    Raises:
        UsageError: a label outside 0..K-1, a box that is not finite or has no area, or counts that differ.
    """
    where = "target of image {} in the batch"
    for number, target in enumerate(targets):
        for name, tensor, dtype in (("boxes", target.boxes, torch.float32), ("labels", target.labels, torch.int64)):
            if tensor.dtype != dtype:
                raise UsageError(f"{where.format(number)}: {name} are {tensor.dtype}, {dtype} is needed")
        if len(target.boxes) != len(target.labels):
            raise UsageError(f"{where.format(number)}: {len(target.boxes)} boxes but {len(target.labels)} labels")
    if not targets or _are_valid(targets, len(classes)):
        return
    for number, target in enumerate(targets):
        for label in target.labels.tolist():
            if not 0 <= label < len(classes):
                raise UsageError(
                    f"{where.format(number)}: label {label} is not in 0..{len(classes) - 1} ({len(classes)} classes: "
                    f"{', '.join(classes[:5])}{', ...' if len(classes) > 5 else ''}); background has no label"
                )
        for index, good in enumerate(_are_boxes(target.boxes).tolist()):
            if not good:
                raise UsageError(
                    f"{where.format(number)}: box {index} is {target.boxes[index].tolist()}; x1 < x2 and y1 < y2 are "
                    "needed, finite"
                )


def _are_valid(targets: Sequence[Target], classes: int) -> bool:
    """Whether all labels and boxes of a batch are valid; to know it, the CPU waits once for a GPU."""
    labels = torch.cat([target.labels for target in targets])
    good_boxes = _are_boxes(torch.cat([target.boxes for target in targets]))
    return bool((labels >= 0).all() & (labels < classes).all() & good_boxes.all())


def _are_boxes(xyxy: Float[Tensor, "n 4"]) -> Bool[Tensor, " n"]:
    """Which are finite and have an area."""
    return xyxy.isfinite().all(dim=1) & boxes.have_area(xyxy) & (boxes.areas(xyxy) > 0)
