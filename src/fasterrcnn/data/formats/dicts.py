"""Annotations in memory: a list of dicts, one for each image."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fasterrcnn.data.annotations import AnnotatedData
from fasterrcnn.data.findings import Finding
from fasterrcnn.data.formats.base import BoxFormat
from fasterrcnn.data.formats.rows import RowCollector, box_to_xyxy, split_name
from fasterrcnn.errors import DataError

IN_MEMORY = "list"
"""``AnnotatedData.format`` of what `read_dicts` gives; its root is no folder."""

_KEYS = ("image", "boxes", "labels", "split", "difficult")


def read_dicts(
    rows: Sequence[Mapping[str, Any]], *, classes: tuple[str, ...] | None = None, box_format: BoxFormat = "xyxy"
) -> AnnotatedData:
    """Annotations in memory, collecting all problems. Rows are counted from 1.

    Args:
        rows: one for each image: ``image`` (a path), ``boxes`` (n x 4, may be empty), ``labels`` (n names, or
            indices into ``classes``), and perhaps ``split`` (a name) and ``difficult`` (n flags).
        classes: names of the classes, in the order of their labels; without, in the order of the rows.
        box_format: what the four numbers of a box are.

    Raises:
        DataError: a row does not have that form, or there is no image.
    """
    collector = RowCollector(classes)
    for number, row in enumerate(rows, start=1):
        try:
            path, boxes, labels, difficult = _checked(row, classes)
        except DataError as error:
            raise DataError(f"row {number}: {error}") from None
        if not path.is_file():
            what = f"row {number}: there is no such image"
            collector.findings.append(Finding("missing-image", path, what, number, path))
            continue
        image = collector.image(path, split_name(str(row.get("split") or "")), None)
        for position, (box, label, flag) in enumerate(zip(boxes, labels, difficult, strict=True), start=1):
            where = f"row {number}, box {position}"
            collector.add(image, box_to_xyxy(box, box_format), label, flag, number, where)
    return collector.finish(Path(), IN_MEMORY, "box")


def _checked(
    row: Mapping[str, Any], classes: tuple[str, ...] | None
) -> tuple[Path, list[list[float]], list[str], list[bool]]:
    """Image, boxes, names and flags of a dict."""
    if not isinstance(row, Mapping) or "image" not in row or "boxes" not in row:
        raise DataError(f"a dict with image, boxes and labels is expected, not {_shown(row)}")
    unknown = [key for key in row if key not in _KEYS]
    if unknown:
        raise DataError(f"unknown key {unknown[0]!r}; there are: {', '.join(_KEYS)}")
    if not isinstance(row["image"], str | Path):
        raise DataError(f"image must be a path, not {_shown(row['image'])}")
    try:
        boxes = np.asarray(row["boxes"], dtype=np.float64)
    except (TypeError, ValueError):
        boxes = np.full(1, np.nan)  # refused with the other shapes
    if boxes.size and (boxes.ndim != 2 or boxes.shape[1] != 4):
        raise DataError(f"boxes must be n x 4 numbers, not {_shown(row['boxes'])}")
    boxes = boxes.reshape(-1, 4)
    labels = np.asarray(row.get("labels", ()), dtype=object)
    difficult = np.asarray(row.get("difficult", np.zeros(len(boxes))), dtype=np.bool_)
    for key, values in (("labels", labels), ("difficult", difficult)):
        if values.shape != (len(boxes),):
            raise DataError(f"{len(boxes)} boxes need as many {key}, not {_shown(row.get(key))}")
    return Path(row["image"]), boxes.tolist(), [_name(label, classes) for label in labels], difficult.tolist()


def _name(label: object, classes: tuple[str, ...] | None) -> str:
    if isinstance(label, str) and label.strip():
        return label.strip()
    if not isinstance(label, int | np.integer) or classes is None:
        raise DataError(f"labels must be names, or indices where classes are given, not {_shown(label)}")
    return classes[label] if 0 <= label < len(classes) else f"index {label}"


def _shown(value: object) -> str:
    return f"{' '.join(repr(value).split()):.80}"
