"""Charts as inline SVG: no script, no file beside the page.

Colours and letters come from the style of the page (`templates/style.css`): the classes ``s0`` to ``s7`` are colours
that can be read on light and on dark paper.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

Number = int | float

SERIES_COLOURS = 8  # how many colours the style has: classes ``s0`` to ``s7``

_WIDTH, _HEIGHT = 640, 296  # of histograms; scatter plots are square
_CURVES_WIDTH, _CURVES_HEIGHT = 460, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 16, 12, 48
_BINS = 30  # of a histogram, at most
_BAR_STEP = 22  # pixels of a horizontal bar and the gap below it
_CELL, _CELL_LABEL = 46, 16  # of a matrix: pixels of a cell, letters of a name


@dataclass(frozen=True)
class Chart:
    """A plot with what stands beside it."""

    title: str  # above it
    drawing: Markup  # SVG
    legend: Sequence[tuple[str, str]] = ()  # style and name of each line
    note: str = ""  # below it


@dataclass(frozen=True)
class Line:
    """One curve."""

    name: str  # for the legend
    x: ArrayLike  # 0..1
    y: ArrayLike  # 0..1; NaN leaves a gap
    style: str  # class of the page's style: a colour, ``faint`` for one of many, ``mark`` for a dashed line
    dots: bool = False  # mark the points


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


_SHARE_ACROSS = _Axis(0, 1, _LEFT, _CURVES_WIDTH - _RIGHT)
_SHARE_UP = _Axis(0, 1, _CURVES_HEIGHT - _BOTTOM, _TOP)


def bars(title: str, labels: Sequence[str], values: Sequence[Number]) -> Chart:
    """A horizontal bar for each label, with its value behind it."""
    left = 16 + 7 * max([len(shorten(label)) for label in labels], default=0)
    highest = max(values, default=0) or 1
    rows = []
    for number, (label, value) in enumerate(zip(labels, values, strict=True)):
        y = _TOP + number * _BAR_STEP
        length = (_WIDTH - left - 80) * value / highest
        rows.append(
            _text(left - 8, y + 13, shorten(label), "end", full=label)
            + Markup('<rect class="dot s0" x="{}" y="{}" width="{:.1f}" height="16" rx="2"/>').format(left, y, length)
            + _text(left + length + 6, y + 13, format_number(value), "start")
        )
    return _chart(title, _TOP + len(rows) * _BAR_STEP + 8, rows)


def histogram(title: str, values: ArrayLike, *, x: str = "", log: bool = False) -> Chart:
    """How many of the finite values lie in each bin; ``log``: only those above zero, in bins of equal ratio."""
    numbers = _finite(np.asarray(values, np.float64).ravel(), log)
    if not len(numbers):
        return _chart(title, 0, [])
    edges = _edges(numbers, log)
    counts = np.histogram(numbers, edges)[0]
    is_whole = bool((numbers == numbers.round()).all())
    across = _Axis(edges[0], edges[-1], _LEFT, _WIDTH - _RIGHT, log, is_whole)
    up = _Axis(0, 1.05 * counts.max(), _HEIGHT - _BOTTOM, _TOP, whole=True)
    parts = [_grid_lines(across, up), _axis_names(across, up, x, "count")]
    bar = Markup('<rect class="dot s0" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>')
    for low, high, count in zip(edges, edges[1:], counts.tolist(), strict=False):
        left, right, y = across.at(low), across.at(high), up.at(count)
        tip = f"{format_number(low)} to {format_number(high)}: {count:,}"
        parts.append(bar.format(left + 0.5, y, max(right - left - 1, 0.5), up.at(0) - y, tip))
    return _chart(title, _HEIGHT, parts)


def scatter(title: str, points: ArrayLike, marks: Mapping[str, ArrayLike], *, x: str = "", y: str = "") -> Chart:
    """Points (n, 2), and over them named groups (m, 2) of larger marks, on two logarithmic axes of the same scale."""
    cloud = np.asarray(points, np.float64).reshape(-1, 2)
    groups = {name: np.asarray(group, np.float64).reshape(-1, 2) for name, group in marks.items()}
    values = _finite(np.concatenate([cloud, *groups.values()]).ravel(), True)
    if not len(values):
        return _chart(title, 0, [])
    low, high, side = values.min() / 1.1, values.max() * 1.1, _WIDTH - _LEFT - _RIGHT
    across = _Axis(low, high, _LEFT, _WIDTH - _RIGHT, log=True)
    up = _Axis(low, high, _TOP + side, _TOP, log=True)
    dots = "".join(f'<circle cx="{across.at(a):.1f}" cy="{up.at(b):.1f}" r="2"/>' for a, b in cloud.tolist())
    cloud_group = Markup('<g class="dot s0" fill-opacity="0.35">{}</g>').format(Markup(dots))
    parts = [_grid_lines(across, up), _axis_names(across, up, x, y), cloud_group]
    for number, (name, group) in enumerate(groups.items()):
        for a, b in group.tolist():
            parts.append(_mark(across.at(a), up.at(b), number, f"{name}: {a:.0f} x {b:.0f}"))
        parts.append(_mark(_LEFT + 16, _TOP + 16 + 20 * number, number, name))
        parts.append(_text(_LEFT + 30, _TOP + 20 + 20 * number, name, "start"))
    return _chart(title, _TOP + side + _BOTTOM, parts)


def shared_grid() -> Markup:
    """The grid that all `curves` of a page refer to; it has to stand once in the page."""
    defs = '<svg width="0" height="0" class="defs" aria-hidden="true"><defs><g id="grid">{}</g></defs></svg>'
    return Markup(defs).format(_grid_lines(_SHARE_ACROSS, _SHARE_UP))


def curves(title: str, x: str, y: str, lines: Sequence[Line], *, note: str = "", legend: bool = True) -> Chart:
    """Lines over the shared grid, whose axes run from 0 to 1."""
    parts = [Markup('<use href="#grid"/>'), _axis_names(_SHARE_ACROSS, _SHARE_UP, x, y), *map(_line, lines)]
    drawing = _svg("curves", _CURVES_WIDTH, _CURVES_HEIGHT, title, parts)
    return Chart(title, drawing, [(line.style, line.name) for line in lines] if legend else [], note)


def matrix(
    title: str, names: Sequence[str], counts: NDArray[np.int64], totals: NDArray[np.int64], *, note: str = ""
) -> Chart:
    """A square of counts, shaded by their share of the row's total; the diagonal is right, all else is not.

    The last name is background. The totals also count columns that are not shown.
    """
    letters = max(len(shorten(name, _CELL_LABEL)) for name in names)
    side, left, top, below = len(names), 8 * letters + 16, 30, 6 * letters + 24
    parts = [_cell_label(left + side * _CELL / 2, 16, "detected as", "middle")]
    shares = counts / totals.clip(min=1)[:, None]
    for row, name in enumerate(names):
        y = top + row * _CELL
        parts.append(_cell_label(left - 8, y + _CELL / 2 + 4, name, "end"))
        turned_x, turned_y = left + row * _CELL + _CELL / 2 + 4, top + side * _CELL + 12
        parts.append(_cell_label(0, 0, name, "end", f"translate({turned_x} {turned_y}) rotate(-40)"))
        for column, other in enumerate(names):
            if row == column == side - 1:
                continue  # background that is not detected cannot be counted
            count, share = int(counts[row, column]), float(shares[row, column])
            tip = f"{shorten(name, 48)} detected as {shorten(other, 48)}: {count:,} ({share:.1%})"
            parts.append(_cell(left + column * _CELL, y, count, share, "right" if row == column else "wrong", tip))
    width, height = left + side * _CELL + 12, top + side * _CELL + below
    kind = "matrix large" if side > 8 else "matrix"
    return Chart(title, _svg(kind, width, height, title, parts, style=f"width:{width}px"), (), note)


def whisker(value: Number | None, low: Number, high: Number, *, reach: tuple[Number, Number] = (0.0, 1.0)) -> Markup:
    """A value on a line, with its interval; empty where one of them is unknown. Zero is marked where it is inside."""
    if value is None or not all(map(math.isfinite, (value, low, high))):
        return Markup("")

    def at(number: Number) -> Number:
        share = (number - reach[0]) / (reach[1] - reach[0])
        return round(4 + 112 * min(max(share, 0.0), 1.0), 1)

    zero = Markup('<path class="zero" d="M{} 1v14"/>').format(at(0)) if reach[0] < 0 < reach[1] else ""
    drawing = Markup(
        '<svg class="whisker" viewBox="0 0 120 16" preserveAspectRatio="xMinYMid" aria-hidden="true">'
        '<path class="track" d="M4 8H116"/>{}<path class="band" d="M{} 8H{}"/><circle cx="{}" cy="8" r="3.5"/></svg>'
    )
    return drawing.format(zero, at(low), at(high), at(value))


def shorten(name: str, letters: int = 24) -> str:
    """A name that fits beside a chart: longer ones end in "…"."""
    return name if len(name) <= letters else name[: letters - 1] + "…"


def format_number(value: Number) -> str:
    """A number for people: 12,345, 3.2, 0.05."""
    if value == round(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def ticks(low: Number, high: Number, *, log: bool = False, whole: bool = False) -> list[Number]:
    """Round numbers between two limits: about three to ten, in steps of 1, 2 or 5 (times a power of ten).

    ``log`` takes the numbers 1, 2 and 5 of each power of ten instead of equal steps; the limits then are above zero.
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


