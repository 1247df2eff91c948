"""CSV files: which column means what, told by the first line, and the rows."""

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from fasterrcnn.data.annotations import SPLITS, WHOLE, AnnotatedData, split_of
from fasterrcnn.data.findings import Finding
from fasterrcnn.data.formats.collection import Box, BoxFormat, Collection, split_name, to_xyxy
from fasterrcnn.data.images import EXTENSIONS, image_files
from fasterrcnn.errors import DataError, UsageError

# Best name first. Beside x2 and y2, width and height are those of the image.
_NAMES = {
    "image": ("image", "filename", "file_name", "file", "path", "image_path", "image_id", "imageid"),
    "x1": ("x1", "xmin", "x_min", "left", "x"),
    "y1": ("y1", "ymin", "y_min", "top", "y"),
    "x2": ("x2", "xmax", "x_max", "right"),
    "y2": ("y2", "ymax", "y_max", "bottom"),
    "width": ("w", "width"),
    "height": ("h", "height"),
    "label": ("class_name", "label", "labelname", "class", "category", "name"),
    "split": ("split", "subset", "set"),
    "difficult": ("difficult", "iscrowd"),
}


@dataclass(frozen=True)
class Layout:
    """How the rows of a file are to be read.

    Attributes:
        delimiter: comma, semicolon or tab.
        image: position of the column with the image's path.
        box: positions of the four numbers of a box.
        label: position of the class.
        split: position of the split's name, or None.
        difficult: position of the flag of difficult objects, or None.
        width: number of columns.
        has_header: whether the first line is one.
        has_corners: whether the header names both corners of the box, not one corner and the size.
        image_hw: positions of height and width of the image, or None.
    """

    delimiter: str
    image: int
    box: tuple[int, int, int, int]
    label: int
    split: int | None
    difficult: int | None
    width: int
    has_header: bool
    has_corners: bool
    image_hw: tuple[int, int] | None = None


def read_layout(file: Path, columns: Mapping[str, str] | None = None) -> Layout:
    """What the first line of a file says; ``path,x1,y1,x2,y2,class`` (keras-retinanet) needs no header.

    Args:
        file: the table.
        columns: names of columns in the file by meaning, where they are none of the usual ones.

    Raises:
        DataError: a column that is needed is missing; the message lists the header.
        UsageError: ``columns`` has a meaning, or names a column, that does not exist.
    """
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        line = stream.readline(2**16)
    delimiter = max(",;\t", key=line.count)
    header = [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])]
    if columns is None and len(header) == 6 and os.path.splitext(header[0])[1].lower() in EXTENSIONS:
        return Layout(delimiter, 0, (1, 2, 3, 4), 5, None, None, 6, has_header=False, has_corners=True)
    shown = ", ".join(header) or "empty"
    positions = {name.lower(): position for position, name in enumerate(header)}
    found = {
        meaning: positions[next(name for name in names if name in positions)]
        for meaning, names in _NAMES.items()
        if not positions.keys().isdisjoint(names)
    }
    for meaning, name in (columns or {}).items():
        if meaning not in _NAMES:
            raise UsageError(f"columns: no column means {meaning!r}; there are: {', '.join(_NAMES)}")
        if name.lower() not in positions:
            raise UsageError(f"{file}: no column is called {name!r}; its header: {shown}")
        found[meaning] = positions[name.lower()]
    has_corners = not found.keys().isdisjoint(("x2", "y2")) or found.keys().isdisjoint(("width", "height"))
    needed = ("image", "x1", "y1", *(("x2", "y2") if has_corners else ("width", "height")), "label")
    missing = [meaning for meaning in needed if meaning not in found]
    if missing:
        raise DataError(
            f"{file}: no column for {', '.join(missing)}; its header: {shown}; say which column it is with "
            f"columns (--columns {missing[0]}=NAME)"
        )
    image, x1, y1, x2, y2, label = (found[meaning] for meaning in needed)
    split, difficult = found.get("split"), found.get("difficult")
    stated = has_corners and {"height", "width"} <= found.keys()
    image_hw = (found["height"], found["width"]) if stated else None
    box = (x1, y1, x2, y2)
    return Layout(delimiter, image, box, label, split, difficult, len(header), True, has_corners, image_hw)


