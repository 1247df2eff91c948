"""Pictures of the second stage: regions and their pooled maps, class scores, NMS, detections; counts and times.

Each function stands alone. Boxes are xyxy in pixels of the network input.
"""

import dataclasses
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from fasterrcnn.drawing import Pen, colour_of, contact_sheet, draw_boxes, draw_marks
from fasterrcnn.explanation.figures import (
    GREY,
    LEVELS,
    VIEW,
    WIDE,
    Bar,
    Figure,
    Panel,
    counted,
    draw_bars,
    each,
    headed,
    heat_colours,
    log_share,
    marks,
    norms,
    to_unit,
    view,
    view_scale,
)
from fasterrcnn.explanation.trace import STEPS, Trace
from fasterrcnn.model.roi_pooling import as_rois

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
    """The detections on the original picture."""
    found = trace.detections
    scale = WIDE / trace.picture.width
    large = trace.picture.resize((WIDE, max(1, round(trace.picture.height * scale))))
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
