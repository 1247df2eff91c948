"""Tables of a report: cells with the values that they are sorted by."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fasterrcnn.evaluation.analysis import Analysis
from fasterrcnn.evaluation.metrics.bootstrap import Comparison, Interval
from fasterrcnn.evaluation.metrics.slices import Slice
from fasterrcnn.evaluation.metrics.tide import ERRORS
from fasterrcnn.evaluation.page.charts import Number, whisker

EXPLAINED = {
    "classification": "lies right (IoU .50), but has the wrong class",
    "localisation": "has the right class, but lies badly (IoU .10 to .50)",
    "both": "has the wrong class and lies badly",
    "duplicate": "is of an object that a better detection has found",
    "background": "nothing is there",
    "missed": "an object that no detection comes near",
    "out of reach": "an object that the first stage does not propose at IoU .50, so that no head can find it",
}


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        shown: text, or markup of our own.
        order: what it is sorted by; None sorts last.
    """

    shown: str | Markup
    order: Number | str | None


@dataclass(frozen=True)
class Table:
    """Rows that can be sorted.

    Attributes:
        head: names of the columns; the first is of words, the others of numbers.
        rows: a cell for each column.
        filtered: whether a field to look for rows stands above.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    filtered: bool = False


def three(value: float | None) -> str:
    """A number with three decimals, or "n/a"."""
    return "n/a" if value is None or not math.isfinite(value) else f"{value:.3f}"


def signed(value: float) -> str:
    """A difference with its sign and three decimals."""
    return f"{value:+.3f}" if abs(value) >= 0.0005 else "0.000"


def number(value: float | None) -> Cell:
    """A cell of `three`."""
    known = value is not None and math.isfinite(value)
    return Cell(three(value), value if known else None)


def count(value: int) -> Cell:
    """A cell with a whole number."""
    return Cell(f"{value:,}", value)


def words(text: str) -> Cell:
    """A cell with text."""
    return Cell(text, text.casefold())


def bar(value: float | None, most: Number) -> Cell:
    """A number before a bar."""
    cell = number(value)
    if cell.order is None:
        return cell
    share = min(max(value or 0.0, 0.0) / most, 1.0) if most > 0 else 0.0
    drawn = Markup('<span class="bar"><i style="width:{:.1f}%"></i></span>').format(100 * share)
    return Cell(Markup('<span class="barred">{} {}</span>').format(cell.shown, drawn), cell.order)


def class_table(
    analysis: Analysis,
    per_class: Mapping[str, Mapping[str, float | None]],
    objects: Sequence[int],
    pages: Iterable[int],
) -> Table:
    """A row for each class; a link where it has a page."""
    bootstrap, linked = analysis.bootstrap, set(pages)
    rows = []
    for k, name in enumerate(analysis.ground_truth.classes):
        link = Markup('<a href="#class-{}">{}</a>').format(k, name) if k in linked else name
        ap, best = per_class[name]["ap"], analysis.curves.best[name]
        row = [Cell(link, name.casefold()), count(objects[k]), number(ap)]
        if bootstrap is not None:
            row.append(_interval(bootstrap.per_class.get(name)))
        point = (None,) * 4 if best is None else (best.f1, best.precision, best.recall, best.score)
        row += [number(value) for value in (per_class[name]["ap50"], *point, analysis.calibration.per_class[name])]
        rows.append(row)
    interval = [] if bootstrap is None else [f"{bootstrap.level:.0%} interval"]
    head = ["class", "objects", "AP", *interval, "AP50", "best F1", "precision", "recall", "at score", "ECE"]
    return Table(head, rows, filtered=len(rows) > 8)


def error_table(analysis: Analysis) -> Table:
    """What each kind of error costs."""
    costs = analysis.costs
    most = max([cost for cost in costs.lost.values() if cost is not None], default=0.0)
    rows = []
    for name in ERRORS:
        link = Markup('<a href="#gallery" data-show-kind="{}">{}</a>').format(name, name)
        rows.append([Cell(link, name), bar(costs.lost[name], most), count(costs.counts[name]), words(EXPLAINED[name])])
    return Table(["error", "AP50 lost", "how often", "what it is"], rows)


def slice_table(what: str, slices: Sequence[Slice]) -> Table:
    """AP of parts of the objects or images."""
    rows = [
        [
            Cell(part.name, part.low),
            count(part.objects),
            count(part.images),
            bar(part.ap, 1.0),
            number(part.ap50),
            number(part.recall),
        ]
        for part in slices
    ]
    return Table([what, "objects", "images", "AP", "AP50", "recall"], rows)


def confusion_table(analysis: Analysis, limit: int = 50) -> Table:
    """The most frequent confusions of two classes."""
    counts, names = analysis.confusion.matrix, analysis.ground_truth.classes
    of_object = counts.sum(axis=1)
    pairs = [
        (int(counts[row, column]), row, column)
        for row, column in zip(*(axis.tolist() for axis in counts[:-1, :-1].nonzero()), strict=True)
        if row != column
    ]
    rows = [
        [words(names[row]), words(names[column]), count(times), number(times / int(of_object[row]))]
        for times, row, column in sorted(pairs, key=lambda pair: (-pair[0], *pair[1:]))[:limit]
    ]
    return Table(["object", "detected as", "how often", "share of the objects"], rows)


def comparison_table(
    ours: Mapping[str, float | None], labels: Mapping[str, str], other: Comparison
) -> tuple[Table, Table]:
    """This detector beside another, and the difference with its interval: of the numbers, and of each class."""
    sign = -1 if not other.is_variant else 1
    rows = []
    reach = _reach([*other.better.values(), *other.per_class.values()])
    for name, label in labels.items():
        mine, theirs = ours[name], other.numbers[name]
        gain = None if mine is None or theirs is None else sign * (theirs - mine)
        rows.append([words(label), number(mine), number(theirs), *_difference(other.better.get(name), gain, reach)])
    head = ["number", "this", "with it" if other.is_variant else "other", "difference", "interval", ""]
    per_class = [
        [words(name), number(row["ap"]), *_difference(other.per_class.get(name), None, reach)]
        for name, row in other.numbers_per_class.items()
    ]
    return Table(head, rows), Table(["class", f"AP {head[2]}", "difference", "interval", ""], per_class)


def _difference(better: Interval | None, gain: float | None, reach: tuple[float, float]) -> list[Cell]:
    value = better.value if better is not None else gain
    shown = Cell("n/a", None) if value is None else Cell(signed(value), value)
    if better is None or not math.isfinite(better.low):
        return [shown, Cell("", None), Cell("", None)]
    said = "may be chance" if better.low <= 0 <= better.high else "ahead" if better.low > 0 else "behind"
    text = Markup('{} <span class="range">{} to {}</span>')
    drawn = text.format(
        whisker(better.value, better.low, better.high, reach=reach), signed(better.low), signed(better.high)
    )
    return [shown, Cell(drawn, better.low), words(said)]


def _reach(intervals: Sequence[Interval]) -> tuple[float, float]:
    """A range around zero that all intervals fit in."""
    ends = [abs(end) for one in intervals for end in (one.low, one.high) if math.isfinite(end)]
    most = max(ends, default=0.0) or 1.0
    return -most, most


def _interval(one: Interval | None) -> Cell:
    if one is None or not math.isfinite(one.low):
        return Cell("n/a", None)
    text = Markup('{} <span class="range">{:.3f} to {:.3f}</span>')
    return Cell(text.format(whisker(one.value, one.low, one.high), one.low, one.high), one.low)
