"""Everything that an image went through in one run of a detector: the very tensors, counts and times.

Axes: k candidates, p proposals, n scored boxes, s shown regions, c channels.
Boxes are xyxy in pixels of the network input unless a name says otherwise.
"""

from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int64
from PIL import Image
from torch import Tensor

from fasterrcnn.detections import Detections
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.model.postprocess import PostProcess
from fasterrcnn.structures import ImageBatch, RawDetections

STEPS = {
    "body": "backbone: backbone",
    "features": "backbone: neck",
    "rpn": "region proposal network",
    "anchors": "anchors",
    "candidates": "best anchors, decoded",
    "proposals": "NMS of proposals",
    "pooled": "RoI pooling",
    "head": "box head",
    "scored": "class boxes, decoded",
    "detections": "NMS of detections",
}
"""The steps of a run in their order, and what they are called on a page."""


@dataclass(frozen=True)
class Trace:
    """One run on one image. Tensors are on the CPU.

    Attributes:
        image: the original, upright, RGB.
        source: its file, where there is one.
        preset: name of the architecture.
        model: the network that ran.
        rules: how detections were selected.
        batch: the network input, padding included.
        body_maps: of the backbone's backbone, finest first, each (c, h, w).
        maps: of the backbone, finest first, each (c, h, w).
        logits: objectness of the anchors of each level.
        anchors: of each level.
        candidate_index: which of all anchors, level after level, are the best of their level.
        candidate_scores: their objectness, 0..1.
        candidates: their boxes, decoded and clipped.
        good: which candidates are large and likely enough.
        survivors: candidates that NMS left, by falling score; the first ``len(proposals)`` went on.
        proposals: the regions of the second stage.
        shown: which proposals are worth showing: those behind the best detections, then the likeliest that show
            something else.
        pooled: their maps after RoI pooling.
        class_logits: of every proposal, background last.
        scored_rows: proposal of each scored box.
        scored: boxes of every proposal and class above the score threshold.
        kept: which of them are detections.
        found: the detections.
        detections: the same in the original's pixels.
        seconds: of each of `STEPS`.
        shapes: of the tensors, by name.
    """

    image: Image.Image
    source: Path | None
    preset: str
    model: FasterRCNN
    rules: PostProcess
    batch: ImageBatch
    body_maps: list[Float[Tensor, "_ _ _"]]
    maps: list[Float[Tensor, "_ _ _"]]
    logits: list[Float[Tensor, " _"]]
    anchors: list[Float[Tensor, "_ 4"]]
    candidate_index: Int64[Tensor, " k"]
    candidate_scores: Float[Tensor, " k"]
    candidates: Float[Tensor, "k 4"]
    good: Bool[Tensor, " k"]
    survivors: Int64[Tensor, " _"]
    proposals: Float[Tensor, "p 4"]
    shown: Int64[Tensor, " s"]
    pooled: Float[Tensor, "s _ _ _"]
    class_logits: Float[Tensor, "p _"]
    scored_rows: Int64[Tensor, " n"]
    scored: RawDetections
    kept: Int64[Tensor, " _"]
    found: RawDetections
    detections: Detections
    seconds: dict[str, float]
    shapes: dict[str, tuple[int, ...]]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names; label i means ``classes[i]``."""
        return self.detections.classes

    @property
    def input_hw(self) -> tuple[int, int]:
        """Height and width of the network input without padding."""
        return self.batch.sizes_hw[0]

    @property
    def original_hw(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.detections.image_hw

    @property
    def probabilities(self) -> Float[Tensor, "p _"]:
        """What the head says about every proposal, background last; rows add up to 1."""
        return self.class_logits.softmax(dim=1)

    @property
    def candidate_levels(self) -> Int64[Tensor, " k"]:
        """Level of each candidate's anchor."""
        ends = torch.tensor(list(accumulate(len(level) for level in self.anchors)))
        return torch.searchsorted(ends, self.candidate_index, right=True)

    @property
    def strides(self) -> list[int]:
        """Pixels of the input between the anchors of each level, from top to bottom, as the generator spaces them."""
        fixed = self.model.anchors.strides
        return list(fixed or (self.batch.padded_hw[0] // level.shape[-2] for level in self.maps))

    @property
    def funnel(self) -> dict[str, int]:
        """How many boxes were left after each step."""
        return {
            "anchors": sum(len(level) for level in self.anchors),
            "best of each level": len(self.candidates),
            "large and likely enough": int(self.good.sum()),
            "left by NMS": len(self.survivors),
            "proposals": len(self.proposals),
            "boxes, one a class": len(self.proposals) * len(self.classes),
            f"score above {self.rules.score_threshold:g}": len(self.scored.boxes),
            "detections": len(self.found.boxes),
        }
