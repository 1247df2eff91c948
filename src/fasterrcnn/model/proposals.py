"""Component 3, the proposals generator: the few hundred regions that are worth a closer look.

Axes: b images, a anchors of one level, k candidates, p proposals.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fasterrcnn.ops import boxes
from fasterrcnn.ops.nms import nms
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
    ) -> list[Proposals]:
        """Proposals of each image, inside the part of it that is not padding; no gradient flows through them."""
        best = [self._best_of_level(*level) for level in zip(logits, deltas, anchors, strict=True)]
        level_of = torch.cat([scores.new_full(scores.shape[1:], level) for level, (scores, _) in enumerate(best)])
        logits_of_best = torch.cat([scores for scores, _ in best], dim=1)
        candidates = torch.cat([decoded for _, decoded in best], dim=1)
        return [
            self._suppress(image_boxes, image_logits, level_of.long(), size_hw)
            for image_boxes, image_logits, size_hw in zip(candidates, logits_of_best, sizes_hw, strict=True)
        ]

    def _best_of_level(
        self, logits: Float[Tensor, "b a"], deltas: Float[Tensor, "b a 4"], anchors: Float[Tensor, "a 4"]
    ) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b k 4"]]:
        """Logits and boxes of the best anchors; only these are decoded."""
        top_logits, top = logits.float().topk(min(self.candidates, logits.shape[1]), dim=1)
        top_deltas = deltas.gather(1, top[..., None].expand(-1, -1, 4))
        return top_logits, boxes.decode(top_deltas, anchors[top])

    def _suppress(self, candidates: Tensor, logits: Tensor, levels: Tensor, size_hw: tuple[int, int]) -> Proposals:
        candidates, scores = boxes.clip(candidates, size_hw), logits.sigmoid()
        good = boxes.at_least(candidates, self.min_side) & boxes.have_area(candidates) & (scores >= self.min_score)
        candidates, scores, levels = candidates[good], scores[good], levels[good]
        rank = scores if self.ranked_by == "score" else logits[good]
        keep = nms(candidates, rank, levels, self.nms_threshold)[: self.proposals]
        return Proposals(candidates[keep], scores[keep])
