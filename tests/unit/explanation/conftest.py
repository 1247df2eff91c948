"""A detector of real parts whose RPN and head give what a test sets."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fasterrcnn import presets
from fasterrcnn.config import ModelConfig
from fasterrcnn.inference.detector import Detector
from fasterrcnn.model.anchors import AnchorGenerator
from fasterrcnn.model.backbones import Backbone
from fasterrcnn.model.box_head import BoxHead
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.model.losses import RegionLoss, RPNLoss
from fasterrcnn.model.postprocess import PostProcess
from fasterrcnn.model.proposals import ProposalGenerator
from fasterrcnn.model.roi_pooling import RoIPooling
from fasterrcnn.model.rpn import RegionProposalNetwork
from fasterrcnn.model.targets import Assigner
from fasterrcnn.ops import boxes

SIDE, STRIDE, CELLS, ANCHOR = 128, 16, 8, 32
WEIGHTS = (10.0, 10.0, 5.0, 5.0)
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Candidate:
    """The RPN's output for one anchor: anchors are squares of 32 pixels around (16 column, 16 row)."""

    row: int
    column: int
    objectness: float
    box: Box


@dataclass(frozen=True)
class Region:
    """The head's output for one proposal; the order is that of the proposals."""

    proposal: Box
    cat: float
    dog: float
    boxes: dict[int, Box] = field(default_factory=dict)


class _Body(nn.Module):
    channels, strides = (3,), (STRIDE,)

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def stages(self) -> list[nn.Module]:
        return [self]

    def forward(self, pixels):
        return [F.avg_pool2d(pixels, STRIDE) * self.scale]


class _RPN(RegionProposalNetwork):
    def __init__(self, candidates: Sequence[Candidate]) -> None:
        super().__init__(3, 1)
        logits = torch.full((1, CELLS * CELLS), -9.0)
        deltas = torch.zeros(1, CELLS * CELLS, 4)
        for candidate in candidates:
            anchor = torch.tensor([[16.0 * candidate.column, 16.0 * candidate.row] * 2]) + torch.tensor(
                [-16.0, -16, 16, 16]
            )
            index = candidate.row * CELLS + candidate.column
            logits[0, index] = math.log(candidate.objectness / (1 - candidate.objectness))
            deltas[0, index] = boxes.encode(torch.tensor([candidate.box]), anchor)[0]
        self.planted = [logits], [deltas]

    def forward(self, features):
        return self.planted


class _Head(BoxHead):
    def __init__(self, regions: Sequence[Region]) -> None:
        super().__init__(nn.Flatten(), 3 * 7 * 7, 2)
        self.logits = torch.tensor([[r.cat, r.dog, 1 - r.cat - r.dog] for r in regions]).reshape(-1, 3).log()
        self.deltas = torch.zeros(len(regions), 2, 4)
        for row, region in enumerate(regions):
            for label, box in region.boxes.items():
                proposal = torch.tensor([region.proposal])
                self.deltas[row, label] = boxes.encode(torch.tensor([box]), proposal, WEIGHTS)[0]

    def forward(self, pooled):
        assert len(pooled) == len(self.logits), f"{len(pooled)} proposals, {len(self.logits)} were planted"
        return self.logits, self.deltas


def _plant(candidate_rows: Sequence[tuple], region_rows: Sequence[tuple], **changes) -> Detector:
    candidates, regions = [Candidate(*row) for row in candidate_rows], [Region(*row) for row in region_rows]
    limits = {"candidates": len(candidates), "proposals": 100, **changes}
    rpn_assigner = Assigner(0.7, 0.3, 256, 0.5, best_for_each=True)
    model = FasterRCNN(
        classes=("cat", "dog"),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        size_divisor=STRIDE,
        backbone=Backbone(_Body(), nn.Identity(), 3),
        anchors=AnchorGenerator(((float(ANCHOR),),), ((1.0,),), (STRIDE,), rounded=False),
        rpn=_RPN(candidates),
        proposals=ProposalGenerator(**limits),
        training_proposals=ProposalGenerator(**limits),
        roi_pooling=RoIPooling(7, (STRIDE,)),
        box_head=_Head(regions),
        rpn_loss=RPNLoss(rpn_assigner, 1 / 9),
        region_loss=RegionLoss(Assigner(0.5, 0.5, 64, 0.25), WEIGHTS, "smooth_l1", 1 / 9),
        postprocess=PostProcess(),
    )
    config = presets.get("resnet50-c4", ("cat", "dog"))
    input_config = config.input.model_copy(update={"short_side": SIDE, "long_side": SIDE})
    config = config.model_copy(update={"input": input_config, "preset": "planted"})
    detector = Detector(model, config, device="cpu")
    detector._stages = detector.model  # a runtime would leave out the planted outputs
    return detector


@pytest.fixture(scope="session")
def plant() -> Callable[..., Detector]:
    return _plant


@pytest.fixture(scope="session")
def image() -> torch.Tensor:
    """As large as the planted detector's input."""
    return torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def tiny_detector(tiny_config: ModelConfig, tiny_model: FasterRCNN) -> Detector:
    return Detector(tiny_model, tiny_config, device="cpu")
