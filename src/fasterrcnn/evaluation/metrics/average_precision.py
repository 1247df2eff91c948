"""Average precision: COCO's, Pascal VOC's, and that of any drawing of the images.

COCO's evaluation (Lin et al. 2014) is run by hotcoco. For bootstrap, images count several times or not at all: a
`Ranking` holds matches that were made once, and gives COCO's average precision for any weights of the images.
Axes: i images, g objects, n detections, k classes, t IoU thresholds, r recalls (0, .01 ... 1), p parts, m limits of
detections, h right detections over all thresholds.
"""

import io
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from itertools import pairwise

import hotcoco
import numpy as np
from jaxtyping import Bool, Float64, Int64

from fasterrcnn.errors import UsageError
from fasterrcnn.evaluation.ground_truth import GroundTruth, Predictions
from fasterrcnn.evaluation.matching import IOU_THRESHOLDS, Pairs, find_pairs, match_detections, same_class
from fasterrcnn.evaluation.options import MAX_DETS

COCO_NUMBERS = {  # COCO's 12 numbers in COCO's order, and their names for people
    "ap": "AP  (IoU .50 to .95)",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "AP  small (under 32 x 32)",
    "ap_medium": "AP  medium (up to 96 x 96)",
    "ap_large": "AP  large",
    "ar1": "AR  1 detection an image",
    "ar10": "AR  10 detections",
    "ar100": "AR  100 detections, or --max-dets",
    "ar_small": "AR  small",
    "ar_medium": "AR  medium",
    "ar_large": "AR  large",
}

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

    Each limit of ``max_dets`` and each part is measured by itself: only objects of the part are asked for, and
    detections of other parts are no mistakes. Default are COCO's parts: all, small, medium and large by area.
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
        image_ids, labels = ground_truth.images.ids[predictions.owners], category_ids[predictions.labels]
        results = dataset.load_res(np.column_stack((image_ids, predictions.xywh, predictions.scores, labels)))
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


Numbers = Mapping[str, float | None]  # numbers by name, 0..1; None where there is nothing to measure


def coco_numbers(
    ground_truth: GroundTruth, predictions: Predictions, max_dets: int = MAX_DETS
) -> tuple[Numbers, dict[str, Numbers]]:
    """COCO's 12 numbers, and "ap" and "ap50" of each class; the last of the recalls is that with ``max_dets``."""
    if max_dets < 1:
        raise UsageError(f"max_dets must be at least 1, not {max_dets}")
    precision, _, summary = evaluate_boxes(ground_truth, predictions, [min(1, max_dets), min(10, max_dets), max_dets])
    per_class: dict[str, Numbers] = {
        name: {"ap": mean_defined(precision[:, :, k, 0, -1]), "ap50": mean_defined(precision[0, :, k, 0, -1])}
        for k, name in enumerate(ground_truth.classes)
    }
    return {n: None if v < 0 else float(v) for n, v in zip(COCO_NUMBERS, summary, strict=True)}, per_class


RECALL_LEVELS = np.linspace(0, 1, 101)  # recalls at which COCO samples the precision

_Count = Int64[np.ndarray, " h"]


@dataclass(frozen=True)
class Hits:
    """Right detections at all thresholds, or those that are ignored: by threshold, class and falling score."""

    places: _Count  # where each stands among all detections, sorted by class and falling score
    # Where the entries of each threshold and class begin; one more at the end
    bounds: Int64[np.ndarray, " segments_and_end"]


