"""Charts and tables for pages and terminals.

Charts are inline SVG: no script, no file beside the page, right on light and on dark paper. Lines and letters take the
colour of the text around them; the colours of marks can be read on either paper.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from jinja2 import Environment
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Number = int | float

COLOURS = ("#3b82f6", "#f97316", "#10b981", "#a855f7")

_WIDTH, _HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 36, 48
_ROW = 22  # pixels of a horizontal bar and the gap below it


@dataclass(frozen=True)
class Table:
    """Cells of text under a title."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Listing:
    """Text that stands as it is, such as a file, under a title."""

    title: str
    text: str


Part = Markup | Table | Listing
"""What a page is made of; `Markup` is a chart."""


def page(title: str, lead: str, parts: Sequence[Part]) -> str:
    """A whole HTML page: title, a sentence, and charts, tables and listings in this order."""
    template = files("fasterrcnn.data").joinpath("templates/charts.html").read_text(encoding="utf-8")
    return Environment(autoescape=True).from_string(template).render(title=title, lead=lead, parts=parts)


def align(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table as lines of text: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in (head, *rows)
    ]


def bars(title: str, labels: Sequence[str], values: Sequence[Number]) -> Markup:
    """A horizontal bar for each label, with its value behind it."""
    longest = max([len(_short(label)) for label in labels], default=0)
    left = 16 + 7 * longest
    room = _WIDTH - left - 80
    top = max(values, default=0) or 1
    rows = []
    for number, (label, value) in enumerate(zip(labels, values, strict=True)):
        y = _TOP + number * _ROW
        length = room * value / top
        rows.append(
            _text(left - 8, y + 13, _short(label), "end", full=label)
            + Markup('<rect x="{}" y="{}" width="{:.1f}" height="16" rx="2" fill="{}"/>').format(
                left, y, length, COLOURS[0]
            )
            + _text(left + length + 6, y + 13, number_of(value), "start")
        )
    return _svg(title, _TOP + len(rows) * _ROW + 8, rows or [_nothing()])


def histogram(title: str, values: ArrayLike, *, x: str = "", log: bool = False, bins: int = 30) -> Markup:
    """How many values lie in each of equally wide bins; those that are not finite are left out.

    Args:
        title: above the chart.
        values: numbers; with ``log`` only those above zero count.
        x: what the numbers are.
        log: bins of equal ratio instead of equal width.
        bins: how many at most; whole numbers of a small range get one each.
    """
    numbers = _finite(np.asarray(values, np.float64).ravel(), log)
    if not len(numbers):
        return _svg(title, 80, [_nothing()])
    edges = _edges(numbers, bins, log)
    counts = np.histogram(numbers, edges)[0]
    whole = bool((numbers == numbers.round()).all())
    across = _Axis(edges[0], edges[-1], _LEFT, _WIDTH - _RIGHT, log, whole)
    up = _Axis(0, 1.05 * counts.max(), _HEIGHT - _BOTTOM, _TOP, whole=True)
    drawn = [_frame(across, up, x, "count")]
    bar = Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill="{}"><title>{}</title></rect>')
    for low, high, count in zip(edges, edges[1:], counts.tolist(), strict=False):
        a, b, y = across.at(low), across.at(high), up.at(count)
        tip = f"{number_of(low)} to {number_of(high)}: {count:,}"
        drawn.append(bar.format(a + 0.5, y, max(b - a - 1, 0.5), up.at(0) - y, COLOURS[0], tip))
    return _svg(title, _HEIGHT, drawn)


def scatter(title: str, points: ArrayLike, marks: Mapping[str, ArrayLike], *, x: str = "", y: str = "") -> Markup:
    """Points, and over them named groups of larger marks, on two logarithmic axes of the same scale.

    Args:
        title: above the chart.
        points: (n, 2), above zero.
        marks: name -> (m, 2), above zero; a legend names them.
        x: what the first column is.
        y: what the second column is.
    """
    cloud = np.asarray(points, np.float64).reshape(-1, 2)
    groups = {name: np.asarray(group, np.float64).reshape(-1, 2) for name, group in marks.items()}
    everything = _finite(np.concatenate([cloud, *groups.values()]).ravel(), True)
    if not len(everything):
        return _svg(title, 80, [_nothing()])
    low, high = everything.min() / 1.1, everything.max() * 1.1
    side = _WIDTH - _LEFT - _RIGHT
    across = _Axis(low, high, _LEFT, _WIDTH - _RIGHT, log=True)
    up = _Axis(low, high, _TOP + side, _TOP, log=True)
    drawn = [_frame(across, up, x, y)]
    dots = "".join(f'<circle cx="{across.at(a):.1f}" cy="{up.at(b):.1f}" r="2"/>' for a, b in cloud.tolist())
    drawn.append(Markup('<g fill="{}" fill-opacity="0.35">{}</g>').format(COLOURS[0], Markup(dots)))
    for number, (name, group) in enumerate(groups.items()):
        colour = COLOURS[1 + number % (len(COLOURS) - 1)]
        for a, b in group.tolist():
            drawn.append(_mark(across.at(a), up.at(b), colour, number, f"{name}: {a:.0f} x {b:.0f}"))
        drawn.append(_mark(_LEFT + 16, _TOP + 16 + 20 * number, colour, number, name))
        drawn.append(_text(_LEFT + 30, _TOP + 20 + 20 * number, name, "start"))
    return _svg(title, _TOP + side + _BOTTOM, drawn)


