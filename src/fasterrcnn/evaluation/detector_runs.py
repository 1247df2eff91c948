"""What a detector finds in annotated images: as it is, with other options, and after its first stage."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage
from fasterrcnn.evaluation.analysis import DetectorRun, Other
from fasterrcnn.evaluation.diagnoses import diagnose_names
from fasterrcnn.evaluation.ground_truth import GroundTruth, Predictions, common_classes, read_results
from fasterrcnn.evaluation.metrics.proposal_recall import LIMITS, ProposalRecall, measure_proposals
from fasterrcnn.evaluation.options import EvaluateOptions
from fasterrcnn.inference.detector import Detector, load
from fasterrcnn.inference.options import DetectorOptions
from fasterrcnn.inference.sources import load_image
from fasterrcnn.ops import boxes

_MAX_IMAGES = 500
"""Images whose proposals are measured: enough for the share of objects reached, and the network runs again on them."""


def run_detector(
    weights: str | Path | Detector,
    data: AnnotatedData,
    records: Sequence[AnnotatedImage],
    ground_truth: GroundTruth,
    wanted: EvaluateOptions,
    *,
    batch_size: int | None,
    progress: bool,
) -> DetectorRun:
    """Run a detector on annotated images, once for each variant of its options; classes are matched by name.

    Raises:
        UsageError: detector and data set have no class in common.
        WeightsError: the checkpoint cannot be read.
    """
    detector = weights if isinstance(weights, Detector) else load(weights)
    id_of = dict(zip(data.classes, data.category_ids, strict=True))
    ids = {name: id_of[of_data] for name, of_data in common_classes(detector.classes, data.classes).items()}
    paths = [record.path for record in records]
    limit = max(wanted["max_dets"], detector.config.postprocess.max_detections)

    plain: DetectorOptions = {"batch_size": batch_size, "max_detections": limit}

    def gather(name: str, options: DetectorOptions) -> Predictions:
        both: DetectorOptions = {**plain, **options}
        shown = track(detector.stream(paths, **both), name, len(records), disable=not progress)
        rows: list[dict[str, object]] = []
        for record, item in zip(records, shown, strict=True):
            in_common = item.filter(classes=[name for name in detector.classes if name in ids])
            rows += in_common.to_coco(record.stated_id, [ids.get(name, 0) for name in detector.classes])
        return read_results(ground_truth, rows, wanted["max_dets"])

    predictions = gather("evaluating", {})
    variants = [Other(name, gather(name, options), is_variant=True) for name, options in _variants(wanted).items()]
    proposals = _first_stage(detector, records, ground_truth, progress) if wanted["proposals"] else None
    threshold = detector.config.postprocess.score_threshold
    return DetectorRun(predictions, variants, proposals, threshold, diagnose_names(detector.classes, data.classes))


def _variants(wanted: EvaluateOptions) -> dict[str, DetectorOptions]:
    """Name and options of each variant."""
    variants: dict[str, DetectorOptions] = {}
    scales = " ".join(["scales", *(f"{scale:g}" for scale in wanted["scales"])])
    if wanted["flip"]:
        variants["flip"] = {"augment": ["flip"]}
    if wanted["scales"]:
        variants[scales] = {"augment": [*wanted["scales"]]}
    if wanted["flip"] and wanted["scales"]:
        variants[f"flip and {scales}"] = {"augment": ["flip", *wanted["scales"]]}
    if wanted["soft_nms"]:
        variants["soft-NMS"] = {"nms": "soft-gaussian"}
    return variants


def _first_stage(
    detector: Detector, records: Sequence[AnnotatedImage], ground_truth: GroundTruth, progress: bool
) -> ProposalRecall:
    """Recall of the best proposals. Limits are raised: a detector that classifies 300 could classify more."""
    chosen = records[:: -(-len(records) // _MAX_IMAGES) or 1]
    default, limit = detector.model.proposals, max(LIMITS)
    more = replace(default, proposals=limit, candidates=max(limit, default.candidates))
    proposals = []
    for record in track(chosen, "proposals", disable=not progress):
        image = load_image(record.path, detector.config.input.pixels)
        batch = detector.to_batch([image.pixels])
        with torch.inference_mode():
            (proposed,) = detector.model.propose(detector.model.features(batch.pixels), batch, more)
        in_original = boxes.clip(boxes.scale(proposed.boxes.float(), batch.sizes_hw[0], image.hw), image.hw)
        proposals.append(in_original.cpu().numpy().astype(np.float64))
    places = np.searchsorted(ground_truth.images.ids, [record.image_id for record in chosen])
    return measure_proposals(ground_truth, places.tolist(), proposals)
