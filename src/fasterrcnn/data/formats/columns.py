"""CSV files: which column means what, told by the first line, and the rows."""

import csv
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fasterrcnn.data.images import EXTENSIONS
from fasterrcnn.errors import DataError, UsageError

# Best name first. Beside x2 and y2, width and height are those of the picture.
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
        image: position of the column with the picture's path.
        box: positions of the four numbers of a box.
        label: position of the class.
        split: position of the split's name, or None.
        difficult: position of the flag of difficult objects, or None.
        width: number of columns.
        has_header: whether the first line is one.
        has_corners: whether the header names both corners of the box, not one corner and the size.
        picture_hw: positions of height and width of the picture, or None.
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
    picture_hw: tuple[int, int] | None = None


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
    picture_hw = (found["height"], found["width"]) if stated else None
    box = (x1, y1, x2, y2)
    return Layout(delimiter, image, box, label, split, difficult, len(header), True, has_corners, picture_hw)


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
