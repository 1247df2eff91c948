"""What a detector finds in annotated pictures: as it is, and with other rules."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rich.progress import track

from fasterrcnn.data.records import AnnotatedData, Record
from fasterrcnn.detections import Detections
from fasterrcnn.errors import UsageError
from fasterrcnn.evaluation.measure import Examination
from fasterrcnn.evaluation.proposal_recall import LIMITS, ProposalRecall, measure_proposals
from fasterrcnn.evaluation.reading import read_results
from fasterrcnn.evaluation.truth import Predictions, Truth
from fasterrcnn.inference.detector import Detector
from fasterrcnn.inference.first_stage import propose
from fasterrcnn.inference.loading import load
from fasterrcnn.inference.measures import Measures

_MOST_PICTURES = 500
"""Pictures whose proposals are looked at: enough for a share of objects, and the network has to look again."""


def examine(
    weights: str | Path | Detector,
    data: AnnotatedData,
    records: Sequence[Record],
    truth: Truth,
    wanted: Measures,
    *,
    batch_size: int,
    progress: bool,
) -> Examination:
    """Let a detector look at annotated pictures, once for each way of looking.

    Args:
        weights: a checkpoint, or a detector.
        data: where the classes come from; they are matched with those of the detector by name.
        records: the pictures.
        truth: their objects.
        wanted: what to measure.
        batch_size: pictures that pass the network together.
        progress: show a bar on the terminal.

    Raises:
        UsageError: detector and data set have no class in common.
        WeightsError: the checkpoint cannot be read.
    """
    detector = weights if isinstance(weights, Detector) else load(weights)
    ids = _category_ids(detector.classes, data)
    paths = [record.path for record in records]
    limit = max(wanted.max_dets, detector.config.postprocess.max_detections)

    def gather(found: Iterable[Detections], doing: str) -> Predictions:
        rows: list[dict[str, object]] = []
        shown = track(found, doing, len(records), disable=not progress)
        for record, one in zip(records, shown, strict=True):
            known = one.filter(classes=[name for name in detector.classes if name in ids])
            rows += known.to_coco(record.image_id, [ids.get(name, 0) for name in detector.classes])
        return read_results(truth, rows, wanted.max_dets)

    plain = gather(detector.stream(paths, batch_size=batch_size, max_detections=limit), "evaluating")
    streams = _streams(detector, paths, wanted, limit, batch_size)
    return Examination(
        plain,
        tuple((name, gather(stream, name), True) for name, stream in streams),
        _first_stage(detector, records, truth, progress) if wanted.proposals else None,
        detector.config.postprocess.score_threshold,
    )


def _streams(
    detector: Detector, paths: Sequence[Path], wanted: Measures, limit: int, batch_size: int
) -> Iterator[tuple[str, Iterator[Detections]]]:
    """Name and detections of each variant."""
    scales = " ".join(["scales", *(f"{scale:g}" for scale in wanted.scales)])
    looks: dict[str, list[str | float]] = {}
    if wanted.flip:
        looks["flip"] = ["flip"]
    if wanted.scales:
        looks[scales] = [*wanted.scales]
    if wanted.flip and wanted.scales:
        looks[f"flip and {scales}"] = ["flip", *wanted.scales]
    for name, augment in looks.items():
        yield name, detector.stream(paths, augment=augment, batch_size=batch_size, max_detections=limit)
    if wanted.soft_nms:
        yield "soft-NMS", detector.stream(paths, nms="soft-gaussian", batch_size=batch_size, max_detections=limit)


def _first_stage(detector: Detector, records: Sequence[Record], truth: Truth, progress: bool) -> ProposalRecall:
    chosen = records[:: -(-len(records) // _MOST_PICTURES) or 1]
    places = {int(image_id): place for place, image_id in enumerate(truth.pictures.ids)}
    found = propose(detector, [record.path for record in chosen], max(LIMITS))
    boxes = list(track(found, "proposals", len(chosen), disable=not progress))
    return measure_proposals(truth, [places[record.image_id] for record in chosen], boxes)


def _category_ids(known: Sequence[str], data: AnnotatedData) -> dict[str, int]:
    """COCO category of each class of the detector that the data set has too, by name."""
    ids = {name: number for name, number in zip(data.classes, data.category_ids, strict=True) if name in known}
    if not ids:
        raise UsageError(
            "detector and data set have no class in common: "
            f"{', '.join(known[:10])} against {', '.join(data.classes[:10])}"
        )
    return ids
