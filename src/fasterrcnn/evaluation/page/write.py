"""Everything about one measured split on one HTML page."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from fasterrcnn.evaluation.analysis import Analysis
from fasterrcnn.evaluation.metrics.bootstrap import Interval
from fasterrcnn.evaluation.metrics.tide import ERRORS
from fasterrcnn.evaluation.page import tables
from fasterrcnn.evaluation.page.cards import make_cards
from fasterrcnn.evaluation.page.figures import confusion_chart, curve_charts, make_class_pages
from fasterrcnn.evaluation.page.mistakes import count_examples
from fasterrcnn.files import write_text
from fasterrcnn.reporting.charts import shared_grid, whisker
from fasterrcnn.reporting.html import render_page
from fasterrcnn.reporting.tables import Table, bar_cell, count_cell, number_cell, text_cell, three_decimals

Numbers = Mapping[str, float | None]

_MAX_NAMES = 20  # of files that cannot be read


@dataclass(frozen=True)
class Headline:
    """One of the large numbers on top.

    Attributes:
        name: what it is.
        value: the number.
        below: its interval, or what belongs to it.
        drawing: of the interval.
    """

    name: str
    value: str
    below: str = ""
    drawing: str | Markup = ""


def write_page(
    path: Path, analysis: Analysis, numbers: Numbers, per_class: Mapping[str, Numbers], labels: Mapping[str, str]
) -> None:
    """Write the page whole or not at all; its folder is made if need be.

    Images are read again for what is shown of them. Those that cannot be read are named and left out.

    Args:
        path: the file.
        analysis: everything behind the numbers.
        numbers: COCO's 12, by their names in `fasterrcnn.Report`.
        per_class: AP and AP50 of each class.
        labels: the names of the 12 numbers for people.
    """
    write_text(path, render_report(analysis, numbers, per_class, labels))


def render_report(
    analysis: Analysis, numbers: Numbers, per_class: Mapping[str, Numbers], labels: Mapping[str, str]
) -> str:
    """The page as text; see `write_page`."""
    ground_truth = analysis.ground_truth
    counted = ground_truth.labels[~ground_truth.crowd]
    objects = np.bincount(counted, minlength=len(ground_truth.classes)).tolist()
    cards, pages = make_cards(analysis), make_class_pages(analysis, per_class, objects)
    return render_page(
        "fasterrcnn.evaluation.page",
        "page.html",
        analysis=analysis,
        images=len(ground_truth.images),
        objects=len(counted),
        title="/".join(Path(analysis.origin.detections).parts[-2:]) or "detections",
        headlines=_headlines(numbers, analysis),
        costliest=_costliest_error(analysis),
        numbers=_number_tables(numbers, labels, analysis),
        charts=curve_charts(analysis, objects),
        matrix=confusion_chart(analysis),
        grid=shared_grid(),
        confusions=tables.confusion_table(analysis),
        errors=tables.error_table(analysis),
        classes=tables.class_table(analysis, per_class, objects, [page.label for page in pages]),
        pages=pages,
        slices=[
            ("By size", tables.slice_table("side", analysis.by_size)),
            ("By number of objects in the image", tables.slice_table("images with", analysis.by_count)),
            ("By shape", tables.slice_table("width / height", analysis.by_aspect)),
        ],
        proposals=_proposal_table(analysis),
        comparisons=_comparisons(numbers, labels, analysis),
        cards=cards,
        counts=count_examples(analysis),
        meanings=tables.ERROR_MEANINGS,
        unreadable=(cards.unreadable[:_MAX_NAMES], max(len(cards.unreadable) - _MAX_NAMES, 0)),
        three=three_decimals,
    )


def _headlines(numbers: Numbers, analysis: Analysis) -> list[Headline]:
    intervals = {} if analysis.bootstrap is None else analysis.bootstrap.numbers
    best = analysis.curves.best_overall
    headlines = [_headline(name.upper(), numbers[name], intervals.get(name)) for name in ("ap", "ap50", "ap75")]
    recall = three_decimals(numbers["ar100"])
    headlines.append(Headline(f"AR{analysis.origin.max_dets}", recall, "recall, IoU .50 to .95"))
    if best is not None:
        below = f"precision {best.precision:.3f}, recall {best.recall:.3f} from score {best.score:.2f} on"
        headlines.append(Headline("best F1", three_decimals(best.f1), below))
    return headlines


def _headline(name: str, value: float | None, interval: Interval | None) -> Headline:
    if interval is None or not np.isfinite([interval.low, interval.high]).all():
        return Headline(name, three_decimals(value))
    below = f"{interval.low:.3f} to {interval.high:.3f}"
    return Headline(name, three_decimals(value), below, whisker(interval.value, interval.low, interval.high))


def _costliest_error(analysis: Analysis) -> str:
    """The kind of error that costs most, in one sentence; empty without errors."""
    lost = {name: cost for name in ERRORS if (cost := analysis.costs.lost[name])}
    if not lost:
        return ""
    worst = max(lost, key=lambda name: lost[name])
    times = analysis.costs.counts[worst]
    errors = "missed objects" if worst == "missed" else f"{worst} errors"
    return f"Most is lost to {errors}: {lost[worst]:.3f} of AP50, {times:,} {'case' if times == 1 else 'cases'}."


def _number_tables(numbers: Numbers, labels: Mapping[str, str], analysis: Analysis) -> tuple[Table, Table]:
    """Precision, with Pascal VOC's, and recall."""
    rows = {name: [text_cell(label), bar_cell(numbers[name], 1.0)] for name, label in labels.items()}
    corners = ", corners count as pixels" if analysis.pascal.inclusive else ""
    voc = [
        [text_cell(f"Pascal VOC AP, 11 points{corners}"), bar_cell(analysis.pascal.ap11, 1.0)],
        [text_cell(f"Pascal VOC AP, area{corners}"), bar_cell(analysis.pascal.ap, 1.0)],
    ]
    precision = [row for name, row in rows.items() if name.startswith("ap")]
    recall = [row for name, row in rows.items() if name.startswith("ar")]
    return Table(["precision", "value"], [*precision, *voc]), Table(["recall", "value"], recall)


def _proposal_table(analysis: Analysis) -> Table | None:
    proposals = analysis.proposals
    if proposals is None:
        return None
    rows = [
        [count_cell(limit), bar_cell(ar, 1.0), number_cell(at50)]
        for limit, ar, at50 in zip(proposals.limits, proposals.ar, proposals.recall50, strict=True)
    ]
    return Table(["proposals an image", "AR, IoU .50 to .95", "recall at IoU .50"], rows)


def _comparisons(
    numbers: Numbers, labels: Mapping[str, str], analysis: Analysis
) -> list[tuple[str, str, Table, Table]]:
    comparisons = []
    for other in analysis.comparisons:
        if other.is_variant:
            title, meaning = f"With {other.name}", "The same weights with other options; differences are its gain."
        else:
            title, meaning = f"Against {other.name}", "Differences are this detector's number less the other's."
        meaning += (
            f" {other.level:.0%} intervals of the paired difference, from {other.samples} resamples of the images."
        )
        comparisons.append((title, meaning, *tables.comparison_tables(numbers, labels, other)))
    return comparisons
