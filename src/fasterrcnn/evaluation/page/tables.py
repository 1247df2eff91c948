"""Tables of a report."""

import math
from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup

from fasterrcnn.evaluation.analysis import Analysis
from fasterrcnn.evaluation.metrics.bootstrap import Comparison, Interval
from fasterrcnn.evaluation.metrics.slices import Slice
from fasterrcnn.evaluation.metrics.tide import ERRORS
from fasterrcnn.reporting.charts import whisker
from fasterrcnn.reporting.tables import (
    Cell,
    Table,
    bar_cell,
    count_cell,
    number_cell,
    signed_decimals,
    text_cell,
)

ERROR_MEANINGS = {
    "classification": "lies right (IoU .50), but has the wrong class",
    "localisation": "has the right class, but lies badly (IoU .10 to .50)",
    "both": "has the wrong class and lies badly",
    "duplicate": "is of an object that a better detection has found",
    "background": "nothing is there",
    "missed": "an object that no detection comes near",
    "out of reach": "an object that the first stage does not propose at IoU .50, so that no head can find it",
}


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
        row = [Cell(link, name.casefold()), count_cell(objects[k]), number_cell(ap)]
        if bootstrap is not None:
            row.append(_interval_cell(bootstrap.per_class.get(name)))
        point = (None,) * 4 if best is None else (best.f1, best.precision, best.recall, best.score)
        row += map(number_cell, (per_class[name]["ap50"], *point, analysis.calibration.per_class[name]))
        rows.append(row)
    interval = [] if bootstrap is None else [f"{bootstrap.level:.0%} interval"]
    head = ["class", "objects", "AP", *interval, "AP50", "best F1", "precision", "recall", "at score", "ECE"]
    return Table(head, rows, filtered=len(rows) > 8)


def error_table(analysis: Analysis) -> Table:
    """What each kind of error costs."""
    costs = analysis.costs
    highest = max([cost for cost in costs.lost.values() if cost is not None], default=0.0)
    rows = []
    for name in ERRORS:
        link = Markup('<a href="#gallery" data-show-kind="{}">{}</a>').format(name, name)
        cost, times = bar_cell(costs.lost[name], highest), count_cell(costs.counts[name])
        rows.append([Cell(link, name), cost, times, text_cell(ERROR_MEANINGS[name])])
    return Table(["error", "AP50 lost", "how often", "what it is"], rows)


def slice_table(name: str, slices: Sequence[Slice]) -> Table:
    """AP of parts of the objects or images."""
    rows = [
        [
            Cell(part.name, part.low),
            count_cell(part.objects),
            count_cell(part.images),
            bar_cell(part.ap, 1.0),
            number_cell(part.ap50),
            number_cell(part.recall),
        ]
        for part in slices
    ]
    return Table([name, "objects", "images", "AP", "AP50", "recall"], rows)


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
        [text_cell(names[row]), text_cell(names[column]), count_cell(times), number_cell(times / int(of_object[row]))]
        for times, row, column in sorted(pairs, key=lambda pair: (-pair[0], *pair[1:]))[:limit]
    ]
    return Table(["object", "detected as", "how often", "share of the objects"], rows)


def comparison_tables(
    ours: Mapping[str, float | None], labels: Mapping[str, str], other: Comparison
) -> tuple[Table, Table]:
    """This detector beside another, and the difference with its interval: of the numbers, and of each class."""
    sign = 1 if other.is_variant else -1
    rows = []
    reach = _reach([*other.better.values(), *other.per_class.values()])
    for name, label in labels.items():
        mine, theirs = ours[name], other.numbers[name]
        gain = None if mine is None or theirs is None else sign * (theirs - mine)
        difference = _difference_cells(other.better.get(name), gain, reach)
        rows.append([text_cell(label), number_cell(mine), number_cell(theirs), *difference])
    head = ["number", "this", "with it" if other.is_variant else "other", "difference", "interval", ""]
    per_class = [
        [text_cell(name), number_cell(row["ap"]), *_difference_cells(other.per_class.get(name), None, reach)]
        for name, row in other.numbers_per_class.items()
    ]
    return Table(head, rows), Table(["class", f"AP {head[2]}", "difference", "interval", ""], per_class)


def _difference_cells(better: Interval | None, gain: float | None, reach: tuple[float, float]) -> list[Cell]:
    value = better.value if better is not None else gain
    difference = Cell("n/a", None) if value is None else Cell(signed_decimals(value), value)
    if better is None or not math.isfinite(better.low):
        return [difference, Cell("", None), Cell("", None)]
    result = "may be chance" if better.low <= 0 <= better.high else "ahead" if better.low > 0 else "behind"
    interval = Markup('{} <span class="range">{} to {}</span>').format(
        whisker(better.value, better.low, better.high, reach=reach),
        signed_decimals(better.low),
        signed_decimals(better.high),
    )
    return [difference, Cell(interval, better.low), text_cell(result)]


def _reach(intervals: Sequence[Interval]) -> tuple[float, float]:
    """A range around zero that all intervals fit in."""
    ends = [abs(end) for interval in intervals for end in (interval.low, interval.high) if math.isfinite(end)]
    farthest = max(ends, default=0.0) or 1.0
    return -farthest, farthest


def _interval_cell(interval: Interval | None) -> Cell:
    if interval is None or not math.isfinite(interval.low):
        return Cell("n/a", None)
    text = Markup('{} <span class="range">{:.3f} to {:.3f}</span>')
    drawing = whisker(interval.value, interval.low, interval.high)
    return Cell(text.format(drawing, interval.low, interval.high), interval.low)
