"""CSV: one row for each box; the first line decides which column means what."""

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fasterrcnn.data.annotations import NO_SPLIT, AnnotatedData, split_of
from fasterrcnn.data.formats.base import Box, BoxFormat, Collector, DataFormat, ReadOptions, box_to_xyxy
from fasterrcnn.data.formats.reading import split_name
from fasterrcnn.data.image_finder import ImageFinder
from fasterrcnn.errors import DataError, UsageError
from fasterrcnn.files import search_folders, subfolders
from fasterrcnn.images import EXTENSIONS, image_files

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


class CsvTable(DataFormat):
    """Tables of boxes, as .csv or .tsv."""

    title = "CSV"
    layout = "CSV (.csv or .tsv with columns for image, box and class)"
    options = frozenset({"images", "classes", "columns", "box_format"})

    def recognise(self, root: Path, options: ReadOptions = ReadOptions()) -> list[Path]:
        """The file itself; the folder, if each of its tables is a split of one data set; or its tables."""
        if root.is_file():
            return [root] if root.suffix.lower() in (".csv", ".tsv") and not _is_of_via(root) else []
        files = _tables(root, options.columns)
        splits = {split_of(file, root) for file in files}
        return [root] if files and len(splits) == len(files) and NO_SPLIT not in splits else files

    def read(self, place: Path, options: ReadOptions = ReadOptions()) -> AnnotatedData:
        """Read a table, or a folder with a table for each split.

        A row whose box is empty stands for an image without objects. Images lie beside the file or in images/ there,
        unless the options name their folder; classes are in the order of the rows, unless the options list them.
        Columns called x, y, width and height are read as xywh whatever the options.

        Raises:
            DataError: a file is not readable, a column is missing, or there is no image.
            UsageError: ``columns`` of the options names what does not exist.
        """
        root = place if place.is_dir() else place.parent
        collector = Collector(place, self.title, "line", options.classes)
        finder = ImageFinder(root, options.images)
        for file in _tables(place, options.columns) if place.is_dir() else [place]:
            columns = read_columns(file, options.columns)
            box_format = options.box_format or "xyxy"
            if box_format == "xyxy" and not columns.has_corners:
                box_format = "xywh"
            _read_file(file, columns, box_format, split_of(file, root), finder, collector)
        data = collector.finish()
        listed = {image.path for image in data.images} | {finding.image for finding in data.findings}
        for folder in sorted({image.path.parent for image in data.images}):
            for path in image_files(folder):
                if path not in listed:  # a table may have been cut short
                    collector.problem("unlisted-image", path, "no table names it", image=path)
        return data


@dataclass(frozen=True)
class TableColumns:
    """Where the cells of a row are."""

    delimiter: str  # comma, semicolon or tab
    width: int  # number of columns
    positions: Mapping[str, int]  # of the columns by meaning (the keys of `_NAMES`), from 0
    has_header: bool = True  # whether the first line is one

    @property
    def has_corners(self) -> bool:
        """Whether both corners of the box are named, not one corner and the size."""
        return "x2" in self.positions

    @property
    def box(self) -> tuple[str, ...]:
        """What the four numbers of a box are."""
        return ("x1", "y1", "x2", "y2") if self.has_corners else ("x1", "y1", "width", "height")

    def cell(self, cells: Sequence[str], meaning: str) -> str:
        """The cell of a row; empty where there is no such column."""
        position = self.positions.get(meaning)
        return "" if position is None or position >= len(cells) else cells[position]


def read_columns(file: Path, columns: Mapping[str, str] | None = None) -> TableColumns:
    """The columns of a file, from its first line; ``path,x1,y1,x2,y2,class`` (keras-retinanet) needs no header.

    ``columns`` names, by meaning, those that have none of the common names.

    Raises:
        DataError: a column that is needed is missing; the message lists the header.
        UsageError: ``columns`` has a meaning, or names a column, that does not exist.
    """
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        line = stream.readline(2**16)
    delimiter = max(",;\t", key=line.count)
    header = [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])]
    if columns is None and len(header) == 6 and os.path.splitext(header[0])[1].lower() in EXTENSIONS:
        keras = {meaning: position for position, meaning in enumerate(("image", "x1", "y1", "x2", "y2", "label"))}
        return TableColumns(delimiter, 6, keras, has_header=False)
    shown = ", ".join(header) or "empty"
    positions = {name.lower(): position for position, name in enumerate(header)}
    position_of = {
        meaning: positions[next(name for name in names if name in positions)]
        for meaning, names in _NAMES.items()
        if not positions.keys().isdisjoint(names)
    }
    for meaning, name in (columns or {}).items():
        if meaning not in _NAMES:
            raise UsageError(f"columns: no column means {meaning!r}; there are: {', '.join(_NAMES)}")
        if name.lower() not in positions:
            raise UsageError(f"{file}: no column is called {name!r}; its header: {shown}")
        position_of[meaning] = positions[name.lower()]
    has_corners = not position_of.keys().isdisjoint(("x2", "y2")) or position_of.keys().isdisjoint(("width", "height"))
    needed = ("image", "x1", "y1", *(("x2", "y2") if has_corners else ("width", "height")), "label")
    missing = [meaning for meaning in needed if meaning not in position_of]
    if missing:
        raise DataError(
            f"{file}: no column for {', '.join(missing)}; its header: {shown}; name it with "
            f"columns (--columns {missing[0]}=NAME)"
        )
    return TableColumns(delimiter, len(header), position_of)


