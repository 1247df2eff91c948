"""What `evaluate` measures besides the plain numbers. Needs no torch."""

import dataclasses
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np
import torch
from jaxtyping import Float64
from rich.progress import track

from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage, to_coco
from fasterrcnn.data.checks import BadBoxPolicy, check_and_repair
from fasterrcnn.data.formats import DataLike, read_data
from fasterrcnn.detections import Detections
from fasterrcnn.errors import UsageError
from fasterrcnn.evaluation.analysis import MeasurementOrigin
from fasterrcnn.evaluation.ground_truth import (
    GroundTruth,
    Predictions,
    load_results,
    read_ground_truth,
    read_results,
)
from fasterrcnn.evaluation.measure import Examination, measure
from fasterrcnn.evaluation.metrics.proposal_recall import LIMITS, ProposalRecall, measure_proposals
from fasterrcnn.evaluation.options import EvaluateOptions, EvaluationPlan, complete_evaluate_options
from fasterrcnn.evaluation.report import Report
from fasterrcnn.inference.detector import Detector, load
from fasterrcnn.inference.sources import load_image
from fasterrcnn.ops import boxes

if TYPE_CHECKING:
    from fasterrcnn.inference.detector import Detector


def propose(detector: Detector, paths: Sequence[Path], limit: int) -> Iterator[Float64[np.ndarray, "_ 4"]]:
    """The best proposals of each image, xyxy in its own pixels, by falling objectness.

    Args:
        detector: whose region proposal network is measured. Its limits are raised: a detector that classifies 300
            proposals could classify more.
        paths: the images.
        limit: most proposals of an image.
    """
    default = detector.model.proposals
    more = dataclasses.replace(default, proposals=limit, candidates=max(limit, default.candidates))
    for path in paths:
        image = load_image(path)
        batch = detector.to_batch([image.pixels])
        with torch.inference_mode():
            (predictions,) = detector.model.propose(detector.model.features(batch.pixels), batch, more)
        scaled = boxes.clip(boxes.scale(predictions.boxes.float(), batch.sizes_hw[0], image.hw), image.hw)
        yield scaled.cpu().numpy().astype(np.float64)


_MOST_IMAGES = 500
"""Images whose proposals are measured: enough for the share of objects reached, and the network runs again on them."""


def examine(
    weights: str | Path | Detector,
    data: AnnotatedData,
    records: Sequence[AnnotatedImage],
    ground_truth: GroundTruth,
    wanted: EvaluationPlan,
    *,
    batch_size: int,
    progress: bool,
) -> Examination:
    """Run a detector on annotated images, once for each variant of its options.

    Args:
        weights: a checkpoint, or a detector.
        data: where the classes come from; they are matched with those of the detector by name.
        records: the images.
        ground_truth: their objects.
        wanted: what to measure.
        batch_size: images that pass the network together.
        progress: show a bar on the terminal.

    Raises:
        UsageError: detector and data set have no class in common.
        WeightsError: the checkpoint cannot be read.
    """
    detector = weights if isinstance(weights, Detector) else load(weights)
    ids = _category_ids(detector.classes, data)
    paths = [record.path for record in records]
    limit = max(wanted.max_dets, detector.config.postprocess.max_detections)

    def gather(predictions: Iterable[Detections], doing: str) -> Predictions:
        rows: list[dict[str, object]] = []
        shown = track(predictions, doing, len(records), disable=not progress)
        for record, item in zip(records, shown, strict=True):
            in_common = item.filter(classes=[name for name in detector.classes if name in ids])
            rows += in_common.to_coco(record.image_id, [ids.get(name, 0) for name in detector.classes])
        return read_results(ground_truth, rows, wanted.max_dets)

    plain = gather(detector.stream(paths, batch_size=batch_size, max_detections=limit), "evaluating")
    streams = _streams(detector, paths, wanted, limit, batch_size)
    return Examination(
        plain,
        tuple((name, gather(stream, name), True) for name, stream in streams),
        _first_stage(detector, records, ground_truth, progress) if wanted.proposals else None,
        detector.config.postprocess.score_threshold,
    )


def _streams(
    detector: Detector, paths: Sequence[Path], wanted: EvaluationPlan, limit: int, batch_size: int
) -> Iterator[tuple[str, Iterator[Detections]]]:
    """Name and detections of each variant."""
    scales = " ".join(["scales", *(f"{scale:g}" for scale in wanted.scales)])
    variants: dict[str, list[str | float]] = {}
    if wanted.flip:
        variants["flip"] = ["flip"]
    if wanted.scales:
        variants[scales] = [*wanted.scales]
    if wanted.flip and wanted.scales:
        variants[f"flip and {scales}"] = ["flip", *wanted.scales]
    for name, augment in variants.items():
        yield name, detector.stream(paths, augment=augment, batch_size=batch_size, max_detections=limit)
    if wanted.soft_nms:
        yield "soft-NMS", detector.stream(paths, nms="soft-gaussian", batch_size=batch_size, max_detections=limit)


