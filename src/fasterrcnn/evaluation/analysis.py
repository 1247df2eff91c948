"""Everything that is known of one measured split, as plain values. Needs no torch.

Numbers lie in 0..1 unless stated otherwise. Where there is nothing to measure, arrays hold NaN, single values are None.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from fasterrcnn.evaluation.diagnoses import Diagnosis, diagnose
from fasterrcnn.evaluation.ground_truth import GroundTruth, Predictions
from fasterrcnn.evaluation.matching import find_pairs
from fasterrcnn.evaluation.metrics.average_precision import (
    Numbers,
    PascalNumbers,
    coco_numbers,
    pascal_numbers,
    rank_matches,
)
from fasterrcnn.evaluation.metrics.bootstrap import Bootstrap, Comparison, Samples, compare_paired, draw, estimate
from fasterrcnn.evaluation.metrics.curves import Calibration, Curves, measure_calibration, measure_curves
from fasterrcnn.evaluation.metrics.error_kinds import (
    Confusion,
    ErrorCosts,
    ErrorKinds,
    classify_errors,
    count_confusions,
    price_errors,
)
from fasterrcnn.evaluation.metrics.proposal_recall import ProposalRecall
from fasterrcnn.evaluation.metrics.slices import Slice, slice_by_aspect, slice_by_count, slice_by_size


@dataclass(frozen=True)
class MeasurementOrigin:
    """How to repeat the measurement."""

    command: str  # on the command line
    data: str  # where the data set was read
    split: str  # which images
    detections: str  # the checkpoint, or the file of results
    max_dets: int  # most detections of an image and class that count
    versions: Mapping[str, str] = field(default_factory=dict)  # of the packages that matter
    settings: Mapping[str, str] = field(default_factory=dict)  # all other options that were given, name and value


class FurtherNumber(NamedTuple):
    """A number beside COCO's 12, as it stands in the report."""

    name: str  # in the JSON, under "further_numbers"
    label: str  # for people, in the printed table and on the page
    value: float | None  # the number; None where there is nothing to measure


@dataclass(frozen=True)
class Analysis:
    """Everything behind the numbers of one report."""

    numbers: Numbers  # COCO's 12 by name
    per_class: Mapping[str, Numbers]  # "ap" and "ap50" of each class
    ground_truth: GroundTruth  # the objects and their images
    predictions: Predictions  # the detections that count
    error_kinds: ErrorKinds  # right, or which error, of each
    curves: Curves  # precision, recall and F1
    confusion: Confusion  # classes taken for each other, at the best threshold over all classes
    calibration: Calibration  # are the scores probabilities?
    costs: ErrorCosts  # AP50 lost to each kind of error
    by_size: tuple[Slice, ...]  # AP by size of the objects
    by_count: tuple[Slice, ...]  # AP of images with so many objects
    by_aspect: tuple[Slice, ...]  # AP by width / height of the objects
    pascal: PascalNumbers  # Pascal VOC's numbers
    bootstrap: Bootstrap | None  # intervals; None when not asked for
    proposals: ProposalRecall | None  # recall of the first stage; None without the network
    comparisons: tuple[Comparison, ...]  # with other detections of the same images
    diagnoses: tuple[Diagnosis, ...]  # mistakes and notes, gravest first
    origin: MeasurementOrigin  # how to repeat it

    @cached_property
    def further(self) -> tuple[FurtherNumber, ...]:
        """Numbers beside COCO's 12. A new metric is one line here: printed table, JSON and page show what is listed."""
        corners = ", corners count as pixels" if self.pascal.inclusive else ""
        return (
            FurtherNumber("voc_ap11", f"Pascal VOC AP, 11 points{corners}", self.pascal.ap11),
            FurtherNumber("voc_ap", f"Pascal VOC AP, area{corners}", self.pascal.ap),
        )


class Other(NamedTuple):
    """Other detections of the same images: another detector's, or those of this one by other rules (a variant)."""

    name: str
    predictions: Predictions
    is_variant: bool


class DetectorRun(NamedTuple):
    """What a detector finds in annotated images; the file of another model's detections holds the first only."""

    predictions: Predictions
    others: list[Other]  # its detections with other options
    proposals: ProposalRecall | None  # recall of its first stage, where that is wanted
    score_threshold: float | None  # below it, the detector reports nothing
    about_names: Sequence[Diagnosis]  # classes without a partner, or with one that is spelled otherwise


def analyse(
    ground_truth: GroundTruth,
    predictions: Predictions,
    origin: MeasurementOrigin,
    *,
    others: Sequence[Other] = (),
    proposals: ProposalRecall | None = None,
    score_threshold: float | None = None,
    samples: int = 0,
    seed: int = 0,
    inclusive: bool = False,
    about_names: Sequence[Diagnosis] = (),
) -> Analysis:
    """Everything that is measured of detections in annotated images.

    All detections were ranked with the limit ``origin.max_dets``. Below the score threshold the detector reported
    nothing, where that is known. Without samples there are no intervals. ``inclusive`` is that of `pascal_numbers`,
    ``about_names`` what `diagnose_names` found.
    """
    numbers, per_class = coco_numbers(ground_truth, predictions, origin.max_dets)
    pairs = find_pairs(ground_truth, predictions)
    error_kinds = classify_errors(ground_truth, predictions, pairs)
    ranking = rank_matches(ground_truth, predictions, pairs)
    curves = measure_curves(ground_truth, predictions, error_kinds, ranking)
    score = 0.0 if curves.best_overall is None else curves.best_overall.score
    drawn = draw(ranking, len(ground_truth.images), samples, seed)
    return Analysis(
        numbers=numbers,
        per_class=per_class,
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
        proposals=proposals,
        comparisons=tuple(_compare(ground_truth, drawn, other, origin.max_dets, seed) for other in others),
        diagnoses=(
            *diagnose(ground_truth, predictions, numbers, max_dets=origin.max_dets, score_threshold=score_threshold),
            *about_names,
        ),
        origin=origin,
    )


def _compare(ground_truth: GroundTruth, drawn: Samples, other: Other, max_dets: int, seed: int) -> Comparison:
    ranking = rank_matches(ground_truth, other.predictions, find_pairs(ground_truth, other.predictions))
    theirs = draw(ranking, len(ground_truth.images), len(drawn) - 1, seed)
    numbers = coco_numbers(ground_truth, other.predictions, max_dets)
    return compare_paired(other.name, drawn, theirs, numbers, is_variant=other.is_variant)
