"""The figures of a run, one function for each stage: from the network input to the objects that were lost.

Each function stands alone. Boxes are xyxy in pixels of the network input.
"""

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from fasterrcnn.explanation.diagnosis import DIAGNOSIS_KINDS, ObjectDiagnosis
from fasterrcnn.explanation.figures import (
    FULL_WIDTH,
    LEVEL_COLOURS,
    OUTSIDE,
    POOLING_NAMES,
    WIDTH,
    Figure,
    Panel,
    cell_colours,
    cell_norms,
    count_text,
    crop_region,
    draw_on_input,
    draw_scores,
    heat_map,
    input_image,
    input_scale,
    levels_of_shown,
    pool_shown,
    to_unit,
)
from fasterrcnn.explanation.trace import STEPS, Trace, to_pil_image
from fasterrcnn.reporting.drawing import (
    GREY,
    WHITE,
    Bar,
    Mark,
    Pen,
    add_header,
    add_legend,
    colour_of,
    contact_sheet,
    draw_bars,
    draw_boxes,
    draw_marks,
)
from fasterrcnn.structures import Target

_PROPOSAL_COUNTS = (10, 100, 1000)
_CHANNELS, _CHANNEL_WIDTH = 6, 360
_ANCHOR_MARGIN = 80  # pixels around the image: anchors reach over its border
_CELL = 178  # side of a region in the figures, in pixels
_CLASSES = 4  # shown of each region
_CLOSE, _MAX_LOST = 470, 24  # side of a close view, in pixels, and how many there are at most
_BAR_LABEL = 230
_CLOSE_PENS = {
    "object": Pen((0, 190, 80)),
    "anchor": Pen((240, 170, 0), dashed=True),
    "proposal": Pen((80, 150, 255), dashed=True),
    "scored box": Pen((230, 40, 40)),
}


def draw_input(trace: Trace) -> Figure:
    """The image, and what the network gets: resized, and padded to a multiple of the stride."""
    original = trace.image.copy()
    original.thumbnail((WIDTH, 2 * WIDTH))
    height, width = trace.input_hw
    padded = to_pil_image(trace.batch.pixels[0])
    scale = WIDTH / padded.width
    shown = padded.resize((WIDTH, round(padded.height * scale)))
    edge = [Mark((0.0, 0.0, width * scale - 1, height * scale - 1), Pen(LEVEL_COLOURS[0]))]
    full_h, full_w = trace.original_hw
    caption = f"the network input: {width} x {height}, padded to {padded.width} x {padded.height}"
    panels = (Panel(f"the image: {full_w} x {full_h} pixels", original), Panel(caption, draw_marks(shown, edge)))
    return Figure("01-input", panels)


def draw_body(trace: Trace) -> Figure | None:
    """How strongly each cell of the maps of the backbone's body answers; None where the runtime does not show them."""
    if not trace.body_maps:
        return None
    return Figure("02-body", _norm_panels(trace, trace.body_maps, trace.model.backbone.strides))


def draw_features(trace: Trace) -> Figure:
    """The same for the maps that the two stages work with: those of the neck, or the backbone's own."""
    return Figure("03-features", _norm_panels(trace, trace.maps, trace.strides))


def draw_channels(trace: Trace) -> Figure:
    """The channels of the finest map that differ most from cell to cell."""
    finest = trace.maps[0].float()
    spread = finest.flatten(1).std(dim=1, correction=0)
    chosen = spread.topk(min(_CHANNELS, len(spread))).indices.tolist()
    heat_maps = (heat_map(trace, to_unit(finest[k]), width=_CHANNEL_WIDTH) for k in chosen)
    panels = [Panel(f"channel {k} of {len(finest)}", heat) for k, heat in zip(chosen, heat_maps, strict=True)]
    return Figure("04-channels", tuple(panels), columns=3)


def draw_anchors(trace: Trace) -> Figure:
    """The anchors of the cell in the middle of each level, and the centres of all cells."""
    return Figure("05-anchors", tuple(_anchor_panel(trace, level) for level in range(len(trace.anchors))))


