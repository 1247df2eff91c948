"""Truth and detections in, a whole report out. Needs no torch."""

from dataclasses import dataclass

from fasterrcnn.evaluation.analysis import Analysis, Origin
from fasterrcnn.evaluation.bootstrap import Comparison, Samples, compare, draw, estimate
from fasterrcnn.evaluation.calibration import measure_calibration
from fasterrcnn.evaluation.coco import coco_numbers
from fasterrcnn.evaluation.confusion import count_confusions
from fasterrcnn.evaluation.costs import price_errors
from fasterrcnn.evaluation.curves import measure_curves
from fasterrcnn.evaluation.diagnoses import diagnose
from fasterrcnn.evaluation.matching import find_pairs, same_class
from fasterrcnn.evaluation.pascal import pascal_numbers
from fasterrcnn.evaluation.proposal_recall import ProposalRecall
from fasterrcnn.evaluation.ranking import Ranking, rank_matches
from fasterrcnn.evaluation.report import Report
from fasterrcnn.evaluation.slices import slice_by_aspect, slice_by_count, slice_by_size
from fasterrcnn.evaluation.truth import Predictions, Truth
from fasterrcnn.evaluation.verdicts import judge

Other = tuple[str, Predictions, bool]
"""Other detections of the same pictures: name, boxes, and whether they are this detector's by other rules."""


@dataclass(frozen=True)
class Examination:
    """What a detector gave for annotated pictures, all ranked with the same limit.

    Attributes:
        found: its detections, `fasterrcnn.evaluation.reading.rank`.
        others: to be compared with.
        proposals: recall of its first stage, where it is known.
        score_threshold: below it, nothing was reported, where that is known.
    """

    found: Predictions
    others: tuple[Other, ...] = ()
    proposals: ProposalRecall | None = None
    score_threshold: float | None = None


def measure(
    truth: Truth,
    examination: Examination,
    origin: Origin,
    *,
    samples: int = 0,
    seed: int = 0,
    inclusive: bool = False,
) -> Report:
    """Everything that can be said about detections of annotated pictures.

    Args:
        truth: the objects.
        examination: what was found.
        origin: how to repeat it; its ``max_dets`` is the limit that the detections were ranked with.
        samples: drawings for the intervals; 0 leaves them out, and comparisons then have none.
        seed: of the drawings.
        inclusive: corners count as pixels in Pascal VOC's numbers.
    """
    found = examination.found
    numbers = coco_numbers(truth, found, origin.max_dets)
    pairs = find_pairs(truth, found)
    own = same_class(pairs, truth, found)
    verdicts = judge(truth, found, pairs)
    ranking = rank_matches(truth, found, own)
    curves = measure_curves(truth, found, verdicts, ranking)
    score = 0.0 if curves.best_overall is None else curves.best_overall.score
    drawn = draw(ranking, len(truth.pictures), samples, seed)
    return numbers.with_analysis(
        Analysis(
            truth=truth,
            predictions=found,
            verdicts=verdicts,
            curves=curves,
            confusion=count_confusions(truth, found, pairs, score=score),
            calibration=measure_calibration(truth, found, verdicts),
            costs=price_errors(truth, found, verdicts),
            by_size=slice_by_size(truth, found, own),
            by_count=slice_by_count(truth, ranking),
            by_aspect=slice_by_aspect(truth, found, own),
            pascal=pascal_numbers(truth, found, inclusive=inclusive),
            bootstrap=estimate(drawn, truth.classes, seed=seed) if samples else None,
            proposals=examination.proposals,
            comparisons=tuple(_compare(truth, drawn, other, origin.max_dets, seed) for other in examination.others),
            diagnoses=diagnose(
                truth, found, numbers.numbers, max_dets=origin.max_dets, score_threshold=examination.score_threshold
            ),
            origin=origin,
        )
    )


def _compare(truth: Truth, drawn: Samples, other: Other, max_dets: int, seed: int) -> Comparison:
    name, found, is_variant = other
    numbers = coco_numbers(truth, found, max_dets)
    theirs = draw(_ranking(truth, found), len(truth.pictures), len(drawn) - 1, seed)
    return compare(name, drawn, theirs, (numbers.numbers, numbers.per_class), is_variant=is_variant)


def _ranking(truth: Truth, found: Predictions) -> Ranking:
    return rank_matches(truth, found, same_class(find_pairs(truth, found), truth, found))
