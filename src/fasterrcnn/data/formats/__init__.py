"""Data formats: recognises a data set by its content and reads it, or writes it in another format.

To add a format, write a file like ``voc.py`` with a subclass of `fasterrcnn.data.formats.base.DataFormat`, and register
it in `FORMATS`; see "Add a format" in docs/data.md.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fasterrcnn.data.annotations import NO_SPLIT, SPLITS, AnnotatedData, AnnotatedImage
from fasterrcnn.data.formats.base import BoxFormat, DataFormat, ReadOptions
from fasterrcnn.data.formats.coco import Coco
from fasterrcnn.data.formats.csv_table import CsvTable
from fasterrcnn.data.formats.rows import read_dicts
from fasterrcnn.data.formats.voc import PascalVoc
from fasterrcnn.data.formats.yolo import Yolo
from fasterrcnn.errors import DataError, UsageError
from fasterrcnn.files import atomic_folder, check_output

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


def write_data(data: AnnotatedData, folder: Path, to: str) -> list[str]:
    """Write a data set, images included, into a new folder.

    Boxes are written as they are, those without area or over the border too. The folder appears when all of it is
    written: after an error, or Ctrl-C, there is nothing. An image keeps its file name, unless another one has it
    already or not every system allows it. Splits without images are left out; so is, but in VOC, a "trainval" that
    holds the images of train and val. The docstring of each format describes its layout.

    Args:
        data: what to write.
        folder: must not exist, or be empty.
        to: "coco", "voc" or "yolo".

    Returns:
        What the format has no place for, in sentences.

    Raises:
        UsageError: the folder is not empty, or there is no such format.
        DataError: a box has NaN or infinite coordinates, a split has a name that tools do not know, or an image is
            not there.
    """
    writable = [name for name, form in FORMATS.items() if form.can_write]
    if to not in writable:
        raise UsageError(f"no format {to!r} to write; there are: {', '.join(writable)}")
    check_output(folder)
    _check_writable(data)
    splits: Mapping[str, Sequence[AnnotatedImage]] = {name: images for name, images in data.splits.items() if images}
    in_train_or_val = {id(image) for name in ("train", "val") for image in splits.get(name, ())}
    # Where splits are folders, "trainval" would be copies of train and val.
    if not FORMATS[to].splits_are_lists and all(id(image) in in_train_or_val for image in splits.get("trainval", ())):
        splits = {name: images for name, images in splits.items() if name != "trainval"}
    with atomic_folder(folder) as temporary:
        notes = FORMATS[to].write(data, splits, temporary)
    return FORMATS[to].losses(data) + notes


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


def _check_writable(data: AnnotatedData) -> None:
    for name in data.splits:
        if name != NO_SPLIT and name not in SPLITS:
            allowed = ", ".join(dict.fromkeys(SPLITS.values()))
            raise DataError(f"{data.root}: tools know no split called {name!r}; name it one of {allowed}")
    if data.splits.get(NO_SPLIT) and len(data.splits) > 1:
        raise DataError(
            f"{data.root}: {data.splits[NO_SPLIT][0].path.name} and perhaps more are in no split, others are; "
            'put each into one, or make new ones with "fasterrcnn data split"'
        )
    for image in data.images:
        not_finite = np.flatnonzero(~np.isfinite(image.boxes).all(axis=1))
        if len(not_finite):
            finding = data.box_finding("not-finite", image, int(not_finite[0]), "is not finite")
            raise DataError(f'{finding}; nothing was written, "fasterrcnn data check --fix" leaves such boxes out')