def draw_matched(trace: Trace, ground_truth: Target) -> Figure:
    """The anchors that training would match with each annotated object, in the object's colour."""
    anchors = torch.cat(trace.anchors)
    assigner = trace.model.rpn_loss.assigner
    matched = assigner.assign(anchors, ground_truth)
    positive = (matched >= 0).nonzero()[:, 0]
    pens = [Pen(colour_of(int(number))) for number in matched[positive]] + [Pen(WHITE)] * len(ground_truth.boxes)
    drawn = draw_on_input(trace, torch.cat([anchors[positive], ground_truth.boxes]), pens, width=FULL_WIDTH)
    objects = count_text(len(ground_truth.boxes), "object")
    caption = f"{len(positive)} of {len(anchors):,} anchors are matched with {objects} (white)"
    return _single("06-matched", caption, drawn)


def draw_objectness(trace: Trace) -> Figure:
    """The highest objectness of each cell's anchors, laid over the image."""
    panels = []
    for level, (logits, grid_hw) in enumerate(zip(trace.logits, trace.grids_hw, strict=True)):
        scores = logits.sigmoid().reshape(*grid_hw, -1).amax(dim=-1)
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
        for count in _PROPOSAL_COUNTS:
            best = order[:count]
            which = f"the best {count:,}" if len(order) >= count else f"all {len(order):,}"
            drawn = draw_scores(trace, trace.candidates[best], trace.candidate_scores[best])
            panels.append(Panel(f"{name}: {which}", drawn))
    return Figure("08-proposals", tuple(panels), columns=len(_PROPOSAL_COUNTS))


def _norm_panels(trace: Trace, maps: Sequence[Tensor], strides: Sequence[int]) -> tuple[Panel, ...]:
    panels = []
    for level, (level_maps, stride) in enumerate(zip(maps, strides, strict=False)):
        channels, height, width = level_maps.shape
        caption = f"level {level}, stride {stride}: {channels} channels of {height} x {width} cells"
        panels.append(Panel(caption, heat_map(trace, to_unit(cell_norms(level_maps)))))
    return tuple(panels)