def _finite(numbers: NDArray[np.float64], log: bool) -> NDArray[np.float64]:
    return numbers[np.isfinite(numbers) & ((numbers > 0) | (not log))]


def _edges(numbers: NDArray[np.float64], log: bool) -> NDArray[np.float64]:
    """Of the bins; whole numbers of a small range get one each."""
    low, high = float(numbers.min()), float(numbers.max())
    if log:
        low, high = (low, high) if low < high else (low / 1.1, high * 1.1)
        return np.geomspace(low, high, _BINS + 1)
    if high - low < _BINS and (numbers == numbers.round()).all():
        return np.arange(low - 0.5, high + 1)
    low, high = (low, high) if low < high else (low - 0.5, high + 0.5)
    return np.linspace(low, high, _BINS + 1)


def _grid_lines(across: _Axis, up: _Axis) -> Markup:
    """Lines at the ticks, and the ticks' numbers."""
    parts = []
    for value in across.ticks:
        x = across.at(value)
        parts.append(Markup('<path d="M{:.1f} {:.1f}V{:.1f}"/>').format(x, up.start, up.end))
        parts.append(_text(x, up.start + 16, format_number(value), "middle"))
    for value in up.ticks:
        y = up.at(value)
        parts.append(Markup('<path d="M{:.1f} {:.1f}H{:.1f}"/>').format(across.start, y, across.end))
        parts.append(_text(across.start - 8, y + 4, format_number(value), "end"))
    return Markup('<g class="grid">{}</g>').format(Markup("").join(parts))


