"""Component 3, the proposals generator: the few hundred regions that the second stage classifies.

Axes: b images, a anchors of one level, k candidates, p proposals.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from fasterrcnn.model.stages import Observer
from fasterrcnn.ops import boxes
from fasterrcnn.structures import Proposals


@dataclass(frozen=True)
class ProposalGenerator:
    """Turns scored anchors into proposals (Ren et al. 2015, section 3.1.3; per level: Lin et al. 2017).

    Attributes:
        candidates: best anchors kept of each level before NMS.
        proposals: proposals kept of each image after NMS.
        nms_threshold: IoU above which the lower-scored of two candidates of one level goes.
        min_score: objectness, 0..1, that a proposal needs.
        min_side: pixels of the network input that both sides need; 0 drops only boxes without area.
        ranked_by: what orders the candidates of all levels: "score", which is 1 for many sure ones (torchvision), or
            "logit" (Detectron2).
    """

    candidates: int
    proposals: int
    nms_threshold: float = 0.7
    min_score: float = 0.0
    min_side: float = 1e-3
    ranked_by: Literal["score", "logit"] = "score"

    @torch.no_grad()
    def __call__(
        self,
        logits: Sequence[Float[Tensor, "b _"]],
        deltas: Sequence[Float[Tensor, "b _ 4"]],
        anchors: Sequence[Float[Tensor, "_ 4"]],
        sizes_hw: Sequence[tuple[int, int]],
        *,
        observe: Observer | None = None,
    ) -> list[Proposals]:
        """Proposals of each image, inside the part of it that is not padding; no gradient flows through them."""
        best = [self._best_of_level(*level) for level in zip(logits, deltas, anchors, strict=True)]
        level_of = torch.cat([top.new_full(top.shape[1:], level) for level, (top, _, _) in enumerate(best)])
        logits_of_best = torch.cat([top_logits for _, top_logits, _ in best], dim=1)
        candidates = torch.cat([decoded for _, _, decoded in best], dim=1)
        starts = accumulate((len(level) for level in anchors), initial=0)
        index = torch.cat([start + top for start, (top, _, _) in zip(starts, best, strict=False)], dim=1)
        if observe is not None:
            observe("candidates", index=index, boxes=candidates)
        scores = logits_of_best.sigmoid()
        ranks = scores if self.ranked_by == "score" else logits_of_best
        clipped = [boxes.clip(decoded, size_hw) for decoded, size_hw in zip(candidates, sizes_hw, strict=True)]
        good = [self._are_good(*image) for image in zip(clipped, scores, strict=True)]
        kept = boxes.best_of_each(
            [(*image, level_of, usable) for *image, usable in zip(clipped, ranks, good, strict=True)],
            self.nms_threshold,
            limit=self.proposals if observe is None else level_of.numel(),  # an observer sees all survivors
        )
        proposals = []
        for image_boxes, image_scores, image_good, survivors in zip(clipped, scores, good, kept, strict=True):
            keep = survivors[: self.proposals]
            if observe is not None:
                values = {"boxes": image_boxes, "scores": image_scores, "good": image_good, "survivors": survivors}
                observe("proposals", **values, kept=len(keep))
            proposals.append(Proposals(image_boxes[keep], image_scores[keep]))
        return proposals

    def _best_of_level(
        self, logits: Float[Tensor, "b a"], deltas: Float[Tensor, "b a 4"], anchors: Float[Tensor, "a 4"]
    ) -> tuple[Int64[Tensor, "b k"], Float[Tensor, "b k"], Float[Tensor, "b k 4"]]:
        """Indices, logits and boxes of the best anchors; only these are decoded."""
        top_logits, top = logits.float().topk(min(self.candidates, logits.shape[1]), dim=1)
        top_deltas = deltas.gather(1, top[..., None].expand(-1, -1, 4))
        return top, top_logits, boxes.decode(top_deltas, anchors[top])

    def _are_good(self, candidates: Float[Tensor, "k 4"], scores: Float[Tensor, " k"]) -> Bool[Tensor, " k"]:
        """Which candidates may become proposals at all."""
        has_size = boxes.at_least(candidates, self.min_side) & boxes.have_area(candidates)
        return has_size & (scores >= self.min_score)