def read_rows(file: Path, columns: TableColumns) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each row that is not blank; of a row over several lines, the last.

    Raises:
        DataError: the file is no UTF-8 text or no CSV.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, delimiter=columns.delimiter, skipinitialspace=True)
            if columns.has_header:
                next(reader, None)
            for cells in reader:
                if any(cells):
                    yield reader.line_num, [cell.strip() for cell in cells]
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{file}: broken CSV ({error})") from None


def _tables(root: Path, columns: Mapping[str, str] | None) -> list[Path]:
    """Tables of a folder and of the folders in it; where there is none, of those below."""
    return search_folders(root, lambda folder: _tables_in([folder, *subfolders(folder)], columns), levels=1)


def _tables_in(folders: Sequence[Path], columns: Mapping[str, str] | None) -> list[Path]:
    files = sorted(file for folder in folders for file in folder.iterdir() if file.is_file())
    return [file for file in files if file.suffix.lower() in (".csv", ".tsv") and _is_table(file, columns)]


def _is_of_via(file: Path) -> bool:
    """Whether it is the annotator's own CSV, with JSON in its cells, which `via.py` reads."""
    with file.open(encoding="utf-8-sig", errors="replace") as stream:
        return "region_shape_attributes" in stream.readline(2**16)


def _is_table(file: Path, columns: Mapping[str, str] | None) -> bool:
    try:
        return bool(read_columns(file, columns))
    except (DataError, UsageError):
        return False


def _read_file(
    file: Path, columns: TableColumns, box_format: BoxFormat, split: str, finder: ImageFinder, collector: Collector
) -> None:
    rows = [(*row, split_name(columns.cell(row[1], "split") or split)) for row in read_rows(file, columns)]
    names = {own: [columns.cell(cells, "image") for _, cells, split in rows if split == own] for *_, own in rows}
    matches = {own: finder.find(filter(None, asked), file, own) for own, asked in names.items()}
    if rows and not any(paths for by_name in matches.values() for paths in by_name.values()):
        collector.problem("missing-image", file, finder.nothing_found([name for name in names[rows[0][2]] if name]))
        return
    paths: dict[tuple[str, str], Path | None] = {}
    for number, cells, own in rows:
        try:
            box = _read_box(cells, columns)
        except DataError as error:
            collector.problem("unreadable-annotations", file, f"line {number}: {error}", number)
            continue
        name = columns.cell(cells, "image")
        if (name, own) not in paths:
            paths[name, own] = collector.only_one(matches[own][name], name, file, finder, f"line {number}", number)
        if (path := paths[name, own]) is None:
            continue
        # Beside two corners, width and height are those of the image.
        sides = [columns.cell(cells, side) if columns.has_corners else "" for side in ("height", "width")]
        height, width = (int(side) if side.isdecimal() else 0 for side in sides)
        image = collector.image(path, own, file, stated_hw=(height, width))
        if box is not None:
            difficult = columns.cell(cells, "difficult").lower() in ("1", "true", "yes")
            xyxy = box_to_xyxy(box, box_format)
            collector.add(image, xyxy, columns.cell(cells, "label"), number, difficult=difficult)


def _read_box(cells: list[str], columns: TableColumns) -> Box | None:
    """The four numbers of a row, or None where they are empty: an image without objects."""
    if len(cells) < columns.width or any(cells[columns.width :]):
        raise DataError(f"{len(cells)} cells where {columns.width} are expected")
    if not columns.cell(cells, "image"):
        raise DataError("no image is named")
    texts = [columns.cell(cells, meaning) for meaning in columns.box]
    if not any(texts):
        return None
    if not columns.cell(cells, "label"):
        raise DataError("the box has no class")
    try:
        return [float(text) for text in texts]
    except ValueError:
        raise DataError(f"the box must be four numbers, not {','.join(texts)}") from None
