"""Data formats: recognises a data set by its content and reads it.

To add a format, write a file like ``voc.py`` with a subclass of `fasterrcnn.data.formats.base.DataFormat`, and register
it in `FORMATS`; see "Add a format" in docs/data.md.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fasterrcnn.data.annotations import AnnotatedData
from fasterrcnn.data.formats.base import BoxFormat, DataFormat, ReadOptions
from fasterrcnn.data.formats.coco import Coco
from fasterrcnn.data.formats.csv_table import CsvTable
from fasterrcnn.data.formats.dicts import read_dicts
from fasterrcnn.data.formats.voc import PascalVoc
from fasterrcnn.data.formats.yolo import Yolo
from fasterrcnn.errors import DataError, UsageError

FORMATS: dict[str, DataFormat] = {
    "coco": Coco(),
    "voc": PascalVoc(),
    "yolo": Yolo(),
    "csv": CsvTable(),
}
"""All formats by the names of ``--format`` and ``--to``."""

DataLike = str | Path | AnnotatedData | Sequence[Mapping[str, Any]]
"""Whatever `read_data` can read: a folder or file, a list of dicts, or data that was read already."""


def read_data(
    data: DataLike,
    *,
    format: str | None = None,
    images: str | Path | None = None,
    classes: Sequence[str] | None = None,
    columns: Mapping[str, str] | None = None,
    box_format: BoxFormat = "xyxy",
) -> AnnotatedData:
    """Read annotated images, as they are: problems are collected in ``findings``, invalid boxes stay.

    Args:
        data: a folder or file in COCO, Pascal VOC, YOLO or CSV layout, or a list of dicts with the keys ``image`` (a
            path), ``boxes``, ``labels`` (names) and perhaps ``split``.
        format: "coco", "voc", "yolo" or "csv", where several could read it.
        images: folder of the images, where they are not beside the annotations (COCO, CSV).
        classes: names of the classes, in the order of their labels (YOLO without a list, CSV).
        columns: names of the columns of a table, by meaning: image, x1, y1, x2, y2, label, split...
        box_format: of a table or a list: "xyxy", "xywh" (left, top, width, height) or "cxcywh" (centre first).

    Raises:
        DataError: no data set, several, or not readable; the message lists the layouts that were tried.
        UsageError: an option that cannot work.
    """
    if isinstance(data, AnnotatedData):
        return data
    names = None if classes is None else tuple(classes)
    if not isinstance(data, str | Path):
        return read_dicts(data, classes=names, box_format=box_format)
    options = ReadOptions(None if images is None else Path(images), names, columns, box_format)
    chosen, place = _recognise(Path(data), format, options)
    return chosen.read(place, options)


def data_format_of(data: AnnotatedData) -> DataFormat | None:
    """The format that data was read from; None for data in memory."""
    return next((form for form in FORMATS.values() if form.title == data.format), None)


def _recognise(root: Path, name: str | None, options: ReadOptions) -> tuple[DataFormat, Path]:
    """The format, and the place that it reads."""
    if not os.path.exists(root):  # unlike Path.exists, no error for a name that is too long
        raise DataError(f"{root}: no such file or folder")
    if name is not None and name not in FORMATS:
        raise UsageError(f"no format {name!r}; there are: {', '.join(FORMATS)}")
    candidates = {key: form for key, form in FORMATS.items() if name in (None, key)}
    places = [(key, place) for key, form in candidates.items() for place in form.recognise(root, options)]
    if not places:
        content = sorted(path.name for path in root.iterdir())[:5] if root.is_dir() else []
        shown = f"; it holds {', '.join(content)}..." if content else ""
        layouts = ", ".join(form.layout for form in candidates.values())
        raise DataError(f"{root}: no annotated images found. Tried {layouts}{shown}")
    if len(places) > 1:
        shown = "; ".join(f"--format {key} ({place})" for key, place in places)
        raise DataError(
            f"{root}: could be read in {len(places)} ways; name the folder or the file, or choose one: {shown}"
        )
    key, place = places[0]
    return FORMATS[key], place
