"""COCO's average precision (Lin et al. 2014), computed by hotcoco; pycocotools is the oracle in the tests."""

import io
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import hotcoco
import numpy as np

from fasterrcnn.errors import DataError


@dataclass(frozen=True)
class Report:
    """COCO's 12 numbers, each 0..1, or None where there is no truth to measure against.

    Attributes:
        ap: average precision, mean over IoU .50 to .95 and over classes.
        ap50: at IoU .50.
        ap75: at IoU .75.
        ap_small: of objects under 32 x 32 pixels.
        ap_medium: of objects up to 96 x 96 pixels.
        ap_large: of larger objects.
        ar1: recall with one detection a picture.
        ar10: with ten.
        ar100: with a hundred.
        ar_small: recall of small objects.
        ar_medium: of medium objects.
        ar_large: of large objects.
        per_class: average precision of each class, and at IoU .50.
        images: pictures that were looked at.
        objects: objects in them.
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
    per_class: dict[str, dict[str, float | None]]
    images: int
    objects: int

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        return asdict(self)

    def save(self, path: str | Path) -> None:
        """Write the numbers as JSON; the folder is made if need be."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(self.to_dict(), indent=1), encoding="utf-8")

    def __str__(self) -> str:
        rows = [f"{self.images} pictures, {self.objects} objects"]
        rows += [f"{label:34}{_shown(getattr(self, name))}" for name, label in _LABELS.items()]
        width = max([34, *(len(name) + 2 for name in self.per_class)])
        rows.append(f"{'class':{width}}AP      AP50")
        rows += [f"{name:{width}}{_shown(row['ap'])}   {_shown(row['ap50'])}" for name, row in self.per_class.items()]
        return "\n".join(rows)


_LABELS = {
    "ap": "AP  (IoU .50 to .95)",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "AP  small (under 32 x 32)",
    "ap_medium": "AP  medium (up to 96 x 96)",
    "ap_large": "AP  large",
    "ar1": "AR  1 detection a picture",
    "ar10": "AR  10 detections",
    "ar100": "AR  100 detections",
    "ar_small": "AR  small",
    "ar_medium": "AR  medium",
    "ar_large": "AR  large",
}


def score_detections(truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> Report:
    """Average precision and recall of COCO results against a COCO data set.

    Args:
        truth: images, annotations (ids from 1) and categories.
        results: image_id, category_id, bbox (left, top, width, height) and score of each detection.

    Raises:
        DataError: a result is not finite, or names an image or a category that the truth does not have.
    """
    _check(truth, results)
    with redirect_stdout(io.StringIO()):  # hotcoco talks like pycocotools
        dataset = hotcoco.COCO(dict(truth))
        found = dataset.load_res([dict(row) for row in results])
        evaluation = hotcoco.COCOeval(dataset, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.eval is not None
    precision = np.asarray(evaluation.eval["precision"])  # (IoU, recall, class, area, max detections)
    per_class = {
        category["name"]: {"ap": _mean(precision[:, :, k, 0, -1]), "ap50": _mean(precision[0, :, k, 0, -1])}
        for k, category in enumerate(sorted(truth["categories"], key=lambda c: c["id"]))
    }
    stats = (None if value < 0 else float(value) for value in evaluation.stats)
    counted = sum(not annotation.get("iscrowd", 0) for annotation in truth["annotations"])
    return Report(
        **dict(zip(_LABELS, stats, strict=True)),
        per_class=per_class,
        images=len(truth["images"]),
        objects=counted,
    )


def _check(truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> None:
    images = {image["id"] for image in truth["images"]}
    categories = {category["id"] for category in truth["categories"]}
    for number, row in enumerate(results):
        if row["image_id"] not in images:
            raise DataError(f"result {number}: image_id {row['image_id']} is not in the data set")
        if row["category_id"] not in categories:
            raise DataError(f"result {number}: category_id {row['category_id']} is not in the data set")
        # A box with NaN would count as a perfect match.
        if not all(math.isfinite(value) for value in (*row["bbox"], row["score"])):
            raise DataError(f"result {number} of image {row['image_id']} is not finite: {row['bbox']}, {row['score']}")


def _mean(values: "np.ndarray[Any, np.dtype[np.float64]]") -> float | None:
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else None


def _shown(value: float | None) -> str:
    return "n/a  " if value is None else f"{value:.3f}"
