"""Data formats: recognises a data set by its content and reads it, or writes it in another format.

A new format is a file like ``voc.py`` with a subclass of `fasterrcnn.data.formats.base.DataFormat`, and a line in
`FORMATS`; see "Add a data format" in CONTRIBUTING.md.
"""

import gc
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fasterrcnn.data.annotations import AnnotatedData
from fasterrcnn.data.formats.base import DataFormat, ReadOptions
from fasterrcnn.data.formats.coco import Coco
from fasterrcnn.data.formats.collector import Collector
from fasterrcnn.data.formats.createml import CreateMl
from fasterrcnn.data.formats.csv_table import CsvTable
from fasterrcnn.data.formats.cvat import Cvat
from fasterrcnn.data.formats.datumaro import Datumaro
from fasterrcnn.data.formats.dota import Dota
from fasterrcnn.data.formats.kitti import Kitti
from fasterrcnn.data.formats.label_studio import LabelStudio
from fasterrcnn.data.formats.labelme import Labelme
from fasterrcnn.data.formats.mot import MotChallenge
from fasterrcnn.data.formats.reading import split_name
from fasterrcnn.data.formats.shapes import BoxFormat, box_to_xyxy
from fasterrcnn.data.formats.supervisely import Supervisely
from fasterrcnn.data.formats.tfrecord import TfRecord
from fasterrcnn.data.formats.unread import OTHER_FILES, UNREAD_FORMATS, unread_advice
from fasterrcnn.data.formats.values import shortened
from fasterrcnn.data.formats.via import Via
from fasterrcnn.data.formats.visdrone import VisDrone
from fasterrcnn.data.formats.voc import PascalVoc
from fasterrcnn.data.formats.vott import Vott
from fasterrcnn.data.formats.wider_face import WiderFace
from fasterrcnn.data.formats.writing import write_as
from fasterrcnn.data.formats.yolo import Yolo
from fasterrcnn.errors import DataError, UsageError
from fasterrcnn.files import listings_kept

FORMATS: dict[str, DataFormat] = {
    "coco": Coco(),
    "voc": PascalVoc(),
    "yolo": Yolo(),
    "csv": CsvTable(),
    "cvat": Cvat(),
    "datumaro": Datumaro(),
    "supervisely": Supervisely(),
    "kitti": Kitti(),
    "visdrone": VisDrone(),
    "wider_face": WiderFace(),
    "dota": Dota(),
    "mot": MotChallenge(),
    "labelme": Labelme(),
    "label_studio": LabelStudio(),
    "via": Via(),
    "createml": CreateMl(),
    "vott": Vott(),
    "tfrecord": TfRecord(),
}
"""All formats by the names of ``--format`` and ``--to``."""

IN_MEMORY = "list"
"""``AnnotatedData.format`` of what `read_dicts` gives; its root is no folder."""

_KEYS = ("image", "boxes", "labels", "split", "difficult")

DataLike = str | Path | AnnotatedData | Sequence[Mapping[str, Any]]
"""Whatever `read_data` can read: a folder or file, a list of dicts, or data that was read already."""


def read_data(
    data: DataLike,
    *,
    format: str | None = None,
    images: str | Path | Sequence[str | Path] | None = None,
    classes: Sequence[str] | None = None,
    columns: Mapping[str, str] | None = None,
    box_format: BoxFormat | None = None,
) -> AnnotatedData:
    """Read annotated images, as they are: problems are collected in ``findings``, invalid boxes stay.

    Args:
        data: a folder or file in the layout of one of `FORMATS`, or a list of dicts with the keys ``image`` (a
            path), ``boxes``, ``labels`` (names) and perhaps ``split``.
        format: one of `FORMATS`, where several could read it.
        images: folder of the images, or several; default: they are searched in the data set and, if none is in it,
            beside it (`fasterrcnn.data.image_finder`).
        classes: names of the classes, in the order of their labels (YOLO, CSV, MOT Challenge, TFRecord, lists of
            dicts).
        columns: names of the columns of a table (CSV), by meaning: image, x1, y1, x2, y2, label, split...; or "label"
            alone, the region attribute that is the class (VIA).
        box_format: of a list of dicts, or of a table (CSV) whose columns leave it open: "xyxy" (default), "xywh" (left,
            top, width, height; default of four numbers in one column) or "cxcywh" (centre first).

    Raises:
        DataError: no data set, several, or not readable; the message lists the layouts that were tried.
        UsageError: an option that cannot work, or that the format cannot use.
    """
    folders = [images] if isinstance(images, str | Path) else images or ()
    names = _checked_classes(classes)
    options = ReadOptions(tuple(map(Path, folders)), names, columns, box_format)
    if isinstance(data, AnnotatedData):
        _refuse_options(options, frozenset(), "data that was read already")
        return data
    if not isinstance(data, str | Path):
        _refuse_options(options, frozenset({"classes", "box_format"}), "a list of dicts")
        return read_dicts(data, classes=names, box_format=box_format or "xyxy")
    chosen, place = _recognise(Path(data), format, options)
    _refuse_options(options, chosen.options, f"{chosen.title} ({place})")
    with _no_cyclic_collection():
        return chosen.read(place, options)


