"""Pictures of the first stage: input, feature maps, anchors, objectness, proposals. Each function stands alone.

Axes: g objects. Boxes are xyxy in pixels of the network input.
"""

from collections.abc import Sequence

import torch
from PIL import ImageOps
from torch import Tensor

from fasterrcnn.drawing import Mark, Pen, colour_of, draw_marks
from fasterrcnn.explanation.figures import (
    LEVELS,
    OUTSIDE,
    VIEW,
    WHITE,
    WIDE,
    Figure,
    Panel,
    counted,
    draw_scores,
    heat_map,
    marks,
    norms,
    to_pil,
    to_unit,
    view,
    view_scale,
)
from fasterrcnn.explanation.trace import Trace
from fasterrcnn.structures import Target

COUNTS = (10, 100, 1000)
_CHANNELS = 6
_SMALL = 360
_MARGIN = 80


def draw_input(trace: Trace) -> Figure:
    """The picture, and what the network gets: resized, and padded to a multiple of the stride."""
    original = trace.picture.copy()
    original.thumbnail((VIEW, 2 * VIEW))
    height, width = trace.input_hw
    padded = to_pil(trace.batch.pixels[0])
    scale = VIEW / padded.width
    shown = padded.resize((VIEW, round(padded.height * scale)))
    edge = [Mark((0.0, 0.0, width * scale - 1, height * scale - 1), Pen(LEVELS[0]))]
    full_h, full_w = trace.original_hw
    return Figure(
        "01-input",
        (
            Panel(f"the picture: {full_w} x {full_h} pixels", original),
            Panel(
                f"the network input: {width} x {height}, padded to {padded.width} x {padded.height}",
                draw_marks(shown, edge),
            ),
        ),
    )


def draw_trunk(trace: Trace) -> Figure:
    """How strongly each cell of the trunk's maps answers."""
    return Figure("02-trunk", _norm_panels(trace, trace.trunk_maps, trace.model.backbone.strides))


def draw_features(trace: Trace) -> Figure:
    """The same of the maps that the two stages work with: those of the neck, or the trunk's own."""
    return Figure("03-features", _norm_panels(trace, trace.maps, trace.strides))


def draw_channels(trace: Trace) -> Figure:
    """The channels of the finest map that differ most from cell to cell."""
    finest = trace.maps[0].float()
    spread = finest.flatten(1).std(dim=1, correction=0)
    chosen = spread.topk(min(_CHANNELS, len(spread))).indices.tolist()
    return Figure(
        "04-channels",
        tuple(
            Panel(f"channel {number} of {len(finest)}", heat_map(trace, to_unit(finest[number]), width=_SMALL))
            for number in chosen
        ),
        columns=3,
    )


def draw_anchors(trace: Trace) -> Figure:
    """The anchors of the cell in the middle of each level, and the centres of all cells."""
    return Figure("05-anchors", tuple(_anchor_panel(trace, level) for level in range(len(trace.anchors))))


def draw_matched(trace: Trace, truths: Target) -> Figure:
    """The anchors that training would match with each true object, in the object's colour."""
    anchors = torch.cat(trace.anchors)
    assigner = trace.model.rpn_loss.assigner
    matched = assigner.assign(anchors, truths)
    positive = (matched >= 0).nonzero()[:, 0]
    scale = view_scale(trace, WIDE)
    pens = [Pen(colour_of(int(number))) for number in matched[positive]]
    thick = marks(truths.boxes, [Pen(WHITE)] * len(truths.boxes), scale=scale)
    drawn = [*marks(anchors[positive], pens, scale=scale), *thick]
    caption = (
        f"{len(positive)} of {len(anchors):,} anchors are matched with {counted(len(truths.boxes), 'object')} (white)"
    )
    return Figure("06-matched", (Panel(caption, draw_marks(view(trace, WIDE), drawn)),), columns=1)


def draw_objectness(trace: Trace) -> Figure:
    """The highest objectness of each cell's anchors, laid over the picture."""
    panels = []
    for level, (logits, maps) in enumerate(zip(trace.logits, trace.maps, strict=True)):
        scores = logits.sigmoid().reshape(*maps.shape[-2:], -1).amax(dim=-1)
        highest = float(scores.max())
        caption = f"level {level}, stride {trace.strides[level]}: highest objectness {highest:.2f}"
        panels.append(Panel(caption, heat_map(trace, scores, over=True)))
    return Figure("07-objectness", tuple(panels))


def draw_proposals(trace: Trace) -> Figure:
    """The best 10, 100 and 1,000 boxes before NMS, and after it."""
    sides = (
        ("before NMS", trace.candidate_scores.argsort(descending=True)),
        ("after NMS", trace.survivors[: len(trace.proposals)]),
    )
    panels = []
    for name, order in sides:
        for count in COUNTS:
            best = order[:count]
            there = f"the best {count:,}" if len(order) >= count else f"all {len(order):,}"
            panels.append(
                Panel(f"{name}: {there}", draw_scores(trace, trace.candidates[best], trace.candidate_scores[best]))
            )
    return Figure("08-proposals", tuple(panels), columns=len(COUNTS))


def _norm_panels(trace: Trace, maps: Sequence[Tensor], strides: Sequence[int]) -> tuple[Panel, ...]:
    panels = []
    for level, (one, stride) in enumerate(zip(maps, strides, strict=True)):
        channels, height, width = one.shape
        caption = f"level {level}, stride {stride}: {channels} channels of {height} x {width} cells"
        panels.append(Panel(caption, heat_map(trace, to_unit(norms(one)))))
    return tuple(panels)


def _anchor_panel(trace: Trace, level: int) -> Panel:
    height, width = trace.maps[level].shape[-2:]
    cells = trace.anchors[level].reshape(height, width, -1, 4)
    stride, scale = trace.strides[level], view_scale(trace, VIEW - 2 * _MARGIN)
    valid_h, valid_w = (-(-side // stride) for side in trace.input_hw)
    middle = cells[min(height, valid_h) // 2, min(width, valid_w) // 2]
    ground = ImageOps.expand(view(trace, VIEW - 2 * _MARGIN, dimmed=True), _MARGIN, fill=OUTSIDE)
    # Every second, third... cell where the dots would run into each other.
    every = max(1, round(10 / (stride * scale)))
    centres = ((cells[..., :2] + cells[..., 2:]) / 2)[:valid_h:every, :valid_w:every].mean(dim=2).flatten(0, 1)
    shift = torch.tensor([_MARGIN, _MARGIN], dtype=torch.float32)
    dots = [Mark((x - 1, y - 1, x + 1, y + 1), Pen((110, 110, 110))) for x, y in (centres * scale + shift).tolist()]
    pens = [Pen(LEVELS[level % len(LEVELS)])] * len(middle)
    boxes = [Mark(tuple(row), pen) for row, pen in zip((middle * scale + shift.repeat(2)).tolist(), pens, strict=True)]
    sides = (middle[:, 2:] - middle[:, :2]).prod(dim=1).sqrt()
    said = ", ".join(dict.fromkeys(f"{side:.0f}" for side in sides.tolist()))
    caption = f"level {level}: {height} x {width} cells x {len(middle)} = {len(trace.anchors[level]):,}; side {said}"
    return Panel(caption, draw_marks(ground, [*dots, *boxes]))