def number_of(value: Number) -> str:
    """A number for people: 12,345, 3.2, 0.05."""
    if value == round(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def ticks(low: Number, high: Number, *, log: bool = False, whole: bool = False) -> list[Number]:
    """Round numbers between two limits: about three to ten, in steps of 1, 2 or 5 (times a power of ten).

    Args:
        low: the lower limit, above zero with ``log``.
        high: the upper limit.
        log: the numbers 1, 2 and 5 of each power of ten instead of equal steps.
        whole: only whole numbers.
    """
    if log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        fine = [digit * 10.0**power for power in decades for digit in (1, 2, 5)]
        inside = [value for value in fine if low <= value <= high]
        if len(inside) >= 3:
            return [value for value in inside if len(inside) <= 10 or f"{value:e}"[0] == "1"]
    if high <= low:
        return [low]
    raw = max((high - low) / 5, 1.0 if whole else 0.0)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * digit for digit in (1, 2, 5, 10) if power * digit >= raw)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


@dataclass(frozen=True)
class _Axis:
    low: Number
    high: Number
    start: Number
    end: Number
    log: bool = False
    whole: bool = False

    def at(self, value: Number) -> float:
        """Pixel of a value."""
        low, high, here = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (here - low) / (high - low)

    @property
    def ticks(self) -> list[Number]:
        return ticks(self.low, self.high, log=self.log, whole=self.whole)


def _finite(numbers: Array, log: bool) -> Array:
    return numbers[np.isfinite(numbers) & ((numbers > 0) | (not log))]


def _edges(numbers: Array, bins: int, log: bool) -> Array:
    low, high = float(numbers.min()), float(numbers.max())
    if log:
        low, high = (low, high) if low < high else (low / 1.1, high * 1.1)
        return np.geomspace(low, high, bins + 1)
    if high - low < bins and (numbers == numbers.round()).all():
        return np.arange(low - 0.5, high + 1)
    low, high = (low, high) if low < high else (low - 0.5, high + 0.5)
    return np.linspace(low, high, bins + 1)


def _frame(across: _Axis, up: _Axis, x: str, y: str) -> Markup:
    """Grid lines, numbers at them, and what they mean."""
    drawn = []
    line = Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" stroke="currentColor" stroke-opacity="0.15"/>')
    for value in across.ticks:
        drawn.append(line.format(across.at(value), up.start, across.at(value), up.end))
        drawn.append(_text(across.at(value), up.start + 16, number_of(value), "middle"))
    for value in up.ticks:
        drawn.append(line.format(across.start, up.at(value), across.end, up.at(value)))
        drawn.append(_text(across.start - 8, up.at(value) + 4, number_of(value), "end"))
    drawn.append(_text((across.start + across.end) / 2, up.start + 36, x, "middle"))
    middle = (up.start + up.end) / 2
    turned = Markup('<text transform="translate(14 {:.1f}) rotate(-90)" text-anchor="middle">{}</text>')
    return Markup("").join([*drawn, turned.format(middle, y)])


def _mark(x: Number, y: Number, colour: str, number: int, name: str) -> Markup:
    """A ring for the first group, a cross for the next, filled dots for all others."""
    shapes = (
        '<circle cx="{0:.1f}" cy="{1:.1f}" r="6" fill="none" stroke="{2}" stroke-width="2.5">{3}</circle>',
        '<path d="M{0:.1f} {1:.1f}m-6 -6l12 12m0 -12l-12 12" stroke="{2}" stroke-width="3">{3}</path>',
        '<circle cx="{0:.1f}" cy="{1:.1f}" r="6" fill="{2}">{3}</circle>',
    )
    return Markup(shapes[min(number, 2)]).format(x, y, colour, Markup("<title>{}</title>").format(name))


def _text(x: Number, y: Number, text: str, anchor: str, full: str | None = None) -> Markup:
    tip = Markup("<title>{}</title>").format(full) if full is not None and full != text else ""
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}{}</text>').format(x, y, anchor, text, tip)


def _short(label: str) -> str:
    return label if len(label) <= 24 else label[:23] + "…"


def _nothing() -> Markup:
    return _text(16, _TOP + 16, "nothing to show", "start")


def _svg(title: str, height: int, drawn: Sequence[Markup]) -> Markup:
    head = Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}" role="img" aria-label="{}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="currentColor">'
        '<text x="16" y="20" font-size="15" font-weight="600">{}</text>'
    ).format(_WIDTH, height, title, title)
    return head + Markup("").join(drawn) + Markup("</svg>")
