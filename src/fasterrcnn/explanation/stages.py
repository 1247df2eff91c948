"""Images of the first stage: input, feature maps, anchors, objectness, proposals. Each function stands alone.

Axes: g objects. Boxes are xyxy in pixels of the network input.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from fasterrcnn.explanation.figures import (
    GREY,
    LEVELS,
    OUTSIDE,
    VIEW,
    WHITE,
    WIDE,
    Bar,
    Figure,
    Panel,
    counted,
    draw_bars,
    draw_scores,
    each,
    headed,
    heat_colours,
    heat_map,
    log_share,
    marks,
    norms,
    to_pil,
    to_unit,
    view,
    view_scale,
)
from fasterrcnn.explanation.trace import STEPS, Trace
from fasterrcnn.model.roi_pooling import as_rois
from fasterrcnn.reporting.drawing import Mark, Pen, colour_of, contact_sheet, draw_boxes, draw_marks
from fasterrcnn.structures import Target

COUNTS = (10, 100, 1000)
_CHANNELS = 6
_SMALL = 360
_MARGIN = 80


def draw_input(trace: Trace) -> Figure:
    """The image, and what the network gets: resized, and padded to a multiple of the stride."""
    original = trace.image.copy()
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
            Panel(f"the image: {full_w} x {full_h} pixels", original),
            Panel(
                f"the network input: {width} x {height}, padded to {padded.width} x {padded.height}",
                draw_marks(shown, edge),
            ),
        ),
    )


def draw_body(trace: Trace) -> Figure:
    """How strongly each cell of the backbone's maps answers."""
    return Figure("02-body", _norm_panels(trace, trace.body_maps, trace.model.backbone.strides))


def draw_features(trace: Trace) -> Figure:
    """The same of the maps that the two stages work with: those of the neck, or the backbone's own."""
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


def draw_matched(trace: Trace, ground_truths: Target) -> Figure:
    """The anchors that training would match with each true object, in the object's colour."""
    anchors = torch.cat(trace.anchors)
    assigner = trace.model.rpn_loss.assigner
    matched = assigner.assign(anchors, ground_truths)
    positive = (matched >= 0).nonzero()[:, 0]
    scale = view_scale(trace, WIDE)
    pens = [Pen(colour_of(int(number))) for number in matched[positive]]
    thick = marks(ground_truths.boxes, [Pen(WHITE)] * len(ground_truths.boxes), scale=scale)
    drawn = [*marks(anchors[positive], pens, scale=scale), *thick]
    objects = counted(len(ground_truths.boxes), "object")
    caption = f"{len(positive)} of {len(anchors):,} anchors are matched with {objects} (white)"
    return Figure("06-matched", (Panel(caption, draw_marks(view(trace, WIDE), drawn)),), columns=1)


def draw_objectness(trace: Trace) -> Figure:
    """The highest objectness of each cell's anchors, laid over the image."""
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


_CELL = 178
_CLASSES = 4


def draw_regions(trace: Trace) -> Figure:
    """Where the shown regions lie, and from which level their features are taken."""
    regions = trace.proposals[trace.shown]
    levels = region_levels(trace)
    pens = [Pen(LEVELS[level % len(LEVELS)]) for level in levels]
    captions = [f"{number} L{level}" for number, level in enumerate(levels, start=1)]
    drawn = draw_marks(view(trace, WIDE), marks(regions, pens, captions, scale=view_scale(trace, WIDE)))
    caption = f"{len(regions)} of {len(trace.proposals)} regions; L0 is the finest level"
    return Figure("09-regions", (Panel(caption, drawn),), columns=1)


def draw_pooling(trace: Trace) -> Figure:
    """Each shown region: its pixels, its features after RoIPool and after RoIAlign, each in its own scale of colours.

    One of the two is what the network worked with; the other is made by the same component with the other method.
    """
    pooled = {"pool": pool(trace, "pool"), "align": pool(trace, "align")}
    levels = region_levels(trace)

    def panel(number: int) -> Panel:
        box = trace.proposals[trace.shown[number]]
        maps = {method: norms(values[number]) for method, values in pooled.items()}
        cells = [headed(crop(trace, box).resize((_CELL, _CELL)), "pixels")]
        for method, name in (("pool", "RoIPool"), ("align", "RoIAlign")):
            used = " (used)" if method == trace.model.roi_pooling.method else ""
            cells.append(headed(_cells(maps[method]), name + used))
        width, height = (box[2:] - box[:2]).tolist()
        level = levels[number]
        stride = trace.model.roi_pooling.strides[level]
        caption = f"region {number + 1}: {width:.0f} x {height:.0f} pixels, level {level} (stride {stride})"
        spaced = [ImageOps.expand(cell, 3, fill="white") for cell in cells]
        return Panel(caption, contact_sheet(spaced, 3, background="white"))

    return Figure("10-pooling", each(len(trace.shown), panel, _nothing("no regions")))