def _anchor_panel(trace: Trace, level: int) -> Panel:
    height, width = trace.grids_hw[level]
    cells = trace.anchors[level].reshape(height, width, -1, 4)
    inner = WIDTH - 2 * _ANCHOR_MARGIN
    stride, scale = trace.strides[level], input_scale(trace, inner)
    valid_h, valid_w = (-(-side // stride) for side in trace.input_hw)
    middle = cells[min(height, valid_h) // 2, min(width, valid_w) // 2]
    background = ImageOps.expand(input_image(trace, inner, dimmed=True), _ANCHOR_MARGIN, fill=OUTSIDE)
    # Every second, third... cell where the dots would run into each other.
    every = max(1, round(10 / (stride * scale)))
    centres = ((cells[..., :2] + cells[..., 2:]) / 2)[:valid_h:every, :valid_w:every].mean(dim=2).flatten(0, 1)
    places, xyxy = centres * scale + _ANCHOR_MARGIN, middle * scale + _ANCHOR_MARGIN
    dots = [Mark((x - 1, y - 1, x + 1, y + 1), Pen((110, 110, 110))) for x, y in places.tolist()]
    boxes = [Mark(tuple(row), _level_pen(level)) for row in xyxy.tolist()]
    sides = (middle[:, 2:] - middle[:, :2]).prod(dim=1).sqrt()
    side_names = ", ".join(dict.fromkeys(f"{side:.0f}" for side in sides.tolist()))
    count = f"{height} x {width} cells x {len(middle)} = {len(trace.anchors[level]):,}"
    return Panel(f"level {level}: {count}; side {side_names}", draw_marks(background, [*dots, *boxes]))


def draw_regions(trace: Trace) -> Figure:
    """Where the shown regions lie, and from which level their features are taken."""
    regions = trace.proposals[trace.shown]
    levels = levels_of_shown(trace)
    captions = [f"{number} L{level}" for number, level in enumerate(levels, start=1)]
    drawn = draw_on_input(trace, regions, [*map(_level_pen, levels)], captions, width=FULL_WIDTH)
    caption = f"{len(regions)} of {len(trace.proposals)} regions; L0 is the finest level"
    return _single("09-regions", caption, drawn)


def _level_pen(level: int) -> Pen:
    return Pen(LEVEL_COLOURS[level % len(LEVEL_COLOURS)])


def draw_pooling(trace: Trace) -> Figure:
    """Each shown region: its pixels, its features after RoIPool and after RoIAlign, each in its own scale of colours.

    One of the two is what the network worked with; the other is made by the same component with the other method.
    """
    pooled = {method: pool_shown(trace, method) for method in POOLING_NAMES}
    panels = []
    for number, level in enumerate(levels_of_shown(trace)):
        box = trace.proposals[trace.shown[number]]
        cells = [add_header(crop_region(trace, box).resize((_CELL, _CELL)), "pixels")]
        for method, name in POOLING_NAMES.items():
            used = " (used)" if method == trace.model.roi_pooling.method else ""
            cells.append(add_header(cell_colours(cell_norms(pooled[method][number]), _CELL), name + used))
        width, height = (box[2:] - box[:2]).tolist()
        stride = trace.model.roi_pooling.strides[level]
        caption = f"region {number + 1}: {width:.0f} x {height:.0f} pixels, level {level} (stride {stride})"
        spaced = [ImageOps.expand(cell, 3, fill="white") for cell in cells]
        panels.append(Panel(caption, contact_sheet(spaced, 3, background="white")))
    return Figure("10-pooling", tuple(panels) or _nothing("no regions"))


def draw_classes(trace: Trace) -> Figure:
    """The head's probabilities for each shown region: the likeliest classes, and background."""
    panels = []
    for number, own in enumerate(trace.probabilities[trace.shown]):
        best = own[:-1].topk(min(_CLASSES, len(trace.classes))).indices.tolist()
        bars = [Bar(trace.classes[k], float(own[k]), f"{own[k]:.2f}", colour_of(k)) for k in best]
        bars.append(Bar("background", float(own[-1]), f"{own[-1]:.2f}", GREY))
        thumb = crop_region(trace, trace.proposals[trace.shown[number]]).resize((_CELL - 22, _CELL - 22))
        chart = draw_bars(bars, width=WIDTH - thumb.width, left=140, size=16)
        sheet = Image.new("RGB", (WIDTH, max(thumb.height, chart.height)), "white")
        sheet.paste(thumb, (0, 0))
        sheet.paste(chart, (thumb.width, 0))
        panels.append(Panel(f"region {number + 1}", sheet))
    return Figure("11-classes", tuple(panels) or _nothing("no regions"))


def draw_suppression(trace: Trace) -> Figure:
    """The boxes of the most frequent classes above the score threshold, and those that NMS leaves."""
    scored, above = trace.scored, f"a score above {trace.postprocess.score_threshold:g}"
    counts = torch.bincount(scored.labels, minlength=len(trace.classes))
    labels = [label for label in counts.argsort(descending=True).tolist() if counts[label]][:_CLASSES]
    kept = torch.zeros(len(scored.labels), dtype=torch.bool)
    kept[trace.kept] = True
    panels = []
    for label, after in product(labels, (False, True)):
        chosen = ((scored.labels == label) & (kept | (not after))).nonzero()[:, 0]
        pens = [Pen(colour_of(label))] * len(chosen)
        captions = [f"{score:.2f}" for score in scored.scores[chosen].tolist()] if after else None
        state = "left by NMS" if after else f"with {above}"
        drawn = draw_on_input(trace, scored.boxes[chosen], pens, captions)
        panels.append(Panel(f"{trace.classes[label]}: {len(chosen)} {state}", drawn))
    return Figure("12-suppression", tuple(panels) or _nothing(f"no class has {above}"))


def draw_detections(trace: Trace) -> Figure:
    """The detections on the original image."""
    detections = trace.detections
    scale = FULL_WIDTH / trace.image.width
    large = trace.image.resize((FULL_WIDTH, max(1, round(trace.image.height * scale))))
    captions = [f"{name} {score:.2f}" for name, score in zip(detections.names, detections.scores, strict=True)]
    # The best detection is drawn last, on top.
    drawn = draw_boxes(large, detections.boxes[::-1] * np.float32(scale), detections.labels[::-1], captions[::-1])
    return _single("13-detections", count_text(len(detections), "detection"), drawn)


def draw_funnel(trace: Trace) -> Figure:
    """How many boxes are left after each step, on a logarithmic scale."""
    funnel = trace.funnel
    largest = math.log1p(max(1, *funnel.values()))
    bars = [Bar(name, math.log1p(count) / largest, f"{count:,}") for name, count in funnel.items()]
    chart = draw_bars(bars, width=WIDTH, left=_BAR_LABEL)
    return _single("14-funnel", "boxes that are left (logarithmic scale)", chart)


def draw_times(trace: Trace) -> Figure:
    """The time of each step of this run."""
    longest = max(trace.seconds.values())
    bars = [
        Bar(STEPS[step], seconds / longest, f"{1000 * seconds:.1f} ms", LEVEL_COLOURS[1])
        for step, seconds in trace.seconds.items()
    ]
    total = 1000 * sum(trace.seconds.values())
    return _single("15-times", f"{total:.0f} ms together", draw_bars(bars, width=WIDTH, left=_BAR_LABEL))


def _single(name: str, caption: str, image: Image.Image) -> Figure:
    return Figure(name, (Panel(caption, image),), columns=1)


def _nothing(why: str) -> tuple[Panel]:
    return (Panel(why, draw_bars((), width=WIDTH)),)


def draw_diagnoses(trace: Trace, diagnoses: Sequence[ObjectDiagnosis]) -> Figure:
    """Every annotated object, numbered, in the colour of its diagnosis."""
    # Objects that were lost are drawn last, on top.
    ordered = sorted(diagnoses, key=lambda diagnosis: diagnosis.kind != "found")
    pens = [Pen(DIAGNOSIS_KINDS[item.kind].colour) for item in ordered]
    captions = [f"{item.number}{'' if item.kind == 'found' else f' {item.kind}'}" for item in ordered]
    xyxy = torch.tensor([item.box for item in ordered]).reshape(-1, 4)
    drawn = draw_on_input(trace, xyxy, pens, captions, width=2 * WIDTH)
    count = sum(diagnosis.kind == "found" for diagnosis in diagnoses)
    return _single("16-diagnoses", f"{count} of {count_text(len(diagnoses), 'object')} found", drawn)


def draw_lost(trace: Trace, diagnoses: Sequence[ObjectDiagnosis]) -> Figure | None:
    """A close view of each object that was lost, with the best box of some steps; None where none was lost."""
    lost = [diagnosis for diagnosis in diagnoses if diagnosis.kind != "found"][:_MAX_LOST]
    if not lost:
        return None
    panels = [Panel(f"{item.number}: {item.name}, {item.kind}", draw_close(trace, item)) for item in lost]
    return Figure("17-lost", tuple(panels), columns=3)


def draw_close(trace: Trace, diagnosis: ObjectDiagnosis) -> Image.Image:
    """One object and its surroundings, with the best anchor, proposal and scored box there was for it."""
    x1, y1, x2, y2 = diagnosis.box
    half = 1.1 * max(x2 - x1, y2 - y1, 16)
    left, top = (x1 + x2) / 2 - half, (y1 + y2) / 2 - half
    scale, side = _CLOSE / (2 * half), max(1, round(2 * half))
    window = Image.new("RGB", (side, side), OUTSIDE)
    window.paste(input_image(trace, trace.input_hw[1]), (-round(left), -round(top)))
    close = window.resize((_CLOSE, _CLOSE), Image.Resampling.BICUBIC)
    boxes = {"object": diagnosis.box, **diagnosis.best}
    drawn = []
    for name in (name for name in _CLOSE_PENS if name in boxes):
        x1, y1, x2, y2 = boxes[name]
        moved = (x1 - left) * scale, (y1 - top) * scale, (x2 - left) * scale, (y2 - top) * scale
        drawn.append(Mark(moved, _CLOSE_PENS[name]))
    return add_legend(draw_marks(close, drawn), _CLOSE_PENS)
