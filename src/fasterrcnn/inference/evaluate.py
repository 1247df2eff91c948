"""A detector, or a file of any model's detections, against an annotated data set. Imports torch only for a detector."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from fasterrcnn.data.doctor import Policy, admit
from fasterrcnn.data.formats import Source, read_data
from fasterrcnn.data.records import AnnotatedData, Record, to_coco
from fasterrcnn.errors import UsageError
from fasterrcnn.evaluation.analysis import Origin
from fasterrcnn.evaluation.measure import Examination, Other, measure
from fasterrcnn.evaluation.reading import read_truth
from fasterrcnn.evaluation.report import Report
from fasterrcnn.evaluation.results_file import load_results
from fasterrcnn.evaluation.truth import Truth
from fasterrcnn.inference.measures import Measures, Options, complete

if TYPE_CHECKING:
    from fasterrcnn.inference.detector import Detector


def evaluate(
    weights: "str | Path | Detector | None",
    data: Source,
    *,
    split: str = "test",
    results: str | Path | None = None,
    against: str | Path | None = None,
    batch_size: int = 1,
    on_bad_box: Policy = "error",
    progress: bool = False,
    name: str | None = None,
    **options: Unpack[Options],
) -> Report:
    """COCO's numbers on one split of a data set, and everything behind them.

    Args:
        weights: a checkpoint, or a detector; None with `results`.
        data: a folder or file in COCO, Pascal VOC, YOLO or CSV layout, a list of dicts, or what `read_data` gave.
        split: which pictures.
        results: measure the detections of this COCO results file instead, from whatever model; torch is not imported.
        against: compare with another results file, or with the folder of another report, on the same pictures: the
            paired differences with their intervals.
        batch_size: pictures that pass the network together.
        on_bad_box: what to do about errors in the data: "error" refuses them, "fix" mends them, "drop" leaves them out.
        progress: show a bar on the terminal.
        name: what the detector is called in the report; default is its file.
        **options: see `Options`: what to measure besides.

    Raises:
        UsageError: the split does not exist, detector and data set have no class in common, or an option is of no use.
        DataError: the data set or a results file cannot be read or does not fit, or the data set has errors that
            `on_bad_box` does not allow.
        WeightsError: the checkpoint cannot be read.
    """
    wanted = complete(options)
    _check(weights, results, wanted)
    annotated = admit(read_data(data), on_bad_box).data
    records = annotated.split(split)
    truth = truth_of(annotated, records)
    rivals: list[Other] = []
    if against is not None:
        rivals.append((str(against), load_results(against, truth, wanted.max_dets), False))
    if results is not None:
        examination = Examination(load_results(results, truth, wanted.max_dets))
    else:
        from fasterrcnn.inference.examine import examine  # noqa: PLC0415 - it imports torch

        assert weights is not None
        examination = examine(weights, annotated, records, truth, wanted, batch_size=batch_size, progress=progress)
    measured = name or str(weights if results is None else results)
    said = [*_said("on-bad-box", on_bad_box, "error"), *_said("against", against, None), *wanted.arguments()]
    origin = _origin(measured, annotated, split, said, wanted, from_file=results is not None)
    return measure(
        truth,
        replace(examination, others=(*rivals, *examination.others)),
        origin,
        samples=wanted.bootstrap,
        seed=wanted.seed,
        inclusive=wanted.voc_pixels,
    )


def truth_of(data: AnnotatedData, records: Sequence[Record]) -> Truth:
    """The objects of some pictures of a data set, with their files and the numbers of their annotations."""
    truth = read_truth(to_coco(data, records), [record.path for record in records])
    numbers = [np.arange(1, len(r.boxes) + 1) if r.numbers is None else r.numbers for r in records]
    return replace(truth, numbers=np.concatenate(numbers).astype(np.int64)) if records else truth


def _said(name: str, value: object, usual: object) -> list[str]:
    return [] if value == usual else [f"--{name}", str(value)]


def _check(weights: object, results: object, wanted: Measures) -> None:
    if (weights is None) == (results is None):
        raise UsageError("give weights, or the results of a detector, and not both")
    if results is not None and wanted.has_variants:
        raise UsageError("flip, scales and soft_nms need weights: results are measured as they are")


def _origin(
    measured: str, data: AnnotatedData, split: str, said: Sequence[str], wanted: Measures, *, from_file: bool
) -> Origin:
    """How to repeat the measurement."""
    words = ["fasterrcnn", "evaluate", *(["--results"] if from_file else []), measured, str(data.root)]
    words += ["--split", split, *said]
    packages = ("fasterrcnn", "hotcoco", "numpy", *(() if from_file else ("torch", "torchvision")))
    return Origin(
        command=shlex.join(words),
        data=str(data.root),
        split=split,
        detections=measured,
        max_dets=wanted.max_dets,
        versions={package: version(package) for package in packages},
        settings={name: str(value) for name, value in asdict(wanted).items()},
    )
