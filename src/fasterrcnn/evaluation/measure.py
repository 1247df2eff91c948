"""Ground truth and detections in, a report out: COCO's numbers alone, or everything behind them. Needs no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fasterrcnn.errors import UsageError
from fasterrcnn.evaluation.analysis import Analysis, MeasurementOrigin
from fasterrcnn.evaluation.diagnoses import diagnose
from fasterrcnn.evaluation.ground_truth import GroundTruth, Predictions, read_ground_truth, read_results
from fasterrcnn.evaluation.matching import find_pairs, same_class
from fasterrcnn.evaluation.metrics.bootstrap import Comparison, Samples, compare_paired, draw, estimate
from fasterrcnn.evaluation.metrics.calibration import measure_calibration
from fasterrcnn.evaluation.metrics.coco import evaluate_boxes
from fasterrcnn.evaluation.metrics.confusion import count_confusions
from fasterrcnn.evaluation.metrics.curves import measure_curves
from fasterrcnn.evaluation.metrics.pascal import pascal_numbers
from fasterrcnn.evaluation.metrics.proposal_recall import ProposalRecall
from fasterrcnn.evaluation.metrics.ranking import Ranking, mean_over_classes, rank_matches
from fasterrcnn.evaluation.metrics.slices import slice_by_aspect, slice_by_count, slice_by_size
from fasterrcnn.evaluation.metrics.tide import classify_errors, price_errors
from fasterrcnn.evaluation.options import MAX_DETS
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
    precision, _, summary = evaluate_boxes(ground_truth, predictions, [min(1, max_dets), min(10, max_dets), max_dets])
    per_class = {
        name: {"ap": mean_over_classes(precision[:, :, k, 0, -1]), "ap50": mean_over_classes(precision[0, :, k, 0, -1])}
        for k, name in enumerate(ground_truth.classes)
    }
    stats = [None if value < 0 else float(value) for value in summary]
    fields: dict[str, Any] = dict(zip(LABELS, stats, strict=True))
    return Report(
        **fields, per_class=per_class, images=len(ground_truth.images), objects=int((~ground_truth.crowd).sum())
    )


Other = tuple[str, Predictions, bool]
"""Other detections of the same images: name, boxes, and whether they are this detector's by other rules."""


@dataclass(frozen=True)
class Examination:
    """What a detector gave for annotated images, all ranked with the same limit.

    Attributes:
        predictions: its detections, `fasterrcnn.evaluation.ground_truth.rank`.
        others: to be compared with.
        proposals: recall of its first stage, where it is known.
        score_threshold: below it, nothing was reported, where that is known.
    """

    predictions: Predictions
    others: tuple[Other, ...] = ()
    proposals: ProposalRecall | None = None
    score_threshold: float | None = None


def measure(
    ground_truth: GroundTruth,
    examination: Examination,
    origin: MeasurementOrigin,
    *,
    samples: int = 0,
    seed: int = 0,
    inclusive: bool = False,
) -> Report:
    """Everything that is measured of detections in annotated images.

    Args:
        ground_truth: the objects.
        examination: what was found.
        origin: how to repeat it; its ``max_dets`` is the limit that the detections were ranked with.
        samples: resamples for the intervals; 0 leaves them out, and comparisons then have none.
        seed: of the resamples.
        inclusive: corners count as pixels in Pascal VOC's numbers.
    """
    predictions = examination.predictions
    numbers = coco_numbers(ground_truth, predictions, origin.max_dets)
    pairs = find_pairs(ground_truth, predictions)
    own = same_class(pairs, ground_truth, predictions)
    error_kinds = classify_errors(ground_truth, predictions, pairs)
    ranking = rank_matches(ground_truth, predictions, own)
    curves = measure_curves(ground_truth, predictions, error_kinds, ranking)
    score = 0.0 if curves.best_overall is None else curves.best_overall.score
    drawn = draw(ranking, len(ground_truth.images), samples, seed)
    return numbers.with_analysis(
        Analysis(
            ground_truth=ground_truth,
            predictions=predictions,
            error_kinds=error_kinds,
            curves=curves,
            confusion=count_confusions(ground_truth, predictions, pairs, score=score),
            calibration=measure_calibration(ground_truth, predictions, error_kinds),
            costs=price_errors(ground_truth, predictions, error_kinds),
            by_size=slice_by_size(ground_truth, predictions),
            by_count=slice_by_count(ground_truth, predictions),
            by_aspect=slice_by_aspect(ground_truth, predictions),
            pascal=pascal_numbers(ground_truth, predictions, inclusive=inclusive),
            bootstrap=estimate(drawn, ground_truth.classes, seed=seed) if samples else None,
            proposals=examination.proposals,
            comparisons=tuple(
                _compare(ground_truth, drawn, other, origin.max_dets, seed) for other in examination.others
            ),
            diagnoses=diagnose(
                ground_truth,
                predictions,
                numbers.numbers,
                max_dets=origin.max_dets,
                score_threshold=examination.score_threshold,
            ),
            origin=origin,
        )
    )


def _compare(ground_truth: GroundTruth, drawn: Samples, other: Other, max_dets: int, seed: int) -> Comparison:
    name, predictions, is_variant = other
    numbers = coco_numbers(ground_truth, predictions, max_dets)
    theirs = draw(_ranking(ground_truth, predictions), len(ground_truth.images), len(drawn) - 1, seed)
    return compare_paired(name, drawn, theirs, (numbers.numbers, numbers.per_class), is_variant=is_variant)


def _ranking(ground_truth: GroundTruth, predictions: Predictions) -> Ranking:
    return rank_matches(
        ground_truth, predictions, same_class(find_pairs(ground_truth, predictions), ground_truth, predictions)
    )
