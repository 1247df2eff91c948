"""CSV files with a row for each box."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from fasterrcnn.data.findings import Finding
from fasterrcnn.data.formats.collection import Box, BoxFormat, Collection, split_name, to_xyxy
from fasterrcnn.data.formats.columns import Layout, read_layout, read_rows
from fasterrcnn.data.images import EXTENSIONS, picture_files
from fasterrcnn.data.records import SPLITS, WHOLE, AnnotatedData, split_of
from fasterrcnn.errors import DataError, UsageError

NAME = "CSV"


def find(root: Path, columns: Mapping[str, str] | None = None) -> list[Path]:
    """The file itself; the folder, if each of its tables is a split of one data set; or its tables."""
    if root.is_file():
        return [root] if root.suffix.lower() in (".csv", ".tsv") else []
    files = _tables(root, columns)
    splits = {split_of(file, root) for file in files}
    return [root] if files and len(splits) == len(files) and WHOLE not in splits else files


def read(
    place: Path,
    *,
    pictures: Path | None = None,
    classes: tuple[str, ...] | None = None,
    columns: Mapping[str, str] | None = None,
    box_format: BoxFormat = "xyxy",
) -> AnnotatedData:
    """Read a table, or the tables of a folder, collecting all problems.

    A row whose box is empty stands for a picture without objects.

    Args:
        place: a file, or a folder with a file for each split.
        pictures: folder of the pictures, where they are not beside the file or in images/ there.
        classes: names of the classes, in the order of their labels; without, in the order of the rows.
        columns: unusual names of columns, by meaning: image, x1, y1, x2, y2, width, height, label, split, difficult.
        box_format: what the four numbers of a box are; x, y, width and height are xywh without a word.

    Raises:
        DataError: a file is not readable, a column is missing, or there is no picture.
        UsageError: ``columns`` names what does not exist.
    """
    root = place if place.is_dir() else place.parent
    collection = Collection(classes)
    for file in _tables(place, columns) if place.is_dir() else [place]:
        layout = read_layout(file, columns)
        own_format = "xywh" if box_format == "xyxy" and not layout.has_corners else box_format
        _read_file(file, layout, own_format, split_of(file, root), pictures, collection)
    data = collection.finish(root, NAME, "line")
    return replace(data, findings=[*data.findings, *_unlisted(data)])


def _unlisted(data: AnnotatedData) -> list[Finding]:
    """Pictures that lie beside those of the tables without being named: a table may have been cut short."""
    listed = {record.path for record in data.records} | {finding.picture for finding in data.findings}
    folders = sorted({record.path.parent for record in data.records})
    beside = (path for folder in folders for path in picture_files(folder) if path not in listed)
    return [Finding("unlisted-picture", path, "no table names it", picture=path) for path in beside]


def _tables(root: Path, columns: Mapping[str, str] | None) -> list[Path]:
    """Tables of a folder and of the folders of its splits."""
    folders = [root, *(child for child in root.glob("*/") if child.name.lower() in SPLITS)]
    files = sorted(file for folder in folders for file in folder.iterdir() if file.is_file())
    return [file for file in files if file.suffix.lower() in (".csv", ".tsv") and _is_table(file, columns)]


def _is_table(file: Path, columns: Mapping[str, str] | None) -> bool:
    try:
        return bool(read_layout(file, columns))
    except (DataError, UsageError):
        return False


def _read_file(
    file: Path, layout: Layout, box_format: BoxFormat, split: str, pictures: Path | None, collection: Collection
) -> None:
    bases = [file.parent] if pictures is None else [pictures, file.parent]
    paths: dict[tuple[str, str], Path | None] = {}
    for number, cells in read_rows(file, layout):
        try:
            box = _read_box(cells, layout)
        except DataError as error:
            what = f"line {number}: {error}"
            collection.findings.append(Finding("unreadable-annotations", file, what, number))
            continue
        own = split if layout.split is None else split_name(cells[layout.split] or split)
        name = cells[layout.image]
        if (name, own) not in paths:
            paths[name, own] = _find_picture(name, own, bases)
            if paths[name, own] is None:
                what = f"line {number}: there is no picture {name}"
                collection.findings.append(Finding("missing-picture", file, what, number))
        if (path := paths[name, own]) is None:
            continue
        draft = collection.draft(path, own, file, _stated_hw(cells, layout))
        if box is not None:
            difficult = layout.difficult is not None and cells[layout.difficult].lower() in ("1", "true", "yes")
            collection.add(draft, to_xyxy(box, box_format), cells[layout.label], difficult, number, f"line {number}")


def _stated_hw(cells: list[str], layout: Layout) -> tuple[int, int] | None:
    """The picture's size that a row says, if it says one."""
    if layout.picture_hw is None:
        return None
    height, width = (cells[position] for position in layout.picture_hw)
    return (int(height), int(width)) if height.isdecimal() and width.isdecimal() and int(height) * int(width) else None


def _read_box(cells: list[str], layout: Layout) -> Box | None:
    """The four numbers of a row, or None if the row says that there is no box."""
    if len(cells) < layout.width or any(cells[layout.width :]):
        raise DataError(f"{len(cells)} cells where {layout.width} are expected")
    if not cells[layout.image]:
        raise DataError("no picture is named")
    texts = [cells[position] for position in layout.box]
    if not any(texts):
        return None
    if not cells[layout.label]:
        raise DataError("the box has no class")
    try:
        return [float(text) for text in texts]
    except ValueError:
        raise DataError(f"the box must be four numbers, not {','.join(texts)}") from None


def _find_picture(name: str, split: str, bases: Sequence[Path]) -> Path | None:
    """The file that a row means: names may lack the extension, absolute paths may be of another machine."""
    written = PurePosixPath(name.replace("\\", "/"))
    names = [str(written), written.name] if written.is_absolute() else [str(written)]
    endings = [""] if written.suffix.lower() in EXTENSIONS else ["", *sorted(EXTENSIONS)]
    spellings = [spelling for spelling, meant in SPLITS.items() if meant == split]
    folders = ["", "images", *spellings, *(f"images/{spelling}" for spelling in spellings)]
    candidates = (base / folder / f"{n}{end}" for n in names for base in bases for folder in folders for end in endings)
    return next((Path(os.path.normpath(path)) for path in candidates if os.path.isfile(path)), None)