def draw_classes(trace: Trace) -> Figure:
    """What the head says about each shown region: the likeliest classes, and background."""
    probabilities = trace.probabilities[trace.shown]

    def panel(number: int) -> Panel:
        own = probabilities[number]
        best = own[:-1].topk(min(_CLASSES, len(trace.classes))).indices.tolist()
        bars = [Bar(trace.classes[k], float(own[k]), f"{own[k]:.2f}", colour_of(k)) for k in best]
        bars.append(Bar("background", float(own[-1]), f"{own[-1]:.2f}", GREY))
        thumb = crop(trace, trace.proposals[trace.shown[number]]).resize((_CELL - 22, _CELL - 22))
        chart = draw_bars(bars, width=VIEW - thumb.width, left=140, size=16)
        sheet = Image.new("RGB", (VIEW, max(thumb.height, chart.height)), "white")
        sheet.paste(thumb, (0, 0))
        sheet.paste(chart, (thumb.width, 0))
        return Panel(f"region {number + 1}", sheet)

    return Figure("11-classes", each(len(trace.shown), panel, _nothing("no regions")))


def draw_suppression(trace: Trace) -> Figure:
    """The boxes of the most frequent classes above the score threshold, and those that NMS leaves."""
    scored = trace.scored
    counts = torch.bincount(scored.labels, minlength=len(trace.classes))
    labels = [label for label in counts.argsort(descending=True).tolist() if counts[label]][:_CLASSES]
    kept = torch.zeros(len(scored.labels), dtype=torch.bool)
    kept[trace.kept] = True

    def panel(number: int) -> Panel:
        label, after = labels[number // 2], number % 2 == 1
        chosen = ((scored.labels == label) & (kept | (not after))).nonzero()[:, 0]
        pens = [Pen(colour_of(label))] * len(chosen)
        captions = [f"{score:.2f}" for score in scored.scores[chosen].tolist()] if after else None
        drawn = draw_marks(view(trace), marks(scored.boxes[chosen], pens, captions, scale=view_scale(trace)))
        threshold = trace.rules.score_threshold
        said = "left by NMS" if after else f"with a score above {threshold:g}"
        return Panel(f"{trace.classes[label]}: {len(chosen)} {said}", drawn)

    nothing = _nothing(f"no class has a score above {trace.rules.score_threshold:g}")
    return Figure("12-suppression", each(2 * len(labels), panel, nothing))


def draw_detections(trace: Trace) -> Figure:
    """The detections on the original image."""
    found = trace.detections
    scale = WIDE / trace.image.width
    large = trace.image.resize((WIDE, max(1, round(trace.image.height * scale))))
    captions = [f"{name} {score:.2f}" for name, score in zip(found.names, found.scores, strict=True)]
    # The best detection is drawn last, on top.
    drawn = draw_boxes(large, found.boxes[::-1] * np.float32(scale), found.labels[::-1], captions[::-1])
    return Figure("13-detections", (Panel(counted(len(found), "detection"), drawn),), columns=1)


def draw_funnel(trace: Trace) -> Figure:
    """How many boxes are left after each step, on a logarithmic scale."""
    funnel = trace.funnel
    bars = [Bar(name, log_share(count, max(funnel.values())), f"{count:,}") for name, count in funnel.items()]
    panel = Panel("boxes that are left (logarithmic scale)", draw_bars(bars, left=230))
    return Figure("14-funnel", (panel,), columns=1)


def draw_times(trace: Trace) -> Figure:
    """The time of each step of this run."""
    longest = max(trace.seconds.values())
    bars = [
        Bar(STEPS[step], seconds / longest, f"{1000 * seconds:.1f} ms", LEVELS[1])
        for step, seconds in trace.seconds.items()
    ]
    total = 1000 * sum(trace.seconds.values())
    return Figure("15-times", (Panel(f"{total:.0f} ms together", draw_bars(bars, left=230)),), columns=1)


def pool(trace: Trace, method: Literal["align", "pool"]) -> Tensor:
    """Pooled maps of the shown regions by that method: those of the run, or made anew by the same component."""
    component = trace.model.roi_pooling
    if method == component.method:
        return trace.pooled
    other = dataclasses.replace(component, method=method)
    return other([level[None].float() for level in trace.maps], as_rois([trace.proposals[trace.shown]]))


def region_levels(trace: Trace) -> list[int]:
    """The feature map that each shown region is taken from, as RoI pooling chooses it."""
    levels: list[int] = trace.model.roi_pooling.levels(as_rois([trace.proposals[trace.shown]])).tolist()
    return levels


def crop(trace: Trace, box: Tensor) -> Image.Image:
    """The pixels of the input inside a box, at least one."""
    height, width = trace.input_hw
    x1, y1 = (min(int(value), side - 1) for value, side in zip(box[:2].tolist(), (width, height), strict=True))
    x2, y2 = (max(low + 1, round(value)) for value, low in zip(box[2:].tolist(), (x1, y1), strict=True))
    return view(trace, width).crop((x1, y1, x2, y2))


def _cells(values: Tensor) -> Image.Image:
    """A small map as squares of one colour each."""
    small = Image.new("RGB", (values.shape[1], values.shape[0]))
    small.putdata(heat_colours(to_unit(values).flatten()))
    return small.resize((_CELL, _CELL), Image.Resampling.NEAREST)


def _nothing(why: str) -> Panel:
    return Panel(why, draw_bars(()))
