"""COCO's average precision (Lin et al. 2014), computed by hotcoco; pycocotools is the oracle in the tests."""

import io
import math
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

import hotcoco
import numpy as np

from fasterrcnn.errors import DataError
from fasterrcnn.evaluation.report import Report


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
        *stats,
        per_class,
        len(truth["images"]),
        counted,
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
