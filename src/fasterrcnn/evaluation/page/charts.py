"""Curves and matrices as inline SVG. Both axes of a curve run from 0 to 1; colours are classes of the page's style."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

Number = int | float

COLOURS = 8
"""Lines ``s0`` to ``s7`` of the page's style; ``faint`` is for one of many."""

_WIDTH, _HEIGHT = 460, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 14, 12, 48
_CELL, _LABEL = 46, 16


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
        name: for the legend.
        x: 0..1.
        y: 0..1; NaN leaves a gap.
        style: class of the page's style.
        dots: mark the points.
    """

    name: str
    x: Sequence[Number]
    y: Sequence[Number]
    style: str
    dots: bool = False


@dataclass(frozen=True)
class Chart:
    """A drawing with what stands beside it.

    Attributes:
        title: above it.
        drawing: SVG.
        legend: style and name of each line.
        note: below it.
    """

    title: str
    drawing: Markup
    legend: Sequence[tuple[str, str]] = ()
    note: str = ""


def grid() -> Markup:
    """The frame that all curves share, once a page."""
    drawn = []
    for step in range(0, 11, 2):
        x, y, text = _across(step / 10), _up(step / 10), f"{step / 10:g}"
        drawn.append(Markup('<path d="M{} {}V{}M{} {}H{}"/>').format(x, _up(0), _up(1), _across(0), y, _across(1)))
        drawn.append(Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(x, _up(0) + 18, text))
        drawn.append(Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(_LEFT - 8, y + 4, text))
    size = Markup('<svg width="0" height="0" class="defs" aria-hidden="true"><defs><g id="grid">{}</g></defs></svg>')
    return size.format(Markup("").join(drawn))


def curves(title: str, x: str, y: str, lines: Sequence[Line], *, note: str = "", legend: bool = True) -> Chart:
    """Lines over the shared frame; see `Line`."""
    drawn = [_line(line) for line in lines]
    head = Markup(
        '<svg class="curves" viewBox="0 0 {w} {h}" role="img" aria-label="{title}"><use href="#grid"/>'
        '<text class="axis" x="{xm}" y="{yb}" text-anchor="middle">{x}</text>'
        '<text class="axis" transform="translate(13 {ym}) rotate(-90)" text-anchor="middle">{y}</text>{lines}</svg>'
    )
    drawing = head.format(
        w=_WIDTH, h=_HEIGHT, title=title, x=x, y=y, xm=(_across(0) + _across(1)) / 2, yb=_HEIGHT - 8,
        ym=(_up(0) + _up(1)) / 2, lines=Markup("").join(drawn),
    )  # fmt: skip
    return Chart(title, drawing, [(line.style, line.name) for line in lines] if legend else [], note)


def matrix(
    title: str, names: Sequence[str], counts: NDArray[np.int64], totals: NDArray[np.int64], *, note: str = ""
) -> Chart:
    """A square of counts, shaded by the share of their row; the diagonal is right, all else is not.

    Args:
        title: above it.
        names: of rows and columns; the last is background.
        counts: of each row and column.
        totals: of each row, with columns that are not shown.
        note: below it.
    """
    side, left, top = len(names), 8 * max(len(short(name)) for name in names) + 16, 30
    below = 6 * max(len(short(name)) for name in names) + 24
    drawn = [_label(left + side * _CELL / 2, 16, "detected as", "middle")]
    shares = counts / totals.clip(min=1)[:, None]
    for row, name in enumerate(names):
        y = top + row * _CELL
        drawn.append(_label(left - 8, y + _CELL / 2 + 4, name, "end"))
        x_turned, y_turned = left + row * _CELL + _CELL / 2 + 4, top + side * _CELL + 12
        drawn.append(_label(0, 0, name, "end", f"translate({x_turned} {y_turned}) rotate(-40)"))
        for column, other in enumerate(names):
            if row == column == side - 1:
                continue  # background that is not detected cannot be counted
            count, share = int(counts[row, column]), float(shares[row, column])
            tip = f"{short(name, 48)} detected as {short(other, 48)}: {count:,} ({share:.1%})"
            drawn.append(_cell(left + column * _CELL, y, count, share, "right" if row == column else "wrong", tip))
    width, height = left + side * _CELL + 12, top + side * _CELL + below
    head = Markup(
        '<svg class="matrix{large}" viewBox="0 0 {w} {h}" style="width:{w}px" role="img" aria-label="{title}">'
        "{all}</svg>"
    )
    return Chart(
        title,
        head.format(w=width, h=height, title=title, all=Markup("").join(drawn), large=" large" if side > 8 else ""),
        (),
        note,
    )


def whisker(value: Number | None, low: Number, high: Number, *, reach: tuple[Number, Number] = (0.0, 1.0)) -> Markup:
    """A value on a line, with its interval; nothing where it is not known. Zero is marked where it is inside."""
    if value is None or not all(map(math.isfinite, (value, low, high))):
        return Markup("")

    def at(number: Number) -> Number:
        share = (number - reach[0]) / (reach[1] - reach[0])
        return round(4 + 112 * min(max(share, 0.0), 1.0), 1)

    zero = Markup('<path class="zero" d="M{} 1v14"/>').format(at(0)) if reach[0] < 0 < reach[1] else ""
    drawn = '<svg class="whisker" viewBox="0 0 120 16" preserveAspectRatio="xMinYMid" aria-hidden="true">'
    drawn += (
        '<path class="track" d="M4 8H116"/>{}<path class="band" d="M{} 8H{}"/><circle cx="{}" cy="8" r="3.5"/></svg>'
    )
    return Markup(drawn).format(zero, at(low), at(high), at(value))


def short(name: str, letters: int = _LABEL) -> str:
    """A name that fits beside a drawing."""
    return name if len(name) <= letters else name[: letters - 1] + "…"


def _line(line: Line) -> Markup:
    path, pen = [], "M"
    dots = []
    for x, y in zip(line.x, line.y, strict=True):
        if not (math.isfinite(x) and math.isfinite(y)):
            pen = "M"
            continue
        place = f"{_across(x):.4g} {_up(y):.4g}"
        path.append(f"{pen}{place}")
        pen = "L"
        if line.dots:
            here = place.split()
            dot = Markup('<circle class="{} dot" cx="{}" cy="{}" r="4"><title>{:.3f}, {:.3f}</title></circle>')
            dots.append(dot.format(line.style, *here, x, y))
    drawn = Markup('<path class="line {}" d="{}"><title>{}</title></path>')
    return drawn.format(line.style, "".join(path), line.name) + Markup("").join(dots)


def _cell(x: Number, y: Number, count: int, share: float, style: str, tip: str) -> Markup:
    drawn = '<g><title>{}</title><rect class="{}" x="{}" y="{}" width="{}" height="{}" rx="4" fill-opacity="{:.3f}"/>'
    text = Markup('<text class="{}" x="{}" y="{}" text-anchor="middle">{}</text>').format(
        "on" if share > 0.55 else "off", x + (_CELL - 2) / 2, y + _CELL / 2 + 3, _count(count)
    )
    strength = 0.08 if not count else 0.14 + 0.86 * share
    return (
        Markup(drawn).format(tip, style if count else "none", x, y, _CELL - 2, _CELL - 2, strength)
        + text
        + Markup("</g>")
    )


def _label(x: Number, y: Number, text: str, anchor: str, transform: str = "") -> Markup:
    drawn = Markup('<text class="axis" x="{}" y="{}" text-anchor="{}" transform="{}">{}<title>{}</title></text>')
    return drawn.format(x, y, anchor, transform, short(text), short(text, 200))


def _count(count: int) -> str:
    return f"{count}" if count < 10_000 else f"{count / 1000:.0f}k"


def _across(value: Number) -> Number:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * value


def _up(value: Number) -> Number:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * value