def _axis_names(across: _Axis, up: _Axis, x: str, y: str) -> Markup:
    turned = Markup('<text transform="translate(14 {:.1f}) rotate(-90)" text-anchor="middle">{}</text>')
    below = _text((across.start + across.end) / 2, up.start + 38, x, "middle")
    return below + turned.format((up.start + up.end) / 2, y)


def _line(line: Line) -> Markup:
    path, dots, pen = [], list[Markup](), "M"
    dot = Markup('<circle class="{} dot" cx="{:.1f}" cy="{:.1f}" r="4"><title>{:.3f}, {:.3f}</title></circle>')
    for x, y in zip(np.asarray(line.x).tolist(), np.asarray(line.y).tolist(), strict=True):
        if not (math.isfinite(x) and math.isfinite(y)):
            pen = "M"
            continue
        left, top = _SHARE_ACROSS.at(x), _SHARE_UP.at(y)
        path.append(f"{pen}{left:.4g} {top:.4g}")
        pen = "L"
        if line.dots:
            dots.append(dot.format(line.style, left, top, x, y))
    drawing = Markup('<path class="line {}" d="{}"><title>{}</title></path>')
    return drawing.format(line.style, "".join(path), line.name) + Markup("").join(dots)


def _mark(x: Number, y: Number, number: int, name: str) -> Markup:
    """A ring for the first group, a cross for the next, filled dots for all others."""
    style = f"s{1 + number % (SERIES_COLOURS - 1)}"
    shapes = (
        '<circle class="ring {2}" cx="{0:.1f}" cy="{1:.1f}" r="6"><title>{3}</title></circle>',
        '<path class="ring {2}" d="M{0:.1f} {1:.1f}m-6 -6l12 12m0 -12l-12 12"><title>{3}</title></path>',
        '<circle class="dot {2}" cx="{0:.1f}" cy="{1:.1f}" r="6"><title>{3}</title></circle>',
    )
    return Markup(shapes[min(number, 2)]).format(x, y, style, name)


def _cell(x: Number, y: Number, count: int, share: float, style: str, tip: str) -> Markup:
    cell = Markup(
        '<g><title>{}</title><rect class="{}" x="{}" y="{}" width="{}" height="{}" rx="4" fill-opacity="{:.3f}"/>'
        '<text class="{}" x="{}" y="{}" text-anchor="middle">{}</text></g>'
    )
    strength = 0.14 + 0.86 * share if count else 0.08
    text = f"{count}" if count < 10_000 else f"{count / 1000:.0f}k"
    return cell.format(
        tip, style if count else "none", x, y, _CELL - 2, _CELL - 2, strength,
        "on" if share > 0.55 else "off", x + (_CELL - 2) / 2, y + _CELL / 2 + 3, text,
    )  # fmt: skip


def _cell_label(x: Number, y: Number, text: str, anchor: str, transform: str = "") -> Markup:
    label = Markup('<text class="axis" x="{}" y="{}" text-anchor="{}" transform="{}">{}<title>{}</title></text>')
    return label.format(x, y, anchor, transform, shorten(text, _CELL_LABEL), shorten(text, 200))


def _text(x: Number, y: Number, text: str, anchor: str, full: str | None = None) -> Markup:
    tip = Markup("<title>{}</title>").format(full) if full is not None and full != text else ""
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}{}</text>').format(x, y, anchor, text, tip)


def _chart(title: str, height: Number, parts: Sequence[Markup]) -> Chart:
    """A chart of the common width; a line of text where there are no parts."""
    if not parts:
        height, parts = 40, [_text(16, _TOP + 14, "nothing to show", "start")]
    return Chart(title, _svg("plot", _WIDTH, height, title, parts))


def _svg(kind: str, width: Number, height: Number, title: str, parts: Sequence[Markup], *, style: str = "") -> Markup:
    extra = Markup('style="{}" ').format(style) if style else ""
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" class="{}" viewBox="0 0 {} {}" {}role="img" aria-label="{}">{}</svg>'
    ).format(kind, width, height, extra, title, Markup("").join(parts))