def read_rows(file: Path, layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each row that is not blank; of a row over several lines, the last.

    Raises:
        DataError: the file is no UTF-8 text or no CSV.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, delimiter=layout.delimiter, skipinitialspace=True)
            if layout.has_header:
                next(reader, None)
            for cells in reader:
                if any(cells):
                    yield reader.line_num, [cell.strip() for cell in cells]
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{file}: broken CSV ({error})") from None


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
    images: Path | None = None,
    classes: tuple[str, ...] | None = None,
    columns: Mapping[str, str] | None = None,
    box_format: BoxFormat = "xyxy",
) -> AnnotatedData:
    """Read a table, or the tables of a folder, collecting all problems.

    A row whose box is empty stands for an image without objects.

    Args:
        place: a file, or a folder with a file for each split.
        images: folder of the images, where they are not beside the file or in images/ there.
        classes: names of the classes, in the order of their labels; without, in the order of the rows.
        columns: unusual names of columns, by meaning: image, x1, y1, x2, y2, width, height, label, split, difficult.
        box_format: what the four numbers of a box are; x, y, width and height are xywh without a word.

    Raises:
        DataError: a file is not readable, a column is missing, or there is no image.
        UsageError: ``columns`` names what does not exist.
    """
    root = place if place.is_dir() else place.parent
    collection = Collection(classes)
    for file in _tables(place, columns) if place.is_dir() else [place]:
        layout = read_layout(file, columns)
        own_format = "xywh" if box_format == "xyxy" and not layout.has_corners else box_format
        _read_file(file, layout, own_format, split_of(file, root), images, collection)
    data = collection.finish(root, NAME, "line")
    return replace(data, findings=[*data.findings, *_unlisted(data)])


def _unlisted(data: AnnotatedData) -> list[Finding]:
    """Images that lie beside those of the tables without being named: a table may have been cut short."""
    listed = {record.path for record in data.records} | {finding.image for finding in data.findings}
    folders = sorted({record.path.parent for record in data.records})
    beside = (path for folder in folders for path in image_files(folder) if path not in listed)
    return [Finding("unlisted-image", path, "no table names it", image=path) for path in beside]


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
    file: Path, layout: Layout, box_format: BoxFormat, split: str, images: Path | None, collection: Collection
) -> None:
    bases = [file.parent] if images is None else [images, file.parent]
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
            paths[name, own] = _find_image(name, own, bases)
            if paths[name, own] is None:
                what = f"line {number}: there is no image {name}"
                collection.findings.append(Finding("missing-image", file, what, number))
        if (path := paths[name, own]) is None:
            continue
        draft = collection.draft(path, own, file, _stated_hw(cells, layout))
        if box is not None:
            difficult = layout.difficult is not None and cells[layout.difficult].lower() in ("1", "true", "yes")
            collection.add(draft, to_xyxy(box, box_format), cells[layout.label], difficult, number, f"line {number}")


def _stated_hw(cells: list[str], layout: Layout) -> tuple[int, int] | None:
    """The image's size that a row says, if it says one."""
    if layout.image_hw is None:
        return None
    height, width = (cells[position] for position in layout.image_hw)
    return (int(height), int(width)) if height.isdecimal() and width.isdecimal() and int(height) * int(width) else None


def _read_box(cells: list[str], layout: Layout) -> Box | None:
    """The four numbers of a row, or None if the row says that there is no box."""
    if len(cells) < layout.width or any(cells[layout.width :]):
        raise DataError(f"{len(cells)} cells where {layout.width} are expected")
    if not cells[layout.image]:
        raise DataError("no image is named")
    texts = [cells[position] for position in layout.box]
    if not any(texts):
        return None
    if not cells[layout.label]:
        raise DataError("the box has no class")
    try:
        return [float(text) for text in texts]
    except ValueError:
        raise DataError(f"the box must be four numbers, not {','.join(texts)}") from None


def _find_image(name: str, split: str, bases: Sequence[Path]) -> Path | None:
    """The file that a row means: names may lack the extension, absolute paths may be of another machine."""
    written = PurePosixPath(name.replace("\\", "/"))
    names = [str(written), written.name] if written.is_absolute() else [str(written)]
    endings = [""] if written.suffix.lower() in EXTENSIONS else ["", *sorted(EXTENSIONS)]
    spellings = [spelling for spelling, meant in SPLITS.items() if meant == split]
    folders = ["", "images", *spellings, *(f"images/{spelling}" for spelling in spellings)]
    candidates = (base / folder / f"{n}{end}" for n in names for base in bases for folder in folders for end in endings)
    return next((Path(os.path.normpath(path)) for path in candidates if os.path.isfile(path)), None)
