"""The curves and matrices of a report, and the section about each class.

Axes: k classes, t IoU thresholds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from fasterrcnn.evaluation.analysis import Analysis
from fasterrcnn.evaluation.metrics.average_precision import RECALL_LEVELS
from fasterrcnn.evaluation.metrics.curves import OperatingPoint
from fasterrcnn.evaluation.metrics.error_kinds import ERRORS
from fasterrcnn.reporting.charts import SERIES_COLOURS, Chart, Line, curves, matrix
from fasterrcnn.reporting.tables import three_decimals

MAX_LINES, MAX_MATRIX, MAX_CLASSES = 100, 20, 300
"""Classes that are drawn in one chart, in the matrix, and that have a section of their own: those with most objects."""

_IOUS = ((0, ".50"), (5, ".75"), (8, ".90"))  # rows of the ten thresholds


@dataclass(frozen=True)
class ClassPage:
    """A section about one class."""

    label: int  # 0..k-1
    name: str  # of the class
    facts: Sequence[tuple[str, str]]  # name and number
    errors: Sequence[tuple[str, str, int]]  # kind of error, AP50 that it costs, and how often
    taken_for: Sequence[str]  # sentences about confusions with other classes
    charts: Sequence[Chart]  # its curves


def curve_charts(analysis: Analysis) -> list[Chart]:
    """Precision and recall of all classes together and of each, and both against the score."""
    given, names, recalls = analysis.curves, analysis.ground_truth.classes, RECALL_LEVELS
    overall = [Line(f"IoU {text}", recalls, _mean(given.precision[t]), f"s{n}") for n, (t, text) in enumerate(_IOUS)]
    overall.append(Line("IoU .50 to .95", recalls, _mean(given.precision.reshape(-1, len(recalls))), "s3"))
    largest = _largest(analysis, MAX_LINES)
    many = len(largest) > SERIES_COLOURS
    of_classes = [
        Line(names[k], recalls, given.precision[0, k], "faint" if many else f"s{n}") for n, k in enumerate(largest)
    ]
    if many:
        of_classes.append(Line("mean of all classes", recalls, overall[0].y, "s0"))
    left_out = len(names) - len(largest)
    note = f"The {len(largest)} classes with most objects, of {len(names)}." if left_out > 0 else ""
    note += " Each class has a line; the mean is drawn bold." if many else ""
    axes = ("recall", "precision")
    title = "Precision, recall and F1 against the score, all classes"
    return [
        curves("Precision against recall, mean of classes", *axes, overall),
        curves("Precision against recall at IoU .50, by class", *axes, of_classes, note=note, legend=not many),
        score_chart(title, given.overall_at, analysis, given.best_overall),
        calibration_chart(analysis),
    ]


def score_chart(
    title: str, table: Float64[np.ndarray, "3 r"], analysis: Analysis, best: OperatingPoint | None
) -> Chart:
    """Precision, recall and F1 of what reaches each score; the best threshold is marked."""
    levels = analysis.curves.score_levels
    rows = zip(("precision", "recall", "F1"), table, strict=True)
    lines = [Line(name, levels, row, f"s{n}") for n, (name, row) in enumerate(rows)]
    if best is None:
        return curves(title, "score threshold", "", lines)
    at_best = f"precision {best.precision:.3f}, recall {best.recall:.3f}, F1 {best.f1:.3f}"
    if 0 <= best.score <= 1:
        lines.append(Line("best threshold", [best.score, best.score], [0, 1], "mark"))
    return curves(title, "score threshold", "", lines, note=f"Best threshold {best.score:.2f}: {at_best}.")


def calibration_chart(analysis: Analysis) -> Chart:
    """Share of right detections against the score that they have."""
    calibration = analysis.calibration
    inside = (calibration.scores >= 0) & (calibration.scores <= 1)
    lines = [
        Line("as it should be", [0, 1], [0, 1], "mark"),
        Line("as it is", calibration.scores[inside], calibration.precisions[inside], "s0", dots=True),
    ]
    ece, mce = three_decimals(calibration.ece), three_decimals(calibration.mce)
    note = (
        f"Expected calibration error {ece}, largest {mce}. Above the dashed line, detections are right more often than "
        "their score states; below it, less often."
    )
    return curves("Are scores probabilities?", "mean score of the bin", "share that is right", lines, note=note)


def confusion_chart(analysis: Analysis) -> Chart:
    """The confusion matrix; of many classes, those that take most part in confusions."""
    counts, names = analysis.confusion.matrix, (*analysis.ground_truth.classes, "background")
    limits = f"score {analysis.confusion.score:.2f} or more, IoU {analysis.confusion.iou:.2f}"
    note = f"Rows: objects. Columns: detections ({limits}). Shade: share of the row."
    background, totals = len(names) - 1, counts.sum(axis=1)
    if background > MAX_MATRIX:
        between = counts[:-1, :-1] - np.diag(np.diag(counts)[:-1])
        involved = between.sum(axis=0) + between.sum(axis=1)
        chosen = sorted(np.argsort(-involved, kind="stable")[:MAX_MATRIX].tolist())
        note += f" The {MAX_MATRIX} classes that are confused most, of {background}."
        note += " A report that is saved as a folder has all in confusion.csv."
        kept = [*chosen, background]
        counts, totals, names = counts[np.ix_(kept, kept)], totals[kept], tuple(names[k] for k in kept)
    return matrix("Confusion matrix", names, counts, totals, note=note)


def make_class_pages(analysis: Analysis) -> list[ClassPage]:
    """A section for each class, in the order of the classes; of very many, for those with most objects."""
    return [_class_page(analysis, k) for k in sorted(_largest(analysis, MAX_CLASSES))]


def _class_page(analysis: Analysis, k: int) -> ClassPage:
    given, name, costs = analysis.curves, analysis.ground_truth.classes[k], analysis.costs
    best, bootstrap, proposals = given.best[name], analysis.bootstrap, analysis.proposals
    interval = None if bootstrap is None else bootstrap.per_class.get(name)
    between = "" if interval is None else f" ({interval.low:.3f} to {interval.high:.3f})"
    pascal = analysis.pascal.per_class[name]
    facts = [
        ("objects", f"{analysis.ground_truth.objects_per_class[k]:,}"),
        ("AP", three_decimals(analysis.per_class[name]["ap"]) + between),
        ("AP50", three_decimals(analysis.per_class[name]["ap50"])),
        ("best threshold", "n/a" if best is None else f"{best.score:.2f} (F1 {best.f1:.3f})"),
        ("VOC AP (11 points, area)", f"{three_decimals(pascal['ap11'])}, {three_decimals(pascal['ap'])}"),
        ("calibration error", three_decimals(analysis.calibration.per_class[name])),
    ]
    if proposals is not None:
        facts.append((f"AR of {proposals.limits[-1]} proposals", three_decimals(proposals.per_class.get(name))))
    errors = [
        (kind, three_decimals(float(costs.lost_per_class[n, k])), int(costs.counts_per_class[n, k]))
        for n, kind in enumerate(ERRORS)
    ]
    lines = [Line(f"IoU {text}", RECALL_LEVELS, given.precision[t, k], f"s{n}") for n, (t, text) in enumerate(_IOUS)]
    charts = [
        curves("Precision against recall", "recall", "precision", lines),
        score_chart("Precision, recall and F1 against the score", given.at[k], analysis, best),
    ]
    return ClassPage(k, name, facts, errors, _taken_for(analysis, k), charts)


def _taken_for(analysis: Analysis, k: int, limit: int = 3) -> list[str]:
    """What objects of a class are detected as, and what its detections are, where that is something else."""
    counts, names = analysis.confusion.matrix, (*analysis.ground_truth.classes, "background")
    sentences = []
    for line, start, nothing in (
        (counts[k], "Its objects are also", "not found"),
        (counts[:, k], "Its detections are also", "on background"),
    ):
        others = line.copy()
        others[k] = 0
        parts = [
            f"{nothing if other == len(names) - 1 else names[other]} ({others[other]:,})"
            for other in np.argsort(-others, kind="stable")[:limit].tolist()
            if others[other]
        ]
        if parts:
            sentences.append(f"{start}: {', '.join(parts)}.")
    return sentences


def _largest(analysis: Analysis, limit: int) -> list[int]:
    """Classes with objects or not, those with most first, but in their order where all have room."""
    objects = analysis.ground_truth.objects_per_class
    if len(objects) <= limit:
        return list(range(len(objects)))
    largest: list[int] = np.argsort(-objects, kind="stable")[:limit].tolist()
    return largest


def _mean(precision: Float64[np.ndarray, "m r"]) -> Float64[np.ndarray, " r"]:
    """Mean of the rows that are known; NaN where none is."""
    is_known = ~np.isnan(precision)
    total, number = np.where(is_known, precision, 0.0).sum(axis=0), is_known.sum(axis=0)
    mean: Float64[np.ndarray, " r"] = np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
    return mean
