"""A detector against an annotated data set."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.progress import track

from fasterrcnn.data.doctor import Policy, admit
from fasterrcnn.data.formats import Source, read_data
from fasterrcnn.data.records import AnnotatedData, Record, to_coco
from fasterrcnn.detections import Detections
from fasterrcnn.errors import UsageError
from fasterrcnn.evaluation.coco import score_detections
from fasterrcnn.evaluation.report import Report
from fasterrcnn.inference.detector import Detector, load


def evaluate(
    weights: str | Path | Detector,
    data: Source,
    *,
    split: str = "test",
    batch_size: int = 1,
    on_bad_box: Policy = "error",
    progress: bool = False,
) -> Report:
    """COCO's numbers of a detector on one split of a data set.

    Args:
        weights: a checkpoint, or a detector.
        data: a folder or file in COCO, Pascal VOC, YOLO or CSV layout, a list of dicts, or what `read_data` gave.
        split: which pictures.
        batch_size: pictures that pass the network together.
        on_bad_box: what to do about errors in the data: "error" refuses them, "fix" mends them, "drop" leaves them out.
        progress: show a bar on the terminal.

    Raises:
        UsageError: the split does not exist, or detector and data set have no class in common.
        DataError: the data set cannot be read, or has errors that `on_bad_box` does not allow.
        WeightsError: the checkpoint cannot be read.
    """
    annotated = admit(read_data(data), on_bad_box).data
    records = annotated.split(split)
    detector = weights if isinstance(weights, Detector) else load(weights)
    ids = _category_ids(detector.classes, annotated)
    results: list[dict[str, object]] = []
    for record, found in _predict(detector, records, batch_size, progress):
        rows = found.filter(classes=[name for name in detector.classes if name in ids])
        results += rows.to_coco(record.image_id, [ids.get(name, 0) for name in detector.classes])
    return score_detections(to_coco(annotated, records), results)


def _predict(
    detector: Detector, records: Sequence[Record], batch_size: int, progress: bool
) -> Iterator[tuple[Record, Detections]]:
    paths = [record.path for record in records]
    found = detector.stream(paths, batch_size=batch_size)
    return zip(records, track(found, "evaluating", len(paths), disable=not progress), strict=True)


def _category_ids(known: Sequence[str], data: AnnotatedData) -> dict[str, int]:
    """COCO category of each class of the detector that the data set has too, by name."""
    ids = {name: number for name, number in zip(data.classes, data.category_ids, strict=True) if name in known}
    if not ids:
        raise UsageError(
            "detector and data set have no class in common: "
            f"{', '.join(known[:10])} against {', '.join(data.classes[:10])}"
        )
    return ids
