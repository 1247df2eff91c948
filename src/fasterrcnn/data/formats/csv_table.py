"""CSV: one row for each box; the first line decides which column means what."""

import math
import os
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from fasterrcnn.data.annotations import NO_SPLIT, SPLITS, AnnotatedData, split_of
from fasterrcnn.data.formats.base import DataFormat, ReadOptions
from fasterrcnn.data.formats.collector import CollectedImage, Collector
from fasterrcnn.data.formats.csv_columns import SINGLE_CLASS, TableColumns, is_list_of_images, read_columns, read_rows
from fasterrcnn.data.formats.reading import (
    beginning_and_end,
    by_split,
    files_in,
    read_lines,
    split_name,
    with_other_splits,
)
from fasterrcnn.data.formats.shapes import Box, BoxFormat, box_to_xyxy
from fasterrcnn.data.formats.values import side_of_image, to_number, whole_number
from fasterrcnn.errors import DataError, UsageError
from fasterrcnn.files import folders_below, search_folders, subfolders

_SUFFIXES = (".csv", ".tsv")
_JSON_IN_CELLS = (b"region_shape_attributes", b"spatial_coordinates", b'"rectanglelabels"')  # VIA, Label Studio
_SAMPLE = 1000  # rows that decide whether boxes are shares of the image


@dataclass(frozen=True)
class _Table:
    """A table that is read: its rows are the number of a line and its cells."""

    file: Path
    split: str
    columns: TableColumns
    box_format: BoxFormat
    rows: list[tuple[int, list[str]]]


class CsvTable(DataFormat):
    """Tables of boxes, as .csv or .tsv."""

    title = "CSV"
    layout = "CSV (.csv or .tsv with columns for image, box and class)"
    options = frozenset({"images", "classes", "columns", "box_format"})

    def recognise(self, root: Path, options: ReadOptions = ReadOptions()) -> list[Path]:
        """The file itself; the folder, if its tables are one data set, each a split of it; or its tables."""
        if root.is_file():
            beginning = beginning_and_end(root)[: 2**16]
            is_other = not beginning.strip() or any(word in beginning for word in _JSON_IN_CELLS)
            return [root] if root.suffix.lower() in _SUFFIXES and not is_other else []
        files = _tables(root, options)
        counts = Counter(split_of(file, root) for file in files)
        if len(counts) > 1:
            del counts[NO_SPLIT]
        return [root] if set(counts.values()) == {1} else files

    def near_miss(self, root: Path, options: ReadOptions = ReadOptions()) -> str:
        """What the largest table in a folder lacks."""
        files = search_folders(root, lambda folder: files_in(folder, _SUFFIXES), levels=3) if root.is_dir() else []
        try:
            largest = max(files, key=os.path.getsize)
            if beginning_and_end(largest).strip():
                read_columns(largest, options)
        except (DataError, UsageError) as error:
            return str(error)
        except (ValueError, OSError):  # there is no table, or it is gone
            pass
        return ""

    def read(self, place: Path, options: ReadOptions = ReadOptions()) -> AnnotatedData:
        """Read a table, or a folder with a table for each split.

        A row whose box is empty stands for an image without objects. Classes are in the order of the rows, those of
        training first, unless the options list them: then rows may have their numbers instead of their names. Options
        that contradict the names of the columns are refused: x, y, width and height are no corners, x_center and
        y_center are the centre. Boxes of Open Images and AutoML Vision are shares of the image.

        Raises:
            DataError: no file is readable, a column is missing, or there is no image.
            UsageError: ``columns`` names what does not exist, or ``box_format`` contradicts the names of the columns.
        """
        collector = Collector(place, self.title, "line", options.classes, options.images)
        root = collector.root
        files = by_split(_tables(place, options), root, collector) if place.is_dir() else {split_of(place, root): place}
        tables: list[_Table] = []
        for split, file in files.items():
            with collector.report_errors(file) if len(files) > 1 else nullcontext():
                columns = read_columns(file, options)
                box_format = columns.box_format(options.box_format)
                if columns.single_class == SINGLE_CLASS and options.classes is None:
                    collector.note(f"{file.name} has no column for the class: every box is an {SINGLE_CLASS!r}")
                tables.append(_Table(file, split, columns, box_format, list(read_rows(file, columns))))
                if not tables[-1].rows:
                    collector.problem("empty-split", file, "it has no row below its header")
        names_of_numbers = _names_of_numbers(tables, options.classes, collector)
        for table in tables:
            shown = _display_names(table.file, collector) if table.columns.may_be_shares else {}
            _read_table(table, shown | names_of_numbers, collector)
        collector.report_unlisted("no table names it")
        return collector.finish()


