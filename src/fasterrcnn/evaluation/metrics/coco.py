"""COCO's average precision (Lin et al. 2014), computed by hotcoco; pycocotools is the oracle in the tests."""

import io
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

import hotcoco
import numpy as np
from numpy.typing import NDArray

from fasterrcnn.errors import UsageError
from fasterrcnn.evaluation.ground_truth import MAX_DETS, GroundTruth, Predictions, read_ground_truth, read_results
from fasterrcnn.evaluation.report import LABELS, Report


def score_detections(
    ground_truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], *, max_dets: int = MAX_DETS
) -> Report:
    """Average precision and recall of COCO results against a COCO data set: the numbers alone, fast.

    Detections of equal score count in the order they are given, as in COCO's own tools.

    Args:
        ground_truth: images, annotations and categories.
        results: image_id, category_id, bbox (left, top, width, height) and score of each detection.
        max_dets: most detections of an image and class that count.

    Raises:
        DataError: a result is not finite, or names an image or a category that the ground truth does not have.
        UsageError: `max_dets` is less than 1.
    """
    objects = read_ground_truth(ground_truth)
    return coco_numbers(objects, read_results(objects, results, max_dets), max_dets)


def coco_numbers(ground_truth: GroundTruth, predictions: Predictions, max_dets: int = MAX_DETS) -> Report:
    """COCO's 12 numbers, and AP of each class; the last of the recalls is that with ``max_dets`` detections.

    Raises:
        UsageError: `max_dets` is less than 1.
    """
    if max_dets < 1:
        raise UsageError(f"max_dets must be at least 1, not {max_dets}")
    category_ids = np.array(ground_truth.category_ids, np.int64)
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():  # hotcoco talks like pycocotools
        warnings.simplefilter("ignore", UserWarning)  # and warns of other limits than COCO's own
        dataset = hotcoco.COCO.from_arrays(
            [{"id": i} for i in ground_truth.images.ids.tolist()],
            [{"id": i, "name": name} for i, name in zip(ground_truth.category_ids, ground_truth.classes, strict=True)],
            ground_truth.images.ids[ground_truth.owners],
            category_ids[ground_truth.labels],
            ground_truth.xywh,
            ids=np.arange(1, len(ground_truth) + 1),  # pycocotools takes a match with annotation 0 for none at all
            area=ground_truth.areas,
            iscrowd=ground_truth.crowd,
        )
        ids = (
            ground_truth.images.ids[predictions.owners],
            predictions.xywh,
            predictions.scores,
            category_ids[predictions.labels],
        )
        evaluation = hotcoco.COCOeval(dataset, dataset.load_res(np.column_stack(ids)), "bbox")
        evaluation.params.max_dets = [min(1, max_dets), min(10, max_dets), max_dets]
        evaluation.run()
    assert evaluation.eval is not None
    precision = np.asarray(evaluation.eval["precision"])  # (IoU, recall, class, area, max detections)
    per_class = {
        name: {"ap": _mean_of_valid(precision[:, :, k, 0, -1]), "ap50": _mean_of_valid(precision[0, :, k, 0, -1])}
        for k, name in enumerate(ground_truth.classes)
    }
    stats = [None if value < 0 else float(value) for value in evaluation.stats]
    fields: dict[str, Any] = dict(zip(LABELS, stats, strict=True))
    return Report(
        **fields, per_class=per_class, images=len(ground_truth.images), objects=int((~ground_truth.crowd).sum())
    )


def _mean_of_valid(values: NDArray[np.float64]) -> float | None:
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else None
