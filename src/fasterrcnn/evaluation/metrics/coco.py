"""COCO's evaluation of boxes (Lin et al. 2014), run by hotcoco.

Axes: g objects, n detections, t IoU thresholds, r recalls (0, .01 ... 1), k classes, p parts, m limits of detections.
"""

import io
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout

import hotcoco
import numpy as np
from jaxtyping import Float64, Int64

from fasterrcnn.evaluation.ground_truth import GroundTruth, Predictions

Parts = tuple[Int64[np.ndarray, " g"], Int64[np.ndarray, " n"]]
"""The part that each object and each detection belongs to, from 0; any other number is in none."""


def evaluate_boxes(
    ground_truth: GroundTruth,
    predictions: Predictions,
    max_dets: Sequence[int],
    parts: Parts | None = None,
    count: int = 4,
) -> tuple[Float64[np.ndarray, "t r k p m"], Float64[np.ndarray, "t k p m"], list[float]]:
    """Precision, recall, and the summary of COCO's tools; NaN, in the summary -1, where there is nothing to measure.

    Args:
        ground_truth: the objects.
        predictions: the detections.
        max_dets: limits: detections of an image and class that count, by falling score.
        parts: measure each by itself: only its objects are asked for, and detections of other parts are no mistakes.
            Default is COCO's: all, small, medium and large by area.
        count: number of parts.
    """
    category_ids = np.array(ground_truth.category_ids, np.int64)
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():  # hotcoco talks like pycocotools
        warnings.simplefilter("ignore", UserWarning)  # and warns of other limits and areas than COCO's own
        dataset = hotcoco.COCO.from_arrays(
            [{"id": i} for i in ground_truth.images.ids.tolist()],
            [{"id": i, "name": name} for i, name in zip(ground_truth.category_ids, ground_truth.classes, strict=True)],
            ground_truth.images.ids[ground_truth.owners],
            category_ids[ground_truth.labels],
            ground_truth.xywh,
            ids=np.arange(1, len(ground_truth) + 1),  # pycocotools takes a match with annotation 0 for none at all
            area=ground_truth.areas if parts is None else parts[0],
            iscrowd=ground_truth.crowd,
        )
        ids = (
            ground_truth.images.ids[predictions.owners],
            predictions.xywh,
            predictions.scores,
            category_ids[predictions.labels],
        )
        results = dataset.load_res(np.column_stack(ids))
        if parts is not None:
            results.update_anns(ids=np.arange(1, len(predictions) + 1), area=parts[1])
        evaluation = hotcoco.COCOeval(dataset, results, "bbox")
        evaluation.params.max_dets = list(max_dets)
        if parts is not None:  # the number of a part stands in the place of the area
            evaluation.params.area_rng = [[part, part] for part in range(count)]
            evaluation.params.area_rng_lbl = [str(part) for part in range(count)]
        evaluation.run()
    assert evaluation.eval is not None
    precision, recall = (np.asarray(evaluation.eval[name]) for name in ("precision", "recall"))
    for table in (precision, recall):
        table[table < 0] = np.nan
    return precision, recall, list(evaluation.stats)
