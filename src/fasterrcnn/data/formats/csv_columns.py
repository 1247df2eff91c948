"""The columns of tables of boxes: what the first line states, and the rows below it."""

import csv
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fasterrcnn.data.formats.base import ReadOptions
from fasterrcnn.data.formats.reading import decode_text
from fasterrcnn.data.formats.shapes import Box, BoxFormat
from fasterrcnn.data.formats.values import to_number
from fasterrcnn.errors import DataError, UsageError
from fasterrcnn.images import EXTENSIONS

# Best name first; capitals, spaces, "_" and "-" do not matter. What is "width" beside two corners is the image's.
_NAMES = {
    "image": "image filename imagename imagepath imagefile imgname imgpath img file filepath path imageid imgid",
    "x1": "x1 xmin left bboxx bboxleft x",
    "y1": "y1 ymin top bboxy bboxtop y",
    "x2": "x2 xmax right bboxright",
    "y2": "y2 ymax bottom bboxbottom",
    "cx": "cx xc xcenter xcentre centerx centrex",
    "cy": "cy yc ycenter ycentre centery centrey",
    "width": "w bboxwidth boxwidth bboxw width",
    "height": "h bboxheight boxheight bboxh height",
    "box": "bbox boundingbox bndbox box",
    "label": "classname label labelname class category categoryname name classid labelid categoryid cls",
    "split": "split subset set",
    "difficult": "difficult iscrowd isgroupof",
    "image_width": "imagewidth imgwidth width",
    "image_height": "imageheight imgheight height",
}
_NAMES_OF = {meaning: names.split() for meaning, names in _NAMES.items()}

_CORNERS = ("x1", "y1", "x2", "y2")
_FORMATS: dict[tuple[str, ...], BoxFormat] = {
    _CORNERS: "xyxy",
    ("x1", "y1", "width", "height"): "xywh",
    ("cx", "cy", "width", "height"): "cxcywh",
    ("box",): "xywh",
}
"""The columns that a box may have, and what they mean unless the user states it."""

# Tables without a header, by the meanings of their columns: RetinaNet, makesense.ai, and AutoML Vision without and with
# the split, whose boxes are shares of the image.
_RETINANET = ("image", *_CORNERS, "label")
_MAKESENSE = ("label", "x1", "y1", "width", "height", "image", "image_width", "image_height")
_AUTOML = ("image", "label", "x1", "y1", "", "", "x2", "y2", "", "")
_WITHOUT_HEADER = (_RETINANET, _MAKESENSE, _AUTOML, ("split", *_AUTOML))

_OPEN_IMAGES = frozenset(("imageid", "labelname", "xmin", "xmax", "ymin", "ymax"))

# Columns that are no classes, where there is no column of that.
_NO_CLASSES = frozenset(
    ("source", "usage", "id", "index", "unnamed:0", "area", "confidence", "score", "timestamp", "date", "depth")
)

SINGLE_CLASS = "object"
"""The class of tables that have only one, and no column for it."""


@dataclass(frozen=True)
class TableColumns:
    """Where the cells of a row are."""

    delimiter: str  # comma, semicolon, tab or bar
    header: Sequence[str]  # the cells of the first line
    positions: Mapping[str, int]  # of the columns by meaning (the keys of `_NAMES`), from 0
    box: tuple[str, ...]  # what the numbers of a box are, or "box" where they are in one cell
    has_header: bool = True  # whether the first line is one
    single_class: str = ""  # the class of all boxes, where no column has it
    may_be_shares: bool = False  # whether tables of this kind have shares of the image, 0..1

    @property
    def width(self) -> int:
        """The number of columns."""
        return len(self.header)

    @property
    def has_corners(self) -> bool:
        """Whether both corners of the box are named, not one corner and the size."""
        return "x2" in self.box

    def box_format(self, stated: BoxFormat | None) -> BoxFormat:
        """What the numbers mean: the names of the columns decide, but for what they leave open.

        That is whether x and y are the centre, and whether x2 and y2 are a size.

        Raises:
            UsageError: the user states what the names of the columns contradict.
        """
        named = _FORMATS[self.box]
        is_open = self.box == ("box",) or (named != "cxcywh" and stated != "xyxy")
        if stated not in (None, named) and not is_open:
            columns = ", ".join(self.header[self.positions[meaning]] for meaning in self.box)
            raise UsageError(
                f"box_format (--box-format) {stated} does not fit the columns {columns}, which are {named}; "
                "leave it out, or correct the header"
            )
        return stated or named

    def cell(self, cells: Sequence[str], meaning: str) -> str:
        """The cell of a row; empty where there is no such column."""
        position = self.positions.get(meaning)
        return "" if position is None or position >= len(cells) else cells[position]

    def label(self, cells: Sequence[str]) -> str:
        """The class of a row."""
        return self.single_class or self.cell(cells, "label")

    def read_box(self, cells: Sequence[str]) -> Box | None:
        """The four numbers of a row, or None where they are empty: an image without objects.

        Raises:
            DataError: they are no numbers, the row has too many or too few cells, or no image, or the box no class.
        """
        texts = [self.cell(cells, meaning) for meaning in self.box]
        is_short = len(cells) < self.width and (self.has_header or any(texts))
        if is_short or any(cells[self.width :]):
            raise DataError(f"{len(cells)} cells where {self.width} are expected")
        if not self.cell(cells, "image"):
            raise DataError("no image is named")
        if self.box == ("box",):
            texts = re.split(r"\s*[,;\s]\s*", texts[0].strip("[](){} ,;"))  # "[1, 2, 3, 4]"
        elif self.delimiter != ",":  # Excel writes decimal commas where it writes semicolons
            texts = [text.replace(",", ".") for text in texts]
        if not any(texts):
            return None
        if not self.label(cells):
            raise DataError("the box has no class")
        try:
            x, y, third, fourth = (to_number(text, "") for text in texts)
        except (DataError, ValueError):
            raise DataError(f"the box must be four numbers, not {','.join(texts)}") from None
        return x, y, third, fourth


