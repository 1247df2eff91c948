"""Everything about one measured split on one HTML page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fasterrcnn.evaluation.analysis import Analysis
from fasterrcnn.evaluation.metrics.bootstrap import Interval
from fasterrcnn.evaluation.metrics.tide import ERRORS
from fasterrcnn.evaluation.page import tables
from fasterrcnn.evaluation.page.cards import Cards, make_cards
from fasterrcnn.evaluation.page.charts import grid, whisker
from fasterrcnn.evaluation.page.figures import class_pages, draw_curves, draw_matrix
from fasterrcnn.evaluation.page.mistakes import count_examples
from fasterrcnn.files import write_text

if TYPE_CHECKING:
    from fasterrcnn.evaluation.report import Report

_NAMED = 20  # files that are not there


@dataclass(frozen=True)
class Tile:
    """One of the large numbers on top.

    Attributes:
        name: what it is.
        value: the number.
        below: its interval, or what belongs to it.
        drawing: of the interval.
    """

    name: str
    value: str
    below: str
    drawing: Markup


def write_page(path: Path, report: "Report") -> None:
    """Write the page whole or not at all; the folder is made if need be.

    Images are read again for what is shown of them. Those that are gone are named and left out.

    Args:
        path: the file.
        report: with its analysis.
    """
    write_text(path, render(report))


def render(report: "Report") -> str:
    """The page as text.

    Args:
        report: with its analysis.
    """
    analysis = report.analysis
    assert analysis is not None
    ground_truth = analysis.ground_truth
    objects = np.bincount(ground_truth.labels[~ground_truth.crowd], minlength=len(ground_truth.classes)).tolist()
    cards, pages = make_cards(analysis), class_pages(analysis, report.per_class, objects)
    template = Environment(
        loader=PackageLoader("fasterrcnn.evaluation.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("page.html")
    return template.render(
        report=report,
        analysis=analysis,
        title="/".join(Path(analysis.origin.detections).parts[-2:]) or "detections",
        tiles=_tiles(report, analysis),
        verdict=_verdict(analysis),
        numbers=_numbers(report, analysis),
        charts=draw_curves(analysis, objects),
        matrix=draw_matrix(analysis),
        grid=grid(),
        confusions=tables.confusion_table(analysis),
        errors=tables.error_table(analysis),
        classes=tables.class_table(analysis, report.per_class, objects, [page.label for page in pages]),
        pages=pages,
        slices=[
            ("By size", tables.slice_table("side", analysis.by_size)),
            ("By number of objects in the image", tables.slice_table("images with", analysis.by_count)),
            ("By shape", tables.slice_table("width / height", analysis.by_aspect)),
        ],
        proposals=_proposals(analysis),
        comparisons=_comparisons(report, analysis),
        cards=cards,
        counts=count_examples(analysis),
        explained=tables.EXPLAINED,
        gone=_gone(cards),
        three=tables.three,
    )


def _tiles(report: "Report", analysis: Analysis) -> list[Tile]:
    intervals = {} if analysis.bootstrap is None else analysis.bootstrap.numbers
    best = analysis.curves.best_overall
    tiles = [_tile(name, value, intervals.get(name.lower())) for name, value in (
        ("AP", report.ap), ("AP50", report.ap50), ("AP75", report.ap75)
    )]  # fmt: skip
    tiles.append(
        Tile(f"AR{analysis.origin.max_dets}", tables.three(report.ar100), "recall, IoU .50 to .95", Markup(""))
    )
    if best is not None:
        said = f"precision {best.precision:.3f}, recall {best.recall:.3f} from score {best.score:.2f} on"
        tiles.append(Tile("best F1", tables.three(best.f1), said, Markup("")))
    return tiles


def _tile(name: str, value: float | None, interval: Interval | None) -> Tile:
    if interval is None or not np.isfinite([interval.low, interval.high]).all():
        return Tile(name, tables.three(value), "", Markup(""))
    said = f"{interval.low:.3f} to {interval.high:.3f}"
    return Tile(name, tables.three(value), said, whisker(interval.value, interval.low, interval.high))


def _verdict(analysis: Analysis) -> str:
    """Where most is lost, in one sentence."""
    lost = {name: cost for name in ERRORS if (cost := analysis.costs.lost[name])}
    if not lost:
        return ""
    worst = max(lost, key=lambda name: lost[name])
    times = analysis.costs.counts[worst]
    verb = "missed objects" if worst == "missed" else f"{worst} errors"
    return f"Most is lost to {verb}: {lost[worst]:.3f} of AP50, {times:,} {'case' if times == 1 else 'cases'}."


def _numbers(report: "Report", analysis: Analysis) -> tuple[tables.Table, tables.Table]:
    """Precision, with Pascal VOC's, and recall."""
    from fasterrcnn.evaluation.report import LABELS  # noqa: PLC0415 - it imports this package when asked for a page

    rows = {name: [tables.words(label), tables.bar(report.numbers[name], 1.0)] for name, label in LABELS.items()}
    corners = ", corners count as pixels" if analysis.pascal.inclusive else ""
    voc = [
        [tables.words(f"Pascal VOC AP, 11 points{corners}"), tables.bar(analysis.pascal.ap11, 1.0)],
        [tables.words(f"Pascal VOC AP, area{corners}"), tables.bar(analysis.pascal.ap, 1.0)],
    ]
    precision = [row for name, row in rows.items() if name.startswith("ap")]
    recall = [row for name, row in rows.items() if name.startswith("ar")]
    return tables.Table(["precision", "value"], [*precision, *voc]), tables.Table(["recall", "value"], recall)


def _proposals(analysis: Analysis) -> tables.Table | None:
    first = analysis.proposals
    if first is None:
        return None
    rows = [
        [tables.count(limit), tables.bar(ar, 1.0), tables.number(at50)]
        for limit, ar, at50 in zip(first.limits, first.ar, first.recall50, strict=True)
    ]
    return tables.Table(["proposals an image", "AR, IoU .50 to .95", "recall at IoU .50"], rows)


def _comparisons(report: "Report", analysis: Analysis) -> list[tuple[str, str, tables.Table, tables.Table]]:
    from fasterrcnn.evaluation.report import LABELS  # noqa: PLC0415 - as above

    made = []
    for other in analysis.comparisons:
        title = f"With {other.name}" if other.is_variant else f"Against {other.name}"
        said = "The same weights by other rules; differences are its gain." if other.is_variant else ""
        said = said or "Differences are this detector's number less the other's."
        said += f" {other.level:.0%} intervals of the paired difference, from {other.samples} drawings of the images."
        made.append((title, said, *tables.comparison_table(report.numbers, LABELS, other)))
    return made


def _gone(cards: Cards) -> tuple[Sequence[str], int]:
    """Names of the first images that cannot be shown, and how many more there are."""
    return cards.gone[:_NAMED], max(len(cards.gone) - _NAMED, 0)
