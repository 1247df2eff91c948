"""Post-processing: from class logits and box deltas of the proposals to detections.

Axes: p proposals, k classes, n detections.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from fasterrcnn.errors import UsageError
from fasterrcnn.model.stages import Observer
from fasterrcnn.ops import boxes
from fasterrcnn.structures import RawDetections

_NmsKind = Literal["class", "agnostic", "soft-linear", "soft-gaussian"]


@dataclass(frozen=True)
class PostProcess:
    """How detections are selected; every field can be changed from call to call.

    Attributes:
        score_threshold: a detection needs a higher score, 0..1.
        nms: "class" suppresses within each class, "agnostic" across classes, the soft kinds lower the scores
            of overlapping boxes of a class instead of dropping them (Bodla et al. 2017).
        nms_threshold: IoU above which the lower-scored box goes; from which "soft-linear" acts.
        soft_sigma: width of "soft-gaussian".
        max_detections: best detections kept of each image.
        classes: labels to report, 0..K-1; None reports all.
        min_side: pixels of the network input that both sides of a box need; with 0, boxes without area take part in NMS
            and in the best ``max_detections``, and are dropped only then (Detectron2).
    """

    score_threshold: float = 0.05
    nms: _NmsKind = "class"
    nms_threshold: float = 0.5
    soft_sigma: float = 0.5
    max_detections: int = 100
    classes: tuple[int, ...] | None = None
    min_side: float = 1e-2

    def __post_init__(self) -> None:
        if self.nms not in get_args(_NmsKind):
            raise UsageError(f"nms is {self.nms!r}; there are {', '.join(get_args(_NmsKind))}")
        for name in ("score_threshold", "nms_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} must lie in 0..1, not {getattr(self, name)}")
        if self.max_detections < 1:
            raise UsageError(f"max_detections must be at least 1, not {self.max_detections}")

    def __call__(
        self,
        logits: Sequence[Float[Tensor, "_ k_and_background"]],
        deltas: Sequence[Float[Tensor, "_ k 4"]],
        proposals: Sequence[Float[Tensor, "_ 4"]],
        sizes_hw: Sequence[tuple[int, int]],
        delta_weights: tuple[float, float, float, float],
        *,
        observe: Observer | None = None,
    ) -> list[RawDetections]:
        """Detections of each image, inside the part of it that is not padding; they lie on the CPU."""
        scored = [
            self._score(*image, delta_weights, observe)
            for image in zip(logits, deltas, proposals, sizes_hw, strict=True)
        ]
        is_soft = self.nms not in ("class", "agnostic")
        if is_soft:  # one box after the other: on a GPU, the CPU would wait for each
            scored = _on_cpu(scored)
        kept = [self._suppress(image) for image in scored]
        selected = _on_cpu(
            [
                RawDetections(image.boxes[keep], kept_scores, image.labels[keep])
                for image, (keep, kept_scores) in zip(scored, kept, strict=True)
            ]
        )
        if not is_soft and self.min_side <= 0:
            has_area = [boxes.have_area(image.boxes) for image in selected]
            selected = [_picked(image, own) for image, own in zip(selected, has_area, strict=True)]
        else:
            has_area = [torch.ones(len(image.boxes), dtype=torch.bool) for image in selected]
        if observe is not None:
            for detections, (keep, _), own in zip(selected, kept, has_area, strict=True):
                observe("detections", kept=keep.cpu()[own], detections=detections)
        return selected

    def _score(
        self,
        logits: Tensor,
        deltas: Tensor,
        proposals: Tensor,
        size_hw: tuple[int, int],
        delta_weights: tuple[float, float, float, float],
        observe: Observer | None,
    ) -> RawDetections:
        """Boxes of one image that are likely and large enough, of every region and class."""
        probabilities = logits.float().softmax(dim=1)[:, :-1]
        wanted = probabilities > self.score_threshold
        if self.classes is not None:
            wanted = wanted & self._allowed(probabilities)
        # Only boxes above the threshold are decoded: they are few of p x k.
        rows, labels = wanted.nonzero().unbind(1)
        decoded = boxes.clip(boxes.decode(deltas[rows, labels], proposals[rows], delta_weights), size_hw)
        good = boxes.at_least(decoded, self.min_side).nonzero()[:, 0]
        rows, labels = rows[good], labels[good]
        scored = RawDetections(decoded[good], probabilities[rows, labels], labels)
        if observe is not None:
            observe("scored", rows=rows, labels=labels, scores=scored.scores, boxes=scored.boxes)
        return scored

    def _allowed(self, probabilities: Float[Tensor, "p k"]) -> Bool[Tensor, " k"]:
        """Which classes are reported."""
        count = probabilities.shape[1]
        allowed = torch.zeros(count, dtype=torch.bool, device=probabilities.device)
        for label in self.classes or ():
            if not 0 <= label < count:
                raise UsageError(f"there is no class {label}; labels lie in 0..{count - 1}")
            allowed[label].fill_(True)  # an assignment would copy the value to a GPU
        return allowed

    def _suppress(self, scored: RawDetections) -> tuple[Int64[Tensor, " n"], Float[Tensor, " n"]]:
        """Indices of the boxes that stay, and their scores, which soft NMS has lowered."""
        if self.nms in ("class", "agnostic"):
            groups = scored.labels if self.nms == "class" else torch.zeros_like(scored.labels)
            keep = boxes.nms(scored.boxes, scored.scores, groups, self.nms_threshold)[: self.max_detections]
            return keep, scored.scores[keep]
        return boxes.soft_nms(
            scored.boxes,
            scored.scores,
            scored.labels,
            method=self.nms.removeprefix("soft-"),
            threshold=self.nms_threshold,
            sigma=self.soft_sigma,
            min_score=self.score_threshold,
            limit=self.max_detections,
        )


def _on_cpu(detections: Sequence[RawDetections]) -> list[RawDetections]:
    """The same detections on the CPU, where one copy brings those of all images."""
    if all(image.boxes.device.type == "cpu" for image in detections):
        return list(detections)
    rows = [torch.cat([d.boxes, d.scores[:, None], d.labels[:, None].float()], dim=1) for d in detections]
    copied = torch.split(torch.cat(rows).cpu(), [len(part) for part in rows])
    return [RawDetections(part[:, :4], part[:, 4], part[:, 5].long()) for part in copied]


def _picked(detections: RawDetections, index: Tensor) -> RawDetections:
    return RawDetections(detections.boxes[index], detections.scores[index], detections.labels[index])


def to_frame(detections: RawDetections, from_hw: tuple[int, int], to_hw: tuple[int, int]) -> RawDetections:
    """Detections in an image of one size as detections in the same image at another size, clipped to it."""
    xyxy = boxes.clip(boxes.scale(detections.boxes.float(), from_hw, to_hw), to_hw)
    return RawDetections(xyxy, detections.scores.float(), detections.labels)
