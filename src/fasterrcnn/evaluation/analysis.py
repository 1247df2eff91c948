"""Everything that is known of one measured split, as plain values. Needs no torch.

Numbers lie in 0..1 unless stated otherwise. Where there is nothing to measure, arrays hold NaN, single values are None.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fasterrcnn.evaluation.diagnoses import Diagnosis
from fasterrcnn.evaluation.ground_truth import GroundTruth, Predictions
from fasterrcnn.evaluation.metrics.bootstrap import Bootstrap, Comparison
from fasterrcnn.evaluation.metrics.calibration import Calibration
from fasterrcnn.evaluation.metrics.confusion import Confusion
from fasterrcnn.evaluation.metrics.curves import Curves
from fasterrcnn.evaluation.metrics.pascal import PascalNumbers
from fasterrcnn.evaluation.metrics.proposal_recall import ProposalRecall
from fasterrcnn.evaluation.metrics.slices import Slice
from fasterrcnn.evaluation.metrics.tide import ErrorCosts, ErrorKinds


@dataclass(frozen=True)
class MeasurementOrigin:
    """How to repeat the measurement.

    Attributes:
        command: on the command line.
        data: where the data set was read.
        split: which images.
        detections: the checkpoint, or the file of results.
        max_dets: most detections of an image and class that count.
        versions: of the packages that matter.
        settings: all other options that were given, name and value.
    """

    command: str
    data: str
    split: str
    detections: str
    max_dets: int
    versions: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Analysis:
    """Everything behind the numbers of one report.

    Attributes:
        ground_truth: the objects and their images.
        predictions: the detections that count.
        error_kinds: right, or which error, of each.
        curves: precision, recall and F1.
        confusion: classes taken for each other, at the best threshold over all classes.
        calibration: are the scores probabilities?
        costs: AP50 lost to each kind of error.
        by_size: AP by size of the objects.
        by_count: AP of images with so many objects.
        by_aspect: AP by width / height of the objects.
        pascal: Pascal VOC's numbers.
        bootstrap: intervals; None when not asked for.
        proposals: recall of the first stage; None without the network.
        comparisons: with other detections of the same images.
        diagnoses: mistakes and notes, gravest first.
        origin: how to repeat it.
    """

    ground_truth: GroundTruth
    predictions: Predictions
    error_kinds: ErrorKinds
    curves: Curves
    confusion: Confusion
    calibration: Calibration
    costs: ErrorCosts
    by_size: tuple[Slice, ...]
    by_count: tuple[Slice, ...]
    by_aspect: tuple[Slice, ...]
    pascal: PascalNumbers
    bootstrap: Bootstrap | None
    proposals: ProposalRecall | None
    comparisons: tuple[Comparison, ...]
    diagnoses: tuple[Diagnosis, ...]
    origin: MeasurementOrigin