@dataclass(frozen=True)
class Ranking:
    """Everything that average precision follows from."""

    owners: Int64[np.ndarray, " n"]  # image of each detection, sorted by class and falling score
    starts: Int64[np.ndarray, " k_and_end"]  # where each class begins among them; one more at the end
    right: Hits  # matches
    ignored: Hits  # detections that count neither way
    ignored_before: _Count  # how many of `ignored` stand before each of `right` at its threshold
    object_owners: Int64[np.ndarray, " g"]  # image of each object that is asked for
    object_labels: Int64[np.ndarray, " g"]  # its class

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.starts) - 1

    def objects(self, weights: Float64[np.ndarray, " i"] | None = None) -> Float64[np.ndarray, " k"]:
        """Number of objects of each class, where image j counts ``weights[j]`` times."""
        counted = None if weights is None else weights[self.object_owners]
        return np.bincount(self.object_labels, counted, self.classes).astype(np.float64)

    def points(
        self, weights: Float64[np.ndarray, " i"] | None = None
    ) -> tuple[Float64[np.ndarray, " h"], Float64[np.ndarray, " h"]]:
        """Number of right detections, and of all that count, down to each right one of its threshold and class."""
        ones = np.ones(len(self.owners)) if weights is None else weights[self.owners]
        total = _before(ones)
        right = _before(ones[self.right.places])
        ignored = _before(ones[self.ignored.places])
        segments = np.repeat(np.arange(len(self.right.bounds) - 1), np.diff(self.right.bounds))
        hits = right[1:] - right[self.right.bounds[segments]]
        seen = total[self.right.places + 1] - total[self.starts[segments % self.classes]]
        skipped = ignored[self.ignored_before] - ignored[self.ignored.bounds[segments]]
        return hits, seen - skipped

    def precision(self, weights: Float64[np.ndarray, " i"] | None = None) -> Float64[np.ndarray, "t k 101"]:
        """Highest precision at each of COCO's 101 recalls or beyond; NaN for a class without objects."""
        hits, seen = self.points(weights)
        precision = hits / np.maximum(seen, 1)
        objects = self.objects(weights)
        bounds = self.right.bounds.tolist()
        result = np.zeros((len(bounds) - 1, len(RECALL_LEVELS)))
        for segment, (low, high) in enumerate(pairwise(bounds)):
            if low == high or not objects[segment % self.classes]:
                continue
            envelope = np.maximum.accumulate(precision[low:high][::-1])[::-1]
            at = np.searchsorted(hits[low:high] / objects[segment % self.classes], RECALL_LEVELS)
            reached = at < high - low
            result[segment, reached] = envelope[at[reached]]
        table: Float64[np.ndarray, "t k 101"] = result.reshape(-1, self.classes, len(RECALL_LEVELS))
        table[:, objects == 0] = np.nan
        return table

    def average_precision(self, weights: Float64[np.ndarray, " i"] | None = None) -> Float64[np.ndarray, "t k"]:
        """Mean of the precision over the 101 recalls; NaN for a class without objects."""
        ap: Float64[np.ndarray, "t k"] = self.precision(weights).mean(axis=2)
        return ap


def rank_matches(ground_truth: GroundTruth, predictions: Predictions, pairs: Pairs) -> Ranking:
    """Match at every threshold, from all pairs that overlap, `find_pairs`; those of one class count."""
    pairs = same_class(pairs, ground_truth, predictions)
    classes = len(ground_truth.classes)
    order = np.argsort(predictions.labels, kind="stable")
    right, ignored = [], []
    for threshold in IOU_THRESHOLDS:
        matched = match_detections(pairs, ground_truth.crowd, len(predictions), threshold)[order]
        hit = matched >= 0
        in_crowd = hit & np.append(ground_truth.crowd, False)[matched]
        right.append(hit & ~in_crowd)
        ignored.append(in_crowd)
    labels = predictions.labels[order]
    rights, ignoreds = _hits(right, labels, classes), _hits(ignored, labels, classes)
    return Ranking(
        owners=predictions.owners[order],
        starts=np.searchsorted(labels, np.arange(classes + 1)),
        right=rights,
        ignored=ignoreds,
        ignored_before=np.searchsorted(_keys(ignoreds, len(predictions)), _keys(rights, len(predictions))),
        object_owners=ground_truth.owners[~ground_truth.crowd],
        object_labels=ground_truth.labels[~ground_truth.crowd],
    )