def _tables(root: Path, options: ReadOptions) -> list[Path]:
    """Tables of boxes in a folder and in the folders in it; where there is none, those of up to three levels below."""

    def fits(file: Path) -> bool:
        try:
            return bool(read_columns(file, options))
        except (DataError, UsageError):
            return False

    def tables(folder: Path) -> list[Path]:
        return [file for place in (folder, *subfolders(folder)) for file in files_in(place, _SUFFIXES) if fits(file)]

    files = search_folders(root, tables, levels=2)
    candidates = [file for folder in (root, *folders_below(root, levels=4)) for file in files_in(folder, _SUFFIXES)]
    return with_other_splits(files, [file for file in candidates if not is_list_of_images(file)], root)


def _display_names(table: Path, collector: Collector) -> dict[str, str]:
    """What Open Images calls its classes: /m/01g317 is Person. Its own files *class-descriptions*.csv state it.

    They lie in the data set, or in a folder beside that of the table.
    """
    names: dict[str, str] = {}
    beside = subfolders(table.parent.parent)
    for folder in dict.fromkeys([table.parent, collector.root, *folders_below(collector.root, levels=2), *beside]):
        for file in files_in(folder, _SUFFIXES):
            if "class-descriptions" in file.name.lower():
                with collector.report_errors(file):
                    lines = [line.split(",", maxsplit=1) for line in read_lines(file)]
                    names |= {cells[0]: name for cells in lines if len(cells) == 2 and (name := cells[1].strip(' "'))}
    return names


def _names_of_numbers(tables: Sequence[_Table], classes: Sequence[str] | None, collector: Collector) -> dict[str, str]:
    """The names that numbers in the column of the class mean, where the user lists the names.

    They count from 0, unless they are those from 1 to the number of names.
    """
    labels = {table.columns.label(cells) for table in tables for _, cells in table.rows} - {"", *(classes or ())}
    number_of = {label: number for label in labels if (number := _whole_number(label)) is not None}
    if not classes or not number_of:
        return {}
    first = int((min(number_of.values()), max(number_of.values())) == (1, len(classes)))
    collector.note(f"classes are numbers: they count the names that are given from {first}, so {first} is {classes[0]}")
    return {label: classes[number - first] for label, number in number_of.items() if 0 <= number - first < len(classes)}


def _whole_number(text: str) -> int | None:
    """A whole number, though it may be written as 1.0; None for all else."""
    try:
        return whole_number(to_number(text, ""))
    except DataError:
        return None


def _read_table(table: _Table, class_names: Mapping[str, str], collector: Collector) -> None:
    file, columns = table.file, table.columns
    rows = [(number, cells, _split_in(cells, columns) or table.split) for number, cells in table.rows]
    order = [*dict.fromkeys(SPLITS.values())]
    rows.sort(key=lambda row: order.index(row[2]) if row[2] in order else len(order))
    names = {own: [columns.cell(cells, "image") for _, cells, split in rows if split == own] for *_, own in rows}
    matches = {own: collector.find_images(filter(None, asked), file, own) for own, asked in names.items()}
    has_shares = columns.may_be_shares and _are_shares([cells for _, cells, _ in rows[:_SAMPLE]], columns)
    images: dict[tuple[str, str], CollectedImage | None] = {}
    for number, cells, own in rows:
        if any(names[own]) and not matches[own]:
            continue
        with collector.report_errors(file, f"line {number}", number):
            box = columns.read_box(cells)
            name = columns.cell(cells, "image")
            if (name, own) not in images:
                path = collector.only_one(matches[own][name], name, file, f"line {number}", number)
                height, width = (side_of_image(columns.cell(cells, side)) for side in ("image_height", "image_width"))
                images[name, own] = collector.claim(path, own, file, name, (height, width))
            image = images[name, own]
            if box is None or image is None or image.size_hw is None:
                continue
            xyxy = box_to_xyxy(box, table.box_format)
            if has_shares:
                height, width = image.size_hw
                xyxy = (xyxy[0] * width, xyxy[1] * height, xyxy[2] * width, xyxy[3] * height)
            label = columns.label(cells)
            difficult = columns.cell(cells, "difficult").lower() in ("1", "true", "yes")
            collector.add(image, xyxy, class_names.get(label, label), number, difficult=difficult)


def _split_in(cells: Sequence[str], columns: TableColumns) -> str:
    """The split that a row states; empty where it states none, as UNASSIGNED of AutoML Vision."""
    stated = columns.cell(cells, "split")
    return split_name(stated) if stated and stated.lower() != "unassigned" else ""


def _are_shares(rows: Sequence[Sequence[str]], columns: TableColumns) -> bool:
    """Whether boxes are shares of the image: people convert such tables to pixels and leave the header as it was."""
    numbers: list[float] = []
    for cells in rows:
        try:
            box: Box = columns.read_box(cells) or ()
        except DataError:
            continue
        numbers += (number for number in box if math.isfinite(number))
    return bool(numbers) and statistics.median(numbers) <= 1