def read_columns(file: Path, options: ReadOptions = ReadOptions()) -> TableColumns:
    """The columns of a file, from its first line; some tables of tools need no header.

    ``columns`` of the options names, by meaning, those that have none of the common names. Without a column for the
    class, a table has one class: that of the options, or "object" where no other column may be the class.

    Raises:
        DataError: the file cannot be read, or a column that is needed is missing; the message lists the header.
        UsageError: ``columns`` has a meaning, or names a column, that does not exist.
    """
    delimiter, header = _read_header(file)
    columns = options.columns or {}
    for meanings in _WITHOUT_HEADER:
        if not columns and len(header) == len(meanings) and _is_image(header[meanings.index("image")]):
            positions = {meaning: position for position, meaning in enumerate(meanings) if meaning}
            box = next(names for names in _FORMATS if positions.keys() >= set(names))
            is_automl = meanings[-len(_AUTOML) :] == _AUTOML
            return TableColumns(delimiter, header, positions, box, has_header=False, may_be_shares=is_automl)
    places = {_key(name): position for position, name in enumerate(header)}
    positions = {
        meaning: places[next(name for name in names if name in places)]
        for meaning, names in _NAMES_OF.items()
        if not places.keys().isdisjoint(names)
    }
    shown = f"its header: {', '.join(header) or 'empty'}"
    for meaning, name in columns.items():
        if meaning not in _NAMES:
            raise UsageError(f"columns: no column means {meaning!r}; there are: {', '.join(_NAMES)}")
        if _key(name) not in places:
            raise UsageError(f"{file}: no column is called {name!r}; {shown}")
        positions[meaning] = places[_key(name)]
    box = ("box",) if "box" in columns else _box_columns(positions)
    single_class = "" if "label" in positions else _single_class(places, options)
    missing = [meaning for meaning in ("image", *box) if meaning not in positions]
    if missing or not (single_class or "label" in positions):
        missing += [] if "label" in positions else ["label"]
        remedy = f"name it with columns (--columns {missing[0]}=NAME)"
        if missing == ["label"]:
            remedy += ", or the only class (--class-names CLASS)"
        raise DataError(f"{file}: no column for {', '.join(missing)}; {shown}; {remedy}")
    used = {positions[meaning] for meaning in box}
    sizes = {meaning for meaning in ("image_width", "image_height") if positions.get(meaning) in used}
    positions = {meaning: position for meaning, position in positions.items() if meaning not in sizes}
    may_be_shares = places.keys() >= _OPEN_IMAGES
    return TableColumns(delimiter, header, positions, box, single_class=single_class, may_be_shares=may_be_shares)


def is_list_of_images(file: Path) -> bool:
    """Whether a table names images alone, without boxes and classes, as those to test on are often published."""
    try:
        _, header = _read_header(file)
    except DataError:
        return False
    meanings = {meaning for name in header for meaning, names in _NAMES_OF.items() if _key(name) in names}
    return "image" in meanings and meanings <= {"image", "image_width", "image_height", "width", "height", "split"}


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


def _read_header(file: Path) -> tuple[str, list[str]]:
    """The delimiter of a file, and the cells of its first line."""
    try:
        with file.open("rb") as stream:
            line = decode_text(stream.readline(2**16), file)
        delimiter = max(",;\t|", key=line.count)
        cells = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from None
    except csv.Error as error:
        raise DataError(f"{file}: broken CSV ({error})") from None
    return delimiter, [cell.strip() for cell in cells]


def _key(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()


def _is_image(cell: str) -> bool:
    return os.path.splitext(cell)[1].lower() in EXTENSIONS


def _box_columns(positions: Mapping[str, int]) -> tuple[str, ...]:
    """The columns of the box, all there or not."""
    corners, corner_and_size, centre_and_size, cell = _FORMATS
    if "x2" in positions or "y2" in positions:
        return corners
    if "cx" in positions or "cy" in positions:
        return centre_and_size
    if "box" in positions and "x1" not in positions:
        return cell
    return corner_and_size if "width" in positions or "height" in positions else corners


def _single_class(places: Mapping[str, int], options: ReadOptions) -> str:
    """The class of a table that has no column for it; empty where that is not sure."""
    if options.classes is not None and len(options.classes) == 1:
        return options.classes[0]
    understood = {name for names in _NAMES_OF.values() for name in names} | _NO_CLASSES
    named = {_key(name) for name in (options.columns or {}).values()}
    return SINGLE_CLASS if places.keys() <= understood | named | {""} else ""
