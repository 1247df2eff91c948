"""Images of what became of the true objects: all of them on one view, and a close look at each that was lost.

Boxes are xyxy in pixels of the network input.
"""

from collections.abc import Sequence

from PIL import Image

from fasterrcnn.explanation.diagnosis import Verdict
from fasterrcnn.explanation.evidence import Kind
from fasterrcnn.explanation.figures import OUTSIDE, VIEW, Figure, Panel, counted, view, view_scale
from fasterrcnn.explanation.trace import Trace
from fasterrcnn.reporting.drawing import Colour, Edges, Mark, Pen, add_legend, draw_marks

COLOURS: dict[Kind, Colour] = {
    "found": (40, 170, 70),
    "no anchor": (20, 20, 20),
    "low objectness": (120, 60, 190),
    "proposal NMS": (0, 120, 220),
    "misclassified": (230, 0, 140),
    "low score": (240, 150, 0),
    "badly localised": (150, 90, 30),
    "detection NMS": (220, 30, 30),
    "merged": (0, 160, 160),
}
PENS = {
    "object": Pen((0, 190, 80)),
    "anchor": Pen((240, 170, 0), dashed=True),
    "proposal": Pen((80, 150, 255), dashed=True),
    "scored box": Pen((230, 40, 40)),
}
_CLOSE = 470
_MOST = 24


def draw_verdicts(trace: Trace, verdicts: Sequence[Verdict]) -> Figure:
    """Every true object, numbered, in the colour of its verdict."""
    scale = 2 * view_scale(trace)
    # What was lost is drawn last, on top.
    ordered = sorted(verdicts, key=lambda verdict: verdict.kind != "found")
    drawn = []
    for verdict in ordered:
        said = "" if verdict.kind == "found" else f" {verdict.kind}"
        box = _moved(verdict.box, 0.0, 0.0, scale)
        drawn.append(Mark(box, Pen(COLOURS[verdict.kind]), f"{verdict.number}{said}"))
    found = sum(verdict.kind == "found" for verdict in verdicts)
    caption = f"{found} of {counted(len(verdicts), 'object')} found"
    return Figure("16-verdicts", (Panel(caption, draw_marks(view(trace, 2 * VIEW), drawn)),), columns=1)


def draw_lost(trace: Trace, verdicts: Sequence[Verdict]) -> Figure | None:
    """A close look at objects that were lost, with the best box of some steps; None where none was lost."""
    lost = [verdict for verdict in verdicts if verdict.kind != "found"][:_MOST]
    if not lost:
        return None
    panels = [Panel(f"{v.number}: {v.name}, {v.kind}", draw_close(trace, v)) for v in lost]
    return Figure("17-lost", tuple(panels), columns=3)


def draw_close(trace: Trace, verdict: Verdict) -> Image.Image:
    """One object and its surroundings, with the best anchor, proposal and scored box there was for it."""
    x1, y1, x2, y2 = verdict.box
    half = 1.1 * max(x2 - x1, y2 - y1, 16)
    left, top = (x1 + x2) / 2 - half, (y1 + y2) / 2 - half
    scale = _CLOSE / (2 * half)
    width = trace.input_hw[1]
    side = max(1, round(2 * half))
    window = Image.new("RGB", (side, side), OUTSIDE)
    window.paste(view(trace, width), (-round(left), -round(top)))
    close = window.resize((_CLOSE, _CLOSE), Image.Resampling.BICUBIC)
    boxes = {"object": verdict.box, **verdict.best}
    drawn = [
        Mark(_moved(box, left, top, scale), pen) for name, pen in PENS.items() if (box := boxes.get(name)) is not None
    ]
    return add_legend(draw_marks(close, drawn), PENS)


def _moved(box: Edges, left: float, top: float, scale: float) -> Edges:
    x1, y1, x2, y2 = box
    return (x1 - left) * scale, (y1 - top) * scale, (x2 - left) * scale, (y2 - top) * scale
