"""Ground truth and detections in, a whole report out. Needs no torch."""

from dataclasses import dataclass

from fasterrcnn.evaluation.analysis import Analysis, Origin
from fasterrcnn.evaluation.diagnoses import diagnose
from fasterrcnn.evaluation.ground_truth import GroundTruth, Predictions
from fasterrcnn.evaluation.matching import find_pairs, same_class
from fasterrcnn.evaluation.metrics.bootstrap import Comparison, Samples, compare, draw, estimate
from fasterrcnn.evaluation.metrics.calibration import measure_calibration
from fasterrcnn.evaluation.metrics.coco import coco_numbers
from fasterrcnn.evaluation.metrics.confusion import count_confusions
from fasterrcnn.evaluation.metrics.curves import measure_curves
from fasterrcnn.evaluation.metrics.pascal import pascal_numbers
from fasterrcnn.evaluation.metrics.proposal_recall import ProposalRecall
from fasterrcnn.evaluation.metrics.ranking import Ranking, rank_matches
from fasterrcnn.evaluation.metrics.slices import slice_by_aspect, slice_by_count, slice_by_size
from fasterrcnn.evaluation.metrics.tide import judge, price_errors
from fasterrcnn.evaluation.report import Report

Other = tuple[str, Predictions, bool]
"""Other detections of the same images: name, boxes, and whether they are this detector's by other rules."""


@dataclass(frozen=True)
class Examination:
    """What a detector gave for annotated images, all ranked with the same limit.

    Attributes:
        found: its detections, `fasterrcnn.evaluation.ground_truth.rank`.
        others: to be compared with.
        proposals: recall of its first stage, where it is known.
        score_threshold: below it, nothing was reported, where that is known.
    """

    found: Predictions
    others: tuple[Other, ...] = ()
    proposals: ProposalRecall | None = None
    score_threshold: float | None = None


def measure(
    ground_truth: GroundTruth,
    examination: Examination,
    origin: Origin,
    *,
    samples: int = 0,
    seed: int = 0,
    inclusive: bool = False,
) -> Report:
    """Everything that can be said about detections of annotated images.

    Args:
        ground_truth: the objects.
        examination: what was found.
        origin: how to repeat it; its ``max_dets`` is the limit that the detections were ranked with.
        samples: drawings for the intervals; 0 leaves them out, and comparisons then have none.
        seed: of the drawings.
        inclusive: corners count as pixels in Pascal VOC's numbers.
    """
    found = examination.found
    numbers = coco_numbers(ground_truth, found, origin.max_dets)
    pairs = find_pairs(ground_truth, found)
    own = same_class(pairs, ground_truth, found)
    verdicts = judge(ground_truth, found, pairs)
    ranking = rank_matches(ground_truth, found, own)
    curves = measure_curves(ground_truth, found, verdicts, ranking)
    score = 0.0 if curves.best_overall is None else curves.best_overall.score
    drawn = draw(ranking, len(ground_truth.images), samples, seed)
    return numbers.with_analysis(
        Analysis(
            ground_truth=ground_truth,
            predictions=found,
            verdicts=verdicts,
            curves=curves,
            confusion=count_confusions(ground_truth, found, pairs, score=score),
            calibration=measure_calibration(ground_truth, found, verdicts),
            costs=price_errors(ground_truth, found, verdicts),
            by_size=slice_by_size(ground_truth, found, own),
            by_count=slice_by_count(ground_truth, ranking),
            by_aspect=slice_by_aspect(ground_truth, found, own),
            pascal=pascal_numbers(ground_truth, found, inclusive=inclusive),
            bootstrap=estimate(drawn, ground_truth.classes, seed=seed) if samples else None,
            proposals=examination.proposals,
            comparisons=tuple(
                _compare(ground_truth, drawn, other, origin.max_dets, seed) for other in examination.others
            ),
            diagnoses=diagnose(
                ground_truth,
                found,
                numbers.numbers,
                max_dets=origin.max_dets,
                score_threshold=examination.score_threshold,
            ),
            origin=origin,
        )
    )


def _compare(ground_truth: GroundTruth, drawn: Samples, other: Other, max_dets: int, seed: int) -> Comparison:
    name, found, is_variant = other
    numbers = coco_numbers(ground_truth, found, max_dets)
    theirs = draw(_ranking(ground_truth, found), len(ground_truth.images), len(drawn) - 1, seed)
    return compare(name, drawn, theirs, (numbers.numbers, numbers.per_class), is_variant=is_variant)


def _ranking(ground_truth: GroundTruth, found: Predictions) -> Ranking:
    return rank_matches(ground_truth, found, same_class(find_pairs(ground_truth, found), ground_truth, found))
