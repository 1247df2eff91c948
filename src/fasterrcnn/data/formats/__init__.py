"""Which format is it? Recognises a data set by its content and reads it."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from fasterrcnn.data.annotations import AnnotatedData
from fasterrcnn.data.formats import coco, dicts, table, voc, yolo
from fasterrcnn.data.formats.collection import BoxFormat
from fasterrcnn.errors import DataError, UsageError

Format = Literal["coco", "voc", "yolo", "csv"]
Source = str | Path | AnnotatedData | Sequence[Mapping[str, Any]]

_FINDERS: dict[Format, Callable[[Path], list[Path]]] = {
    "coco": coco.find,
    "voc": voc.find,
    "yolo": yolo.find,
    "csv": table.find,
}


def read_data(
    data: Source,
    *,
    format: Format | None = None,
    images: str | Path | None = None,
    classes: Sequence[str] | None = None,
    columns: Mapping[str, str] | None = None,
    box_format: BoxFormat = "xyxy",
) -> AnnotatedData:
    """Read annotated images, as they are: problems are collected in ``findings``, bad boxes stay.

    Args:
        data: a folder or file in COCO, Pascal VOC, YOLO or CSV layout, or a list of dicts with the keys ``image`` (a
            path), ``boxes``, ``labels`` (names) and perhaps ``split``.
        format: which reader, where several could read it.
        images: folder of the images, where they are not beside the annotations (COCO, CSV).
        classes: names of the classes, in the order of their labels (YOLO without a list, CSV).
        columns: names of the columns of a table, by meaning: image, x1, y1, x2, y2, label, split...
        box_format: of a table or a list: "xyxy", "xywh" (left, top, width, height) or "cxcywh" (centre first).

    Raises:
        DataError: no data set, several, or not readable; the message says what was looked for.
        UsageError: an option that cannot work.
    """
    if isinstance(data, AnnotatedData):
        return data
    names = None if classes is None else tuple(classes)
    if not isinstance(data, str | Path):
        return dicts.read(data, classes=names, box_format=box_format)
    name, place = _recognise(Path(data), format, columns)
    image_folder = None if images is None else Path(images)
    if name == "coco":
        return coco.read(place, images=image_folder)
    if name == "voc":
        return voc.read(place)
    if name == "yolo":
        return yolo.read(place, classes=names)
    return table.read(place, images=image_folder, classes=names, columns=columns, box_format=box_format)


def _recognise(root: Path, wanted: Format | None, columns: Mapping[str, str] | None) -> tuple[Format, Path]:
    """The format, and the place that its reader takes."""
    if not os.path.exists(root):  # a name that is too long is no error here
        raise DataError(f"{root}: no such file or folder")
    if wanted is not None and wanted not in _FINDERS:
        raise UsageError(f"no format {wanted!r}; there are: {', '.join(get_args(Format))}")
    places = {name: find(root) for name, find in _FINDERS.items() if wanted in (None, name)}
    if columns is not None and "csv" in places:
        places["csv"] = table.find(root, columns)
    found = [(name, place) for name, some in places.items() for place in some]
    if not found:
        raise DataError(_nothing(root, wanted))
    if len(found) > 1:
        shown = "; ".join(f"--format {name} ({place})" for name, place in found)
        raise DataError(
            f"{root}: could be read in {len(found)} ways; name the folder or the file, or say which: {shown}"
        )
    return found[0]


def _nothing(root: Path, wanted: Format | None) -> str:
    looked_for: dict[Format, str] = {
        "coco": 'COCO (.json files with "images" and "annotations")',
        "voc": "Pascal VOC (.xml files, in Annotations/ or beside the images)",
        "yolo": "YOLO (data.yaml, or images/ beside labels/ with .txt files)",
        "csv": "CSV (.csv or .tsv with columns for image, box and class)",
    }
    names = [looked_for[wanted]] if wanted else list(looked_for.values())
    content = sorted(path.name for path in root.iterdir())[:5] if root.is_dir() else []
    shown = f"; it holds {', '.join(content)}..." if content else ""
    return f"{root}: no annotated images found. Looked for {', '.join(names)}{shown}"
