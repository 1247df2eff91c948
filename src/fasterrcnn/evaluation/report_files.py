"""What a report leaves on disk: numbers as JSON, tables as CSV, detections in COCO's results format."""

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fasterrcnn.evaluation.analysis import Analysis
from fasterrcnn.evaluation.metrics.bootstrap import Interval
from fasterrcnn.evaluation.metrics.tide import ERROR_KINDS, ERRORS
from fasterrcnn.files import write_text

_Row = Sequence[object]


def summary_of(analysis: Analysis) -> dict[str, Any]:
    """The numbers of an analysis for JSON: everything but curves and single detections."""
    curves, confusion, costs = analysis.curves, analysis.confusion, analysis.costs
    parts = {
        "origin": analysis.origin,
        "best_score": {"overall": curves.best_overall, "per_class": dict(curves.best)},
        "confusion": {"score": confusion.score, "iou": confusion.iou, "matrix": confusion.matrix},
        "classes": analysis.ground_truth.classes,
        "calibration": analysis.calibration,
        "errors": {"ap50": costs.ap50, "ap50_lost": dict(costs.lost), "counts": dict(costs.counts)},
        "by_size": analysis.by_size,
        "by_number_of_objects": analysis.by_count,
        "by_aspect_ratio": analysis.by_aspect,
        "pascal_voc": analysis.pascal,
        "bootstrap": analysis.bootstrap,
        "proposals": analysis.proposals,
        "comparisons": analysis.comparisons,
        "diagnoses": analysis.diagnoses,
    }
    return {name: _plain(part) for name, part in parts.items()}


def write_json(path: Path, content: object) -> None:
    """Write JSON whole or not at all; the folder is made if need be."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False))


def write_tables(folder: Path, analysis: Analysis, per_class: Mapping[str, Mapping[str, float | None]]) -> None:
    """Write per_class.csv, detections.csv, objects.csv, curves.csv, confusion.csv and results.json."""
    for name, rows in (
        ("per_class.csv", _class_rows(analysis, per_class)),
        ("detections.csv", _detection_rows(analysis)),
        ("objects.csv", _object_rows(analysis)),
        ("curves.csv", _curve_rows(analysis)),
        ("confusion.csv", _confusion_rows(analysis)),
    ):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        write_text(folder / name, text.getvalue())
    write_text(folder / "results.json", json.dumps(results_of(analysis)))


def results_of(analysis: Analysis) -> list[dict[str, object]]:
    """The detections in COCO's results format, with ids of the data set."""
    predictions, ground_truth = analysis.predictions, analysis.ground_truth
    image_ids = ground_truth.images.ids[predictions.owners].tolist()
    category_ids = np.array(ground_truth.category_ids, np.int64)[predictions.labels].tolist()
    rows = zip(image_ids, category_ids, predictions.xywh.tolist(), predictions.scores.tolist(), strict=True)
    return [{"image_id": i, "category_id": c, "bbox": box, "score": score} for i, c, box, score in rows]


def _class_rows(analysis: Analysis, per_class: Mapping[str, Mapping[str, float | None]]) -> Iterable[_Row]:
    yield ("class", "objects", "ap", "ap50", "best_score", "precision", "recall", "f1", "ece")
    objects = np.bincount(
        analysis.ground_truth.labels[~analysis.ground_truth.crowd], minlength=len(analysis.ground_truth.classes)
    )
    for name, count in zip(analysis.ground_truth.classes, objects.tolist(), strict=True):
        best = analysis.curves.best[name]
        point = ("", "", "", "") if best is None else (best.score, best.precision, best.recall, best.f1)
        numbers = (per_class[name]["ap"], per_class[name]["ap50"], *point, analysis.calibration.per_class[name])
        yield (name, count, *("" if value is None else value for value in numbers))


def _detection_rows(analysis: Analysis) -> Iterable[_Row]:
    yield ("image_id", "file", "class", "score", "x1", "y1", "x2", "y2", "kind", "iou", "annotation", "true_class")
    predictions, ground_truth, error_kinds = analysis.predictions, analysis.ground_truth, analysis.error_kinds
    names, files = ground_truth.classes, ground_truth.images.files
    columns = (
        predictions.owners,
        predictions.labels,
        predictions.scores,
        predictions.boxes,
        error_kinds.kinds,
        error_kinds.overlaps,
    )
    lists = (column.tolist() for column in (*columns, error_kinds.objects))
    for owner, label, score, box, kind, overlap, at in zip(*lists, strict=True):
        about = ("", "") if at < 0 else (int(ground_truth.numbers[at]), names[ground_truth.labels[at]])
        place = (int(ground_truth.images.ids[owner]), str(files[owner]))
        yield (*place, names[label], score, *box, ERROR_KINDS[kind], overlap, *about)


