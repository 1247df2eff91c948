"""`Report`: COCO's 12 numbers, and where asked everything behind them; as text, JSON, tables and a page."""

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fasterrcnn.errors import UsageError
from fasterrcnn.evaluation.analysis import Analysis
from fasterrcnn.evaluation.ground_truth import GroundTruth, read_ground_truth, read_results
from fasterrcnn.evaluation.metrics.average_precision import COCO_NUMBERS, Numbers, coco_numbers
from fasterrcnn.evaluation.metrics.bootstrap import Interval
from fasterrcnn.evaluation.metrics.error_kinds import ERROR_KINDS, ERRORS
from fasterrcnn.evaluation.options import MAX_DETS
from fasterrcnn.files import write_text
from fasterrcnn.reporting.tables import signed_decimals, three_decimals


@dataclass(frozen=True)
class Report:
    """COCO's 12 numbers, each 0..1, or None where there is no ground truth to measure against.

    Attributes:
        ap: average precision, mean over IoU .50 to .95 and over classes.
        ap50: at IoU .50.
        ap75: at IoU .75.
        ap_small: of objects under 32 x 32 pixels.
        ap_medium: of objects up to 96 x 96 pixels.
        ap_large: of larger objects.
        ar1: recall with one detection an image and class.
        ar10: with ten.
        ar100: with a hundred, or with as many as were asked for.
        ar_small: recall of small objects.
        ar_medium: of medium objects.
        ar_large: of large objects.
        per_class: average precision of each class, and at IoU .50.
        images: images that were measured.
        objects: objects in them.
        analysis: everything behind the numbers; None where only the numbers were asked for.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    ar1: float | None
    ar10: float | None
    ar100: float | None
    ar_small: float | None
    ar_medium: float | None
    ar_large: float | None
    per_class: Mapping[str, Mapping[str, float | None]]
    images: int
    objects: int
    analysis: Analysis | None = field(default=None, repr=False, compare=False)

    @property
    def numbers(self) -> dict[str, float | None]:
        """COCO's 12 numbers by name."""
        return {name: getattr(self, name) for name in COCO_NUMBERS}

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for JSON; without the single detections, which the tables of `save` have."""
        counted = {"images": self.images, "objects": self.objects}
        plain = {**self.numbers, "per_class": {name: dict(row) for name, row in self.per_class.items()}, **counted}
        return plain if self.analysis is None else {**plain, **_summary_of(self.analysis)}

    def _to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def save(self, path: str | Path) -> None:
        """Write the report; folders are made if need be, and files appear whole or not at all.

        Args:
            path: a page (.html), the numbers (.json), or a folder for both (report.html, metrics.json), tables
                (.csv) and the detections (results.json, in COCO's format).

        Raises:
            UsageError: the kind of file is unknown, or a page or tables are asked of a report without analysis.
        """
        path = Path(path)
        if path.suffix.lower() == ".json":
            write_text(path, self._to_json())
            return
        check_target(path)
        if self.analysis is None:
            raise UsageError(f"{path}: this report has only numbers; write it as .json")
        from fasterrcnn.evaluation.page import render_report  # noqa: PLC0415 - templates and Pillow are for pages only

        if path.suffix.lower() in (".html", ".htm"):
            write_text(path, render_report(self.analysis))
            return
        write_text(path / "metrics.json", self._to_json())
        _write_tables(path, self.analysis)
        write_text(path / "report.html", render_report(self.analysis))

    def __str__(self) -> str:
        numbers = [(label, getattr(self, name)) for name, label in COCO_NUMBERS.items()]
        if self.analysis is not None:
            numbers += [(number.label, number.value) for number in self.analysis.further]
        width = max(len(label) + 1 for label, _ in numbers)
        rows = [f"{self.images} images, {self.objects} objects"]
        rows += [f"{label:{width}}{three_decimals(value):5}" for label, value in numbers]
        width = max([width, *(len(name) + 2 for name in self.per_class)])
        rows.append(f"{'class':{width}}AP      AP50")
        rows += [
            f"{name:{width}}{three_decimals(row['ap']):5}   {three_decimals(row['ap50']):5}"
            for name, row in self.per_class.items()
        ]
        return "\n".join([*rows, *(() if self.analysis is None else _describe(self.analysis))])


def score_detections(
    ground_truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], *, max_dets: int = MAX_DETS
) -> Report:
    """Average precision and recall of COCO results against a COCO data set: the numbers alone, fast.

    Detections of equal score count in the order they are given, as in COCO's own tools. No more of an image and class
    than ``max_dets`` count.

    Raises:
        DataError: a result is not finite, or names an image or a category that the ground truth does not have.
        UsageError: `max_dets` is less than 1.
    """
    objects = read_ground_truth(ground_truth)
    return make_report(objects, *coco_numbers(objects, read_results(objects, results, max_dets), max_dets))


def make_report(
    ground_truth: GroundTruth, numbers: Numbers, per_class: Mapping[str, Numbers], analysis: Analysis | None = None
) -> Report:
    """The report of COCO's 12 numbers, by name, and AP and AP50 of each class."""
    coco: dict[str, Any] = {**numbers}
    objects = int((~ground_truth.crowd).sum())
    return Report(**coco, per_class=per_class, images=len(ground_truth.images), objects=objects, analysis=analysis)


def check_target(path: Path) -> None:
    """Refuse a path that no report can be written to by a UsageError, before any work is done."""
    if path.suffix.lower() in (".html", ".htm", ".json") and path.is_dir():
        raise UsageError(f"{path} is a folder, not a file")
    if path.suffix.lower() not in ("", ".html", ".htm", ".json") and not path.is_dir():
        raise UsageError(f"{path}: a report is written as .html, as .json, or into a folder")
    if not path.suffix and path.is_file():
        raise UsageError(f"{path} is a file, not a folder")


def _summary_of(analysis: Analysis) -> dict[str, Any]:
    """The numbers of an analysis for JSON: everything but curves and single detections."""
    curves, confusion, costs = analysis.curves, analysis.confusion, analysis.costs
    parts = {
        "further_numbers": {number.name: number.value for number in analysis.further},
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


def _write_tables(folder: Path, analysis: Analysis) -> None:
    """Write per_class.csv, detections.csv, objects.csv, curves.csv, confusion.csv and results.json."""
    names = (*analysis.ground_truth.classes, "background")
    matrix = zip(names, analysis.confusion.matrix.tolist(), strict=True)
    for file, rows in (
        ("per_class.csv", _class_rows(analysis)),
        ("detections.csv", _detection_rows(analysis)),
        ("objects.csv", _object_rows(analysis)),
        ("curves.csv", _curve_rows(analysis)),
        ("confusion.csv", [("object \\ detected as", *names), *((name, *counts) for name, counts in matrix)]),
    ):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        write_text(folder / file, text.getvalue())
    write_text(folder / "results.json", json.dumps(results_of(analysis)))


def results_of(analysis: Analysis) -> list[dict[str, object]]:
    """The detections in COCO's results format, with ids of the data set."""
    predictions, ground_truth = analysis.predictions, analysis.ground_truth
    image_ids = map(ground_truth.images.original_id, predictions.owners.tolist())
    category_ids = np.array(ground_truth.category_ids, np.int64)[predictions.labels].tolist()
    rows = zip(image_ids, category_ids, predictions.xywh.tolist(), predictions.scores.tolist(), strict=True)
    return [{"image_id": i, "category_id": c, "bbox": box, "score": score} for i, c, box, score in rows]


def _class_rows(analysis: Analysis) -> Iterable[Sequence[object]]:
    yield ("class", "objects", "ap", "ap50", "best_score", "precision", "recall", "f1", "ece")
    objects = analysis.ground_truth.objects_per_class.tolist()
    for count, (name, row) in zip(objects, analysis.per_class.items(), strict=True):
        best = analysis.curves.best[name]
        point = (None,) * 4 if best is None else (best.score, best.precision, best.recall, best.f1)
        yield (name, count, row["ap"], row["ap50"], *point, analysis.calibration.per_class[name])


def _detection_rows(analysis: Analysis) -> Iterable[Sequence[object]]:
    yield ("image_id", "file", "class", "score", "x1", "y1", "x2", "y2", "kind", "iou", "annotation", "true_class")
    it, ground_truth, errors = analysis.predictions, analysis.ground_truth, analysis.error_kinds
    names = ground_truth.classes
    columns = (it.owners, it.labels, it.scores, it.boxes, errors.kinds, errors.overlaps, errors.objects)
    for owner, label, score, box, kind, overlap, at in zip(*(column.tolist() for column in columns), strict=True):
        about = (None, None) if at < 0 else (ground_truth.numbers[at], names[ground_truth.labels[at]])
        place = (ground_truth.images.original_id(owner), ground_truth.images.files[owner])
        yield (*place, names[label], score, *box, ERROR_KINDS[kind], overlap, *about)


def _object_rows(analysis: Analysis) -> Iterable[Sequence[object]]:
    yield ("image_id", "file", "annotation", "class", "x1", "y1", "x2", "y2", "kind", "score")
    it, errors, scores = analysis.ground_truth, analysis.error_kinds, analysis.predictions.scores
    columns = (it.owners, it.numbers, it.labels, it.boxes, errors.object_kinds, errors.finders)
    for owner, number, label, box, kind, finder in zip(*(column.tolist() for column in columns), strict=True):
        score = None if finder < 0 else float(scores[finder])
        place = (it.images.original_id(owner), it.images.files[owner])
        yield (*place, number, it.classes[label], *box, ERROR_KINDS[kind], score)


def _curve_rows(analysis: Analysis) -> Iterable[Sequence[object]]:
    yield ("class", "score", "precision", "recall", "f1")
    curves = analysis.curves
    tables = [("all classes", curves.overall_at), *zip(analysis.ground_truth.classes, curves.at, strict=True)]
    for name, table in tables:
        for score, values in zip(curves.score_levels.tolist(), table.T.tolist(), strict=True):
            yield (name, round(score, 4), *(None if math.isnan(value) else value for value in values))


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


def _describe(analysis: Analysis) -> Iterator[str]:
    """Lines about all but the plain numbers: intervals, threshold, errors, first stage, comparisons, diagnoses."""
    if analysis.bootstrap is not None and analysis.bootstrap.numbers:
        numbers = analysis.bootstrap.numbers.items()
        intervals = ", ".join(f"{name.upper()} {it.low:.3f} to {it.high:.3f}" for name, it in numbers)
        yield f"{analysis.bootstrap.level:.0%} intervals, other images of this kind: {intervals}"
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
        yield f"{verb} {item.name}: {', '.join(_difference(*pair) for pair in item.better.items())}"
    for diagnosis in analysis.diagnoses:
        yield f"{'problem' if diagnosis.is_mistake else 'note'} ({diagnosis.name}): {diagnosis.text}"


def _difference(name: str, better: Interval) -> str:
    """A difference with its interval, and whether that leaves out zero."""
    text = f"{name.upper()} {signed_decimals(better.value)}"
    if math.isnan(better.low):
        return text
    chance = "" if better.low > 0 or better.high < 0 else ", may be chance"
    return f"{text} ({signed_decimals(better.low)} to {signed_decimals(better.high)}{chance})"
