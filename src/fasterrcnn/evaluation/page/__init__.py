"""Everything about one measured split on one HTML page: its text, tables, charts and images."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from fasterrcnn.evaluation.analysis import Analysis
from fasterrcnn.evaluation.metrics.average_precision import COCO_NUMBERS
from fasterrcnn.evaluation.metrics.bootstrap import Comparison, Interval
from fasterrcnn.evaluation.metrics.error_kinds import ERRORS
from fasterrcnn.evaluation.metrics.slices import Slice
from fasterrcnn.evaluation.page.figures import confusion_chart, curve_charts, make_class_pages
from fasterrcnn.evaluation.page.images import OUT_OF_REACH, make_cards
from fasterrcnn.reporting.charts import shared_grid, whisker
from fasterrcnn.reporting.html import render_page
from fasterrcnn.reporting.tables import Cell, Table, bar_cell, signed_decimals, three_decimals, to_row

ERROR_MEANINGS = {
    "classification": "lies right (IoU .50), but has the wrong class",
    "localisation": "has the right class, but lies badly (IoU .10 to .50)",
    "both": "has the wrong class and lies badly",
    "duplicate": "is of an object that a better detection has found",
    "background": "nothing is there",
    "missed": "an object that no detection comes near",
    OUT_OF_REACH: "an object that the first stage does not propose at IoU .50, so that no head can find it",
}

_MAX_NAMES = 20  # of files that cannot be read
_MAX_CONFUSIONS = 50  # in their table


@dataclass(frozen=True)
class Headline:
    """One of the large numbers on top."""

    name: str  # what it is
    value: str  # the number
    below: str = ""  # its interval, or what belongs to it
    drawing: str | Markup = ""  # of the interval


def render_report(analysis: Analysis) -> str:
    """The page as text; images are read again for what is shown of them, and named where they cannot be read."""
    objects = analysis.ground_truth.objects_per_class.tolist()
    cards, pages = make_cards(analysis), make_class_pages(analysis)
    counts = dict(analysis.costs.counts)
    if analysis.proposals is not None:
        counts[OUT_OF_REACH] = len(analysis.proposals.unreached)
    return render_page(
        "fasterrcnn.evaluation.page",
        "page.html",
        analysis=analysis,
        images=len(analysis.ground_truth.images),
        objects=sum(objects),
        title="/".join(Path(analysis.origin.detections).parts[-2:]) or "detections",
        headlines=_headlines(analysis),
        costliest=_costliest_error(analysis),
        numbers=_number_tables(analysis),
        charts=curve_charts(analysis),
        matrix=confusion_chart(analysis),
        grid=shared_grid(),
        confusions=_confusion_table(analysis),
        errors=_error_table(analysis),
        classes=_class_table(analysis, objects, {page.label for page in pages}),
        pages=pages,
        slices=[
            ("By size", _slice_table("side", analysis.by_size)),
            ("By number of objects in the image", _slice_table("images with", analysis.by_count)),
            ("By shape", _slice_table("width / height", analysis.by_aspect)),
        ],
        proposals=_proposal_table(analysis),
        comparisons=[_comparison(analysis, other) for other in analysis.comparisons],
        cards=cards,
        counts=counts,
        meanings=ERROR_MEANINGS,
        unreadable=(cards.unreadable[:_MAX_NAMES], max(len(cards.unreadable) - _MAX_NAMES, 0)),
        three=three_decimals,
    )


def _headlines(analysis: Analysis) -> list[Headline]:
    intervals: Mapping[str, Interval] = {} if analysis.bootstrap is None else analysis.bootstrap.numbers
    headlines = []
    for name in ("ap", "ap50", "ap75"):
        interval = intervals.get(name)
        shown = () if interval is None or not math.isfinite(interval.low) else _range(interval)
        headlines.append(Headline(name.upper(), three_decimals(analysis.numbers[name]), *shown))
    recall = three_decimals(analysis.numbers["ar100"])
    headlines.append(Headline(f"AR{analysis.origin.max_dets}", recall, "recall, IoU .50 to .95"))
    best = analysis.curves.best_overall
    if best is not None:
        below = f"precision {best.precision:.3f}, recall {best.recall:.3f} from score {best.score:.2f} on"
        headlines.append(Headline("best F1", three_decimals(best.f1), below))
    return headlines


def _range(interval: Interval) -> tuple[str, Markup]:
    """An interval in words, and as a drawing."""
    drawing = whisker(interval.value, interval.low, interval.high)
    return f"{interval.low:.3f} to {interval.high:.3f}", drawing


def _costliest_error(analysis: Analysis) -> str:
    """The kind of error that costs most, in one sentence; empty without errors."""
    lost = {name: cost for name in ERRORS if (cost := analysis.costs.lost[name])}
    if not lost:
        return ""
    worst = max(lost, key=lambda name: lost[name])
    times = analysis.costs.counts[worst]
    errors = "missed objects" if worst == "missed" else f"{worst} errors"
    return f"Most is lost to {errors}: {lost[worst]:.3f} of AP50, {times:,} {'case' if times == 1 else 'cases'}."


def _number_tables(analysis: Analysis) -> tuple[Table, Table]:
    """COCO's precision and the further numbers, and COCO's recall."""
    coco = [(name, to_row(label, bar_cell(analysis.numbers[name], 1.0))) for name, label in COCO_NUMBERS.items()]
    precision, recall = ([row for name, row in coco if name.startswith(start)] for start in ("ap", "ar"))
    precision += [to_row(number.label, bar_cell(number.value, 1.0)) for number in analysis.further]
    return Table(["precision", "value"], precision), Table(["recall", "value"], recall)


def _class_table(analysis: Analysis, objects: Sequence[int], linked: Iterable[int]) -> Table:
    """A row for each class; a link where it has a page."""
    bootstrap = analysis.bootstrap
    rows = []
    for k, (name, numbers) in enumerate(analysis.per_class.items()):
        link = Markup('<a href="#class-{}">{}</a>').format(k, name) if k in linked else name
        best = analysis.curves.best[name]
        interval = [] if bootstrap is None else [_interval_cell(bootstrap.per_class.get(name))]
        point = (None,) * 4 if best is None else (best.f1, best.precision, best.recall, best.score)
        head = to_row(Cell(link, name.casefold()), objects[k], numbers["ap"], *interval)
        rows.append([*head, *to_row(numbers["ap50"], *point, analysis.calibration.per_class[name])])
    interval_name = [] if bootstrap is None else [f"{bootstrap.level:.0%} interval"]
    names = ["class", "objects", "AP", *interval_name, "AP50", "best F1", "precision", "recall", "at score", "ECE"]
    return Table(names, rows, filtered=len(rows) > 8)


def _interval_cell(interval: Interval | None) -> Cell:
    if interval is None or not math.isfinite(interval.low):
        return Cell("n/a", None)
    words, drawing = _range(interval)
    return Cell(Markup('{} <span class="range">{}</span>').format(drawing, words), interval.low)


def _error_table(analysis: Analysis) -> Table:
    """What each kind of error costs."""
    costs = analysis.costs
    highest = max([cost for cost in costs.lost.values() if cost is not None], default=0.0)
    rows = []
    for name in ERRORS:
        link = Markup('<a href="#gallery" data-show-kind="{}">{}</a>').format(name, name)
        cost = bar_cell(costs.lost[name], highest)
        rows.append(to_row(Cell(link, name), cost, costs.counts[name], ERROR_MEANINGS[name]))
    return Table(["error", "AP50 lost", "how often", "what it is"], rows)


def _slice_table(name: str, slices: Sequence[Slice]) -> Table:
    """AP of parts of the objects or images."""
    rows = [
        to_row(Cell(it.name, it.low), it.objects, it.images, bar_cell(it.ap, 1.0), it.ap50, it.recall) for it in slices
    ]
    return Table([name, "objects", "images", "AP", "AP50", "recall"], rows)


def _confusion_table(analysis: Analysis) -> Table:
    """The most frequent confusions of two classes."""
    counts, names = analysis.confusion.matrix, analysis.ground_truth.classes
    of_object = counts.sum(axis=1).tolist()
    pairs = [
        (int(counts[row, column]), row, column)
        for row, column in zip(*(axis.tolist() for axis in counts[:-1, :-1].nonzero()), strict=True)
        if row != column
    ]
    pairs.sort(key=lambda pair: (-pair[0], *pair[1:]))
    rows = [to_row(names[a], names[b], times, times / of_object[a]) for times, a, b in pairs[:_MAX_CONFUSIONS]]
    return Table(["object", "detected as", "how often", "share of the objects"], rows)


def _proposal_table(analysis: Analysis) -> Table | None:
    it = analysis.proposals
    if it is None:
        return None
    measured = zip(it.limits, it.ar, it.recall50, strict=True)
    rows = [to_row(limit, bar_cell(ar, 1.0), at50) for limit, ar, at50 in measured]
    return Table(["proposals an image", "AR, IoU .50 to .95", "recall at IoU .50"], rows)


def _comparison(analysis: Analysis, other: Comparison) -> tuple[str, str, Table, Table]:
    """Title and meaning; this detector beside the other, and the differences with intervals: numbers, and classes."""
    if other.is_variant:
        title, head, sign = f"With {other.name}", "with it", 1
        meaning = "The same weights with other options; differences are its gain."
    else:
        title, head, sign = f"Against {other.name}", "other", -1
        meaning = "Differences are this detector's number less the other's."
    meaning += f" {other.level:.0%} intervals of the paired difference, from {other.samples} resamples of the images."
    intervals = [*other.better.values(), *other.per_class.values()]
    ends = [abs(end) for interval in intervals for end in (interval.low, interval.high) if math.isfinite(end)]
    farthest = max(ends, default=0.0) or 1.0
    rows = []
    for name, label in COCO_NUMBERS.items():
        mine, theirs = analysis.numbers[name], other.numbers[name]
        gain = None if mine is None or theirs is None else sign * (theirs - mine)
        rows.append(to_row(label, mine, theirs, *_difference_cells(other.better.get(name), gain, farthest)))
    of_classes = [
        to_row(name, row["ap"], *_difference_cells(other.per_class.get(name), None, farthest))
        for name, row in other.numbers_per_class.items()
    ]
    tail = ["difference", "interval", ""]
    of_numbers = Table(["number", "this", head, *tail], rows)
    return title, meaning, of_numbers, Table(["class", f"AP {head}", *tail], of_classes)


def _difference_cells(better: Interval | None, gain: float | None, farthest: float) -> list[Cell]:
    """Difference, interval over a range that all intervals fit in, and whether it may be chance."""
    value = better.value if better is not None else gain
    difference = Cell("n/a", None) if value is None else Cell(signed_decimals(value), value)
    if better is None or not math.isfinite(better.low):
        return [difference, Cell("", None), Cell("", None)]
    result = "may be chance" if better.low <= 0 <= better.high else "ahead" if better.low > 0 else "behind"
    drawing = whisker(better.value, better.low, better.high, reach=(-farthest, farthest))
    low, high = signed_decimals(better.low), signed_decimals(better.high)
    interval = Markup('{} <span class="range">{} to {}</span>').format(drawing, low, high)
    return [difference, Cell(interval, better.low), *to_row(result)]
