"""A detector against an annotated data set."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.progress import track

from fasterrcnn.data.records import AnnotatedData, Record, to_coco
from fasterrcnn.data.voc import read_voc
from fasterrcnn.detections import Detections
from fasterrcnn.errors import UsageError
from fasterrcnn.evaluation.coco import Report, score_detections
from fasterrcnn.inference.detector import Detector, load


def evaluate(
    weights: str | Path | Detector,
    data: str | Path | AnnotatedData,
    *,
    split: str = "test",
    batch_size: int = 1,
    progress: bool = False,
) -> Report:
    """COCO's numbers of a detector on one split of a data set.

    Args:
        weights: a checkpoint, or a detector.
        data: a Pascal VOC folder, or a data set that was read before.
        split: which pictures.
        batch_size: pictures that pass the network together.
        progress: show a bar on the terminal.

    Raises:
        UsageError: the split does not exist, or detector and data set have no class in common.
        DataError: the data set cannot be read.
        WeightsError: the checkpoint cannot be read.
    """
    annotated = data if isinstance(data, AnnotatedData) else read_voc(Path(data))
    records = annotated.split(split)
    detector = weights if isinstance(weights, Detector) else load(weights)
    ids = _category_ids(detector.classes, annotated.classes)
    results: list[dict[str, object]] = []
    for record, found in _predict(detector, records, batch_size, progress):
        rows = found.filter(classes=[name for name in detector.classes if name in ids])
        results += rows.to_coco(record.image_id, [ids.get(name, 0) for name in detector.classes])
    return score_detections(to_coco(records, annotated.classes), results)


def _predict(
    detector: Detector, records: Sequence[Record], batch_size: int, progress: bool
) -> Iterator[tuple[Record, Detections]]:
    paths = [record.path for record in records]
    found = detector.stream(paths, batch_size=batch_size)
    return zip(records, track(found, "evaluating", len(paths), disable=not progress), strict=True)


def _category_ids(known: Sequence[str], wanted: Sequence[str]) -> dict[str, int]:
    """COCO category of each class of the detector that the data set has too, by name."""
    ids = {name: wanted.index(name) + 1 for name in known if name in wanted}
    if not ids:
        raise UsageError(
            f"detector and data set have no class in common: {', '.join(known[:10])} against {', '.join(wanted[:10])}"
        )
    return ids
