"""A detector, or a file of any model's detections, against an annotated data set. Imports torch only for a detector."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage, to_coco
from fasterrcnn.data.checks import BadBoxPolicy, check_and_repair
from fasterrcnn.data.formats import DataLike, read_data
from fasterrcnn.errors import UsageError
from fasterrcnn.evaluation.analysis import DetectorRun, MeasurementOrigin, Other, analyse
from fasterrcnn.evaluation.ground_truth import GroundTruth, load_results, read_ground_truth
from fasterrcnn.evaluation.options import EvaluateOptions, complete_evaluate_options, to_arguments
from fasterrcnn.evaluation.report import Report, make_report

if TYPE_CHECKING:
    from fasterrcnn.inference.detector import Detector


def evaluate(
    weights: "str | Path | Detector | None",
    data: DataLike,
    *,
    split: str = "test",
    results: str | Path | None = None,
    against: str | Path | None = None,
    batch_size: int | None = None,
    on_bad_box: BadBoxPolicy = "error",
    progress: bool = False,
    name: str | None = None,
    **options: Unpack[EvaluateOptions],
) -> Report:
    """COCO's numbers on one split of a data set, and everything behind them.

    Args:
        weights: a checkpoint, or a detector; None with `results`.
        data: a folder or file of annotated images in any format, a list of dicts, or what `read_data` gave.
        split: which images.
        results: measure the detections of this COCO results file instead, from whatever model; torch is not imported.
        against: compare with another results file, or with the folder of another report, on the same images: the
            paired differences with their intervals.
        batch_size: images that pass the network together; default: 1, on a CUDA GPU 8.
        on_bad_box: what to do about errors in the data: "error" refuses them, "fix" fixes them, "drop" leaves them out.
        progress: show a bar on the terminal.
        name: what the detector is called in the report; default is its file.
        **options: see `EvaluateOptions`: what to measure besides.

    Raises:
        UsageError: the split does not exist, detector and data set have no class in common, or an option is invalid.
        DataError: the data set or a results file cannot be read or does not fit, or the data set has errors that
            `on_bad_box` does not allow.
        WeightsError: the checkpoint cannot be read.
    """
    wanted = complete_evaluate_options(options)
    _check(weights, results, wanted)
    annotated = check_and_repair(read_data(data), on_bad_box).data
    records = annotated.split(split)
    ground_truth = ground_truth_of(annotated, records)
    run = _gather(weights, results, annotated, records, ground_truth, wanted, batch_size, progress)
    if against is not None:
        run.others.insert(
            0, Other(str(against), load_results(against, ground_truth, wanted["max_dets"]), is_variant=False)
        )
    arguments = [*_argument("on-bad-box", on_bad_box, "error"), *_argument("against", against, None)]
    arguments += _detector_arguments(weights)
    measured = name or str(weights if results is None else results)
    analysis = analyse(
        ground_truth,
        run.predictions,
        _origin(measured, annotated, split, arguments, wanted, from_file=results is not None),
        others=run.others,
        proposals=run.proposals,
        score_threshold=run.score_threshold,
        about_names=run.about_names,
        samples=wanted["bootstrap"],
        seed=wanted["seed"],
        inclusive=wanted["voc_pixels"],
    )
    return make_report(ground_truth, analysis.numbers, analysis.per_class, analysis)


def ground_truth_of(data: AnnotatedData, records: Sequence[AnnotatedImage]) -> GroundTruth:
    """The objects of some images of a data set, with their files and the numbers of their annotations."""
    ground_truth = read_ground_truth(to_coco(data, records), [record.path for record in records])
    if any(record.original_id is not None for record in records):
        id_of = {record.image_id: record.stated_id for record in records}
        originals = tuple(id_of[number] for number in ground_truth.images.ids.tolist())
        ground_truth = replace(ground_truth, images=replace(ground_truth.images, original_ids=originals))
    numbers = [np.arange(1, len(r.boxes) + 1) if r.numbers is None else r.numbers for r in records]
    return replace(ground_truth, numbers=np.concatenate(numbers).astype(np.int64)) if records else ground_truth


def _gather(
    weights: "str | Path | Detector | None",
    results: str | Path | None,
    data: AnnotatedData,
    records: Sequence[AnnotatedImage],
    ground_truth: GroundTruth,
    wanted: EvaluateOptions,
    batch_size: int | None,
    progress: bool,
) -> DetectorRun:
    """Detections and what else there is of a detector; a file has the detections only."""
    if results is not None:
        return DetectorRun(load_results(results, ground_truth, wanted["max_dets"]), [], None, None, ())
    assert weights is not None
    from fasterrcnn.evaluation.detector_runs import run_detector  # noqa: PLC0415 - imports torch

    return run_detector(weights, data, records, ground_truth, wanted, batch_size=batch_size, progress=progress)


def _detector_arguments(weights: object) -> list[str]:
    """What runs the network of a detector, where it is not the default."""
    options = (("runtime", "torch"), ("precision", "float32"))
    return [word for name, default in options for word in _argument(name, getattr(weights, name, default), default)]


def _argument(name: str, value: object, default: object) -> list[str]:
    return [] if value == default else [f"--{name}", str(value)]


def _check(weights: object, results: object, wanted: EvaluateOptions) -> None:
    if (weights is None) == (results is None):
        raise UsageError("give weights, or the results of a detector, and not both")
    if results is not None and (wanted["flip"] or wanted["soft_nms"] or wanted["scales"]):
        raise UsageError("flip, scales and soft_nms need weights: results are measured as they are")


def _origin(
    measured: str, data: AnnotatedData, split: str, given: Sequence[str], wanted: EvaluateOptions, *, from_file: bool
) -> MeasurementOrigin:
    """How to repeat the measurement."""
    words = ["fasterrcnn", "evaluate", *(["--results"] if from_file else []), measured, str(data.root)]
    words += ["--split", split, *given, *to_arguments(wanted)]
    packages = ("fasterrcnn", "hotcoco", "numpy", *(() if from_file else ("torch", "torchvision")))
    return MeasurementOrigin(
        command=shlex.join(words),
        data=str(data.root),
        split=split,
        detections=measured,
        max_dets=wanted["max_dets"],
        versions={package: version(package) for package in packages},
        settings={name: str(value) for name, value in wanted.items()},
    )
