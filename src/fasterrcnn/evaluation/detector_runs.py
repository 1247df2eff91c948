"""What a detector finds in annotated images: as it is, with other options, and after its first stage."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from rich.progress import track

from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage
from fasterrcnn.detections import Detections
from fasterrcnn.errors import UsageError
from fasterrcnn.evaluation.analysis import Other
from fasterrcnn.evaluation.ground_truth import GroundTruth, Predictions, read_results
from fasterrcnn.evaluation.metrics.proposal_recall import LIMITS, ProposalRecall, measure_proposals
from fasterrcnn.evaluation.options import EvaluateOptions
from fasterrcnn.inference.detector import Detector, load
from fasterrcnn.inference.sources import load_image
from fasterrcnn.ops import boxes


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


_MAX_IMAGES = 500
"""Images whose proposals are measured: enough for the share of objects reached, and the network runs again on them."""


def run_detector(
    weights: str | Path | Detector,
    data: AnnotatedData,
    records: Sequence[AnnotatedImage],
    ground_truth: GroundTruth,
    wanted: EvaluateOptions,
    *,
    batch_size: int,
    progress: bool,
) -> tuple[Predictions, list[Other], ProposalRecall | None, float]:
    """Run a detector on annotated images, once for each variant of its options.

    Args:
        weights: a checkpoint, or a detector.
        data: where the classes come from; they are matched with those of the detector by name.
        records: the images.
        ground_truth: their objects.
        wanted: what to measure.
        batch_size: images that pass the network together.
        progress: show a bar on the terminal.

    Returns:
        its detections, those of its variants, the recall of its first stage where that is wanted, and the score below
        which it reports nothing.

    Raises:
        UsageError: detector and data set have no class in common.
        WeightsError: the checkpoint cannot be read.
    """
    detector = weights if isinstance(weights, Detector) else load(weights)
    ids = _category_ids(detector.classes, data)
    paths = [record.path for record in records]
    limit = max(wanted["max_dets"], detector.config.postprocess.max_detections)

    def gather(predictions: Iterable[Detections], doing: str) -> Predictions:
        rows: list[dict[str, object]] = []
        shown = track(predictions, doing, len(records), disable=not progress)
        for record, item in zip(records, shown, strict=True):
            in_common = item.filter(classes=[name for name in detector.classes if name in ids])
            rows += in_common.to_coco(record.image_id, [ids.get(name, 0) for name in detector.classes])
        return read_results(ground_truth, rows, wanted["max_dets"])

    plain = gather(detector.stream(paths, batch_size=batch_size, max_detections=limit), "evaluating")
    streams = _streams(detector, paths, wanted, limit, batch_size)
    variants = [Other(name, gather(stream, name), is_variant=True) for name, stream in streams]
    proposals = _first_stage(detector, records, ground_truth, progress) if wanted["proposals"] else None
    return plain, variants, proposals, detector.config.postprocess.score_threshold


def _streams(
    detector: Detector, paths: Sequence[Path], wanted: EvaluateOptions, limit: int, batch_size: int
) -> Iterator[tuple[str, Iterator[Detections]]]:
    """Name and detections of each variant."""
    scales = " ".join(["scales", *(f"{scale:g}" for scale in wanted["scales"])])
    variants: dict[str, list[str | float]] = {}
    if wanted["flip"]:
        variants["flip"] = ["flip"]
    if wanted["scales"]:
        variants[scales] = [*wanted["scales"]]
    if wanted["flip"] and wanted["scales"]:
        variants[f"flip and {scales}"] = ["flip", *wanted["scales"]]
    for name, augment in variants.items():
        yield name, detector.stream(paths, augment=augment, batch_size=batch_size, max_detections=limit)
    if wanted["soft_nms"]:
        yield "soft-NMS", detector.stream(paths, nms="soft-gaussian", batch_size=batch_size, max_detections=limit)


def _first_stage(
    detector: Detector, records: Sequence[AnnotatedImage], ground_truth: GroundTruth, progress: bool
) -> ProposalRecall:
    chosen = records[:: -(-len(records) // _MAX_IMAGES) or 1]
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