def mean_defined(values: Float64[np.ndarray, "*rest k"]) -> float | None:
    """Mean over everything that is defined, as COCO takes it; None where nothing is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else None


def _hits(flags: list[Bool[np.ndarray, " n"]], labels: Int64[np.ndarray, " n"], classes: int) -> Hits:
    thresholds, places = np.array(flags, np.bool_).reshape(len(flags), len(labels)).nonzero()
    segments = thresholds * classes + labels[places]
    return Hits(places, np.searchsorted(segments, np.arange(len(flags) * classes + 1)))


def _keys(hits: Hits, count: int) -> _Count:
    """A number for each entry that rises with threshold, class and place."""
    segments = np.repeat(np.arange(len(hits.bounds) - 1), np.diff(hits.bounds))
    keys: _Count = segments * (count + 1) + hits.places
    return keys


def _before(weights: Float64[np.ndarray, " m"]) -> Float64[np.ndarray, " m_and_end"]:
    """Sum of the weights before each entry, and of all at the end."""
    return np.concatenate([[0.0], np.cumsum(weights)])


@dataclass(frozen=True)
class PascalNumbers:
    """Average precision as Pascal VOC has it, at IoU .50."""

    ap11: float | None  # mean over classes of the mean precision at recalls 0, .1 ... 1 (VOC 2007).
    ap: float | None  # mean over classes of the area under the curve (since VOC 2010)
    per_class: Mapping[str, Mapping[str, float | None]]  # both of each class: {"ap11", "ap"}
    inclusive: bool  # corners count as pixels, so that width = x2 - x1 + 1, as in VOC's own program


def pascal_numbers(ground_truth: GroundTruth, predictions: Predictions, *, inclusive: bool = False) -> PascalNumbers:
    """AP of VOC's development kit: 11 points (2007) and area under the curve (since 2010).

    Each detection, by falling score, is classified by the object of its class that it overlaps most: right when that is
    free, a duplicate when it is taken, nothing at all when it is difficult (a crowd). COCO would try another free one.
    """
    if inclusive:
        pixel = np.array([0.0, 0.0, 1.0, 1.0])
        ground_truth = replace(ground_truth, xywh=ground_truth.xywh + pixel)
        predictions = replace(predictions, xywh=predictions.xywh + pixel)
    # VOC measures IoU with difficult objects too.
    flat = replace(ground_truth, crowd=np.zeros(len(ground_truth), np.bool_))
    nearest = same_class(find_pairs(flat, predictions), flat, predictions).first()
    nearest = nearest.take(nearest.overlaps >= 0.5)
    right, kept = np.zeros(len(predictions), np.bool_), np.ones(len(predictions), np.bool_)
    kept[nearest.detections[ground_truth.crowd[nearest.objects]]] = False
    asked = ~ground_truth.crowd[nearest.objects]
    _, first = np.unique(nearest.objects[asked], return_index=True)
    right[nearest.detections[asked][first]] = True
    objects = ground_truth.objects_per_class
    per_class = {}
    for k, name in enumerate(ground_truth.classes):
        of_class = kept & (predictions.labels == k)
        per_class[name] = dict(zip(("ap11", "ap"), _average_precisions(right[of_class], int(objects[k])), strict=True))
    ap11, ap = (mean_defined(np.array([row[n] for row in per_class.values()], np.float64)) for n in ("ap11", "ap"))
    return PascalNumbers(ap11, ap, per_class, inclusive)


def _average_precisions(right: Bool[np.ndarray, " n"], objects: int) -> tuple[float | None, float | None]:
    """Of one class, 11 points and area, from right or wrong by falling score."""
    if not objects:
        return None, None
    hits = np.cumsum(right)
    recall, precision = hits / objects, hits / np.arange(1, len(hits) + 1)
    eleven = [precision[recall >= level].max(initial=0.0) for level in np.linspace(0, 1, 11)]
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.mean(eleven)), float((envelope * np.diff(recall, prepend=0.0)).sum())