def _first_stage(
    detector: Detector, records: Sequence[AnnotatedImage], ground_truth: GroundTruth, progress: bool
) -> ProposalRecall:
    chosen = records[:: -(-len(records) // _MOST_IMAGES) or 1]
    places = {int(image_id): place for place, image_id in enumerate(ground_truth.images.ids)}
    predictions = propose(detector, [record.path for record in chosen], max(LIMITS))
    boxes = list(track(predictions, "proposals", len(chosen), disable=not progress))
    return measure_proposals(ground_truth, [places[record.image_id] for record in chosen], boxes)


def _category_ids(names: Sequence[str], data: AnnotatedData) -> dict[str, int]:
    """COCO category of each class of the detector that the data set has too, by name."""
    ids = {name: number for name, number in zip(data.classes, data.category_ids, strict=True) if name in names}
    if not ids:
        raise UsageError(
            "detector and data set have no class in common: "
            f"{', '.join(names[:10])} against {', '.join(data.classes[:10])}"
        )
    return ids


def evaluate(
    weights: "str | Path | Detector | None",
    data: DataLike,
    *,
    split: str = "test",
    results: str | Path | None = None,
    against: str | Path | None = None,
    batch_size: int = 1,
    on_bad_box: BadBoxPolicy = "error",
    progress: bool = False,
    name: str | None = None,
    **options: Unpack[EvaluateOptions],
) -> Report:
    """COCO's numbers on one split of a data set, and everything behind them.

    Args:
        weights: a checkpoint, or a detector; None with `results`.
        data: a folder or file in COCO, Pascal VOC, YOLO or CSV layout, a list of dicts, or what `read_data` gave.
        split: which images.
        results: measure the detections of this COCO results file instead, from whatever model; torch is not imported.
        against: compare with another results file, or with the folder of another report, on the same images: the
            paired differences with their intervals.
        batch_size: images that pass the network together.
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
    if results is not None:
        examination = Examination(load_results(results, ground_truth, wanted.max_dets))
    else:
        assert weights is not None
        examination = examine(
            weights, annotated, records, ground_truth, wanted, batch_size=batch_size, progress=progress
        )
    if against is not None:
        competitor = (str(against), load_results(against, ground_truth, wanted.max_dets), False)
        examination = replace(examination, others=(competitor, *examination.others))
    arguments = [*_argument("on-bad-box", on_bad_box, "error"), *_argument("against", against, None)]
    measured = name or str(weights if results is None else results)
    origin = _origin(measured, annotated, split, arguments, wanted, from_file=results is not None)
    intervals = {"samples": wanted.bootstrap, "seed": wanted.seed}
    return measure(ground_truth, examination, origin, inclusive=wanted.voc_pixels, **intervals)


def ground_truth_of(data: AnnotatedData, records: Sequence[AnnotatedImage]) -> GroundTruth:
    """The objects of some images of a data set, with their files and the numbers of their annotations."""
    ground_truth = read_ground_truth(to_coco(data, records), [record.path for record in records])
    numbers = [np.arange(1, len(r.boxes) + 1) if r.numbers is None else r.numbers for r in records]
    return replace(ground_truth, numbers=np.concatenate(numbers).astype(np.int64)) if records else ground_truth


def _argument(name: str, value: object, default: object) -> list[str]:
    return [] if value == default else [f"--{name}", str(value)]


def _check(weights: object, results: object, wanted: EvaluationPlan) -> None:
    if (weights is None) == (results is None):
        raise UsageError("give weights, or the results of a detector, and not both")
    if results is not None and wanted.has_variants:
        raise UsageError("flip, scales and soft_nms need weights: results are measured as they are")


def _origin(
    measured: str, data: AnnotatedData, split: str, arguments: Sequence[str], wanted: EvaluationPlan, *, from_file: bool
) -> MeasurementOrigin:
    """How to repeat the measurement."""
    words = ["fasterrcnn", "evaluate", *(["--results"] if from_file else []), measured, str(data.root)]
    words += ["--split", split, *arguments, *wanted.arguments()]
    packages = ("fasterrcnn", "hotcoco", "numpy", *(() if from_file else ("torch", "torchvision")))
    return MeasurementOrigin(
        command=shlex.join(words),
        data=str(data.root),
        split=split,
        detections=measured,
        max_dets=wanted.max_dets,
        versions={package: version(package) for package in packages},
        settings={name: str(value) for name, value in asdict(wanted).items()},
    )