def _object_rows(analysis: Analysis) -> Iterable[_Row]:
    yield ("image_id", "file", "annotation", "class", "x1", "y1", "x2", "y2", "kind", "score")
    ground_truth, error_kinds, scores = analysis.ground_truth, analysis.error_kinds, analysis.predictions.scores
    columns = (
        ground_truth.owners,
        ground_truth.numbers,
        ground_truth.labels,
        ground_truth.boxes,
        error_kinds.object_kinds,
        error_kinds.finders,
    )
    for owner, number, label, box, kind, finder in zip(*(column.tolist() for column in columns), strict=True):
        place = (int(ground_truth.images.ids[owner]), str(ground_truth.images.files[owner]))
        score = "" if finder < 0 else float(scores[finder])
        yield (*place, number, ground_truth.classes[label], *box, ERROR_KINDS[kind], score)


def _curve_rows(analysis: Analysis) -> Iterable[_Row]:
    yield ("class", "score", "precision", "recall", "f1")
    curves = analysis.curves
    tables = {"all classes": curves.overall_at}
    stacked = np.stack([curves.precision_at, curves.recall_at, curves.f1_at], axis=1)
    tables.update(zip(analysis.ground_truth.classes, stacked, strict=True))
    for name, table in tables.items():
        for score, values in zip(curves.score_levels.tolist(), table.T.tolist(), strict=True):
            yield (name, round(score, 4), *("" if math.isnan(value) else value for value in values))


def _confusion_rows(analysis: Analysis) -> Iterable[_Row]:
    names = (*analysis.ground_truth.classes, "background")
    yield ("object \\ detected as", *names)
    for name, row in zip(names, analysis.confusion.matrix.tolist(), strict=True):
        yield (name, *row)


def _plain(value: Any) -> Any:
    """Values as JSON knows them: no arrays, no dataclasses, and nothing where a number is not finite."""
    if hasattr(value, "__dataclass_fields__"):
        value = asdict(value)
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def describe_analysis(analysis: Analysis) -> Iterator[str]:
    """Lines about all but the plain numbers: intervals, threshold, errors, first stage, comparisons, diagnoses."""
    if analysis.bootstrap is not None and analysis.bootstrap.numbers:
        level = f"{analysis.bootstrap.level:.0%}"
        yield f"{level} intervals, other images of this kind: {_intervals(analysis.bootstrap.numbers)}"
    best = analysis.curves.best_overall
    if best is not None:
        yield (
            f"best threshold {best.score:.2f}: precision {best.precision:.3f}, recall {best.recall:.3f}, "
            f"F1 {best.f1:.3f} (IoU .50, all classes)"
        )
    lost = {name: analysis.costs.lost[name] for name in ERRORS}
    if any(lost.values()):
        ranked = sorted(lost.items(), key=lambda pair: -(pair[1] or 0))
        yield "AP50 lost to " + ", ".join(f"{name} {cost or 0:.3f}" for name, cost in ranked)
    first = analysis.proposals
    if first is not None and first.ar[0] is not None:
        shares = ", ".join(f"{ar:.3f} of {limit}" for ar, limit in zip(first.ar, first.limits, strict=True))
        unreached = f"{len(first.unreached)} objects are out of its reach at IoU .50"
        yield f"recall of the proposals {shares}; {unreached}"
    for item in analysis.comparisons:
        verb = "gains with" if item.is_variant else "is ahead of"
        yield f"{verb} {item.name}: {_differences(item.better)}"
    for diagnosis in analysis.diagnoses:
        yield f"{'problem' if diagnosis.is_mistake else 'note'} ({diagnosis.name}): {diagnosis.text}"


def _intervals(numbers: Mapping[str, Interval]) -> str:
    return ", ".join(f"{name.upper()} {item.low:.3f} to {item.high:.3f}" for name, item in numbers.items())


def _differences(better: Mapping[str, Interval]) -> str:
    """Each difference with its interval, and whether that leaves out zero."""
    differences = []
    for name, item in better.items():
        sure = "" if item.low > 0 or item.high < 0 else ", may be chance"
        interval = f" ({_signed(item.low)} to {_signed(item.high)}{sure})" if item.low == item.low else ""
        differences.append(f"{name.upper()} {_signed(item.value)}{interval}")
    return ", ".join(differences)


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}"  # adding zero takes the sign from it