@contextmanager
def _no_cyclic_collection() -> Iterator[None]:
    """Readers make millions of values and no cycles; to search these for cycles again and again takes seconds."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _checked_classes(classes: Sequence[str] | None) -> tuple[str, ...] | None:
    """The names of the classes that the user lists, if any.

    Raises:
        UsageError: they are no list of different names.
    """
    if classes is None:
        return None
    if isinstance(classes, str) or not classes:
        raise UsageError(f"classes (--class-names) must be a list of names, not {shortened(classes)}")
    for position, name in enumerate(classes):
        if not isinstance(name, str) or not name.strip():
            raise UsageError(f"classes (--class-names): {shortened(name)} is no name of a class, but empty or no text")
        if name in classes[:position]:
            raise UsageError(f"classes (--class-names): {shortened(name)} is there twice; each class is listed once")
    return tuple(classes)


def _refuse_options(options: ReadOptions, usable: frozenset[str], data: str) -> None:
    """Refuse what the user gave in vain.

    Raises:
        UsageError: an option does not apply to these data.
    """
    for name in options.given():
        if name not in usable:
            title = ", ".join(form.title for form in FORMATS.values() if name in form.options)
            option = {"classes": "--class-names"}.get(name, f"--{name.replace('_', '-')}")
            raise UsageError(f"{name} ({option}) does not apply to {data}; it is for {title}")


def read_dicts(
    rows: Sequence[Mapping[str, Any]], *, classes: tuple[str, ...] | None = None, box_format: BoxFormat = "xyxy"
) -> AnnotatedData:
    """Annotations in memory, collecting all problems. Rows are counted from 1.

    A row is an image: ``image`` (a path), ``boxes`` (n x 4, may be empty), ``labels`` (n names, or indices into
    ``classes``), and perhaps ``split`` (a name) and ``difficult`` (n flags). Without a list, classes are in the order
    of the rows.

    Raises:
        DataError: a row does not have that form, or there is no image.
    """
    collector = Collector(Path(), IN_MEMORY, "box", classes)
    for number, row in enumerate(rows, start=1):
        try:
            path, boxes, labels, flags = _checked(row, classes)
        except DataError as error:
            raise DataError(f"row {number}: {error}") from None
        if not path.is_file():
            collector.problem("missing-image", path, f"row {number}: there is no such image", number, image=path)
            continue
        image = collector.image(path, split_name(str(row.get("split") or "")))
        for position, (box, label, flag) in enumerate(zip(boxes, labels, flags, strict=True), start=1):
            xyxy, where = box_to_xyxy(box, box_format), f"row {number}, box {position}"
            collector.add(image, xyxy, label, number, difficult=flag, where=where)
    return collector.finish()


def data_format_of(data: AnnotatedData) -> DataFormat | None:
    """The format that data was read from; None for data in memory."""
    return next((form for form in FORMATS.values() if form.title == data.format), None)


def write_data(data: AnnotatedData, folder: Path, to: str) -> list[str]:
    """Write a data set, images included, into a folder that does not exist yet or is empty.

    Boxes are written as they are, those without area or over the border too. The folder appears when all of it is
    written: after an error, or Ctrl-C, there is nothing. An image keeps its file name, unless another one has it
    already or not every system allows it. Splits without images are left out; so is, but in VOC, a "trainval" that
    holds the images of train and val. The docstring of each format describes its layout. What the format has no place
    for is returned in sentences.

    Raises:
        UsageError: the folder is not empty, or there is no such format.
        DataError: a box has NaN or infinite coordinates, a split has a name that tools do not know, or an image is
            not there.
    """
    writable = [name for name, form in FORMATS.items() if form.can_write]
    if to not in writable:
        raise UsageError(f"no format {to!r} to write; there are: {', '.join(writable)}")
    return write_as(FORMATS[to], data, folder)


def _recognise(root: Path, name: str | None, options: ReadOptions) -> tuple[DataFormat, Path]:
    """The format, and the place that it reads."""
    if not os.path.exists(root):  # unlike Path.exists, no error for a name that is too long
        raise DataError(f"{root}: no such file or folder")
    if name is not None and name not in FORMATS:
        raise UsageError(f"no format {name!r}; there are: {', '.join(FORMATS)}")
    candidates = {key: form for key, form in FORMATS.items() if name in (None, key)}
    with listings_kept():
        places = [(key, place) for key, form in candidates.items() for place in form.recognise(root, options)]
    if not places:
        raise DataError(f"{root}: no annotated images found. {_nothing(root, list(candidates.values()), options)}")
    if len(places) > 1:
        named = ", ".join(str(place) for _, place in places[:10]) + (", ..." if len(places) > 10 else "")
        if len({key for key, _ in places}) == 1:  # the option would not decide
            raise DataError(
                f"{root}: {len(places)} data sets in {FORMATS[places[0][0]].title} format; name one: {named}"
            )
        shown = "; ".join(f"--format {key} ({place})" for key, place in places)
        raise DataError(
            f"{root}: could be read in {len(places)} ways; name the folder or the file, or choose one: {shown}"
        )
    key, place = places[0]
    return FORMATS[key], place


def _nothing(root: Path, forms: Sequence[DataFormat], options: ReadOptions) -> str:
    """What is wrong with data that no format recognises; else what was searched for, and what is there."""
    if advice := unread_advice(root, UNREAD_FORMATS):
        return advice
    if misses := [miss for form in forms if (miss := form.near_miss(root, options))]:
        return "; ".join(misses)
    if advice := unread_advice(root, OTHER_FILES):
        return advice
    content = sorted(path.name for path in root.iterdir())[:5] if root.is_dir() else []
    shown = f"; it holds {', '.join(content)}..." if content else ""
    if len(forms) == 1:
        return f"Tried {forms[0].layout}{shown}"
    return f"Tried {', '.join(form.title for form in forms)} (--format NAME describes the files of one){shown}"


def _checked(
    row: Mapping[str, Any], classes: tuple[str, ...] | None
) -> tuple[Path, list[list[float]], list[str], list[bool]]:
    """Image, boxes, names and flags of a dict."""
    if not isinstance(row, Mapping) or "image" not in row or "boxes" not in row:
        raise DataError(f"a dict with image, boxes and labels is expected, not {shortened(row)}")
    unknown = [key for key in row if key not in _KEYS]
    if unknown:
        raise DataError(f"unknown key {unknown[0]!r}; there are: {', '.join(_KEYS)}")
    if not isinstance(row["image"], str | Path):
        raise DataError(f"image must be a path, not {shortened(row['image'])}")
    try:
        boxes = np.asarray(row["boxes"], dtype=np.float64)
    except (TypeError, ValueError):
        boxes = np.full(1, np.nan)  # refused with the other shapes
    if boxes.size and (boxes.ndim != 2 or boxes.shape[1] != 4):
        raise DataError(f"boxes must be n x 4 numbers, not {shortened(row['boxes'])}")
    boxes = boxes.reshape(-1, 4)
    labels = np.asarray(row.get("labels", ()), dtype=object)
    difficult = np.asarray(row.get("difficult", np.zeros(len(boxes))), dtype=np.bool_)
    for key, values in (("labels", labels), ("difficult", difficult)):
        if values.shape != (len(boxes),):
            raise DataError(f"{len(boxes)} boxes need as many {key}, not {shortened(row.get(key))}")
    return Path(row["image"]), boxes.tolist(), [_name(label, classes) for label in labels], difficult.tolist()


def _name(label: object, classes: tuple[str, ...] | None) -> str:
    if isinstance(label, str) and label.strip():
        return label.strip()
    if not isinstance(label, int | np.integer) or classes is None:
        raise DataError(f"labels must be names, or indices where classes are given, not {shortened(label)}")
    return classes[label] if 0 <= label < len(classes) else f"index {label}"
