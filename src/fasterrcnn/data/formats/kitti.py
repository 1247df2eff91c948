"""KITTI: a text file for each image, as the benchmark for 2D objects, NVIDIA TAO, DIGITS and CVAT have it.

A line is ``type truncated occluded alpha left top right bottom height width length x y z rotation_y``, and perhaps a
score, which CVAT always writes. Only the type and the box are used; tools that draw boxes fill the rest with zeros.
"""

import re
from pathlib import Path

from fasterrcnn.data.annotations import AnnotatedData
from fasterrcnn.data.formats.base import DataFormat, ReadOptions
from fasterrcnn.data.formats.collector import Collector
from fasterrcnn.data.formats.label_lines import label_lines
from fasterrcnn.data.formats.values import to_numbers
from fasterrcnn.errors import DataError

_COLUMNS = 15  # with the type, without the score
_NO_CLASS = "dontcare"
_NAME = rb"[ \t]*[^\s\d.+-]\S*([ \t]+\S+){0,3}?"
_TRUNCATED_AND_OCCLUDED = rb"[ \t]+(-?[01](\.\d*)?|\.\d+)[ \t]+(-1|[0-3])(\.0*)?"
_NUMBERS = rb"([ \t]+[-+]?[\d.]+(e[-+]?\d+)?){12,13}[ \t]*\r?$"
_LINE = re.compile(rb"(?m)^" + _NAME + _TRUNCATED_AND_OCCLUDED + _NUMBERS, re.I)


class Kitti(DataFormat):
    """KITTI's objects in images: label_2/ beside image_2/, or labels/ beside images/."""

    title = "KITTI"
    layout = "KITTI (label_2/ beside image_2/, or labels/ beside images/, with .txt files of 15 columns)"
    box_format = "xyxy"
    suffixes = (".txt",)

    def fits(self, content: bytes) -> bool:
        """Whether a line has the columns of the format."""
        return _LINE.search(content) is not None

    def read(self, place: Path, options: ReadOptions = ReadOptions()) -> AnnotatedData:
        """Read all labels; classes are sorted by name, splits come from the names of the folders.

        DontCare regions have no class, so they are left out, and a note states how many.

        Raises:
            DataError: there is no image at all, or two files annotate one image.
        """
        collector = Collector(place, self.title, "line", images=options.images)
        left_out = 0
        for line in label_lines(self, place, collector, _image_name):
            with line.report_errors(collector):
                name, box = _read_line(line.text)
                if name.lower() == _NO_CLASS:
                    left_out += 1
                else:
                    collector.add(line.image, box, name, line.number)
        if left_out:
            collector.note(
                f"{left_out} x DontCare: left out, such a region has no class; its objects count as background"
            )
        return collector.finish(sort_classes=True)


def _image_name(file: Path) -> str:
    """The labels of label_2 belong to the left camera, image_2; the right one, image_3, has the same names."""
    camera = re.fullmatch(r"label_(\d+)", file.parent.name, re.I)
    return f"image_{camera[1]}/{file.stem}" if camera else file.stem


def _read_line(text: str) -> tuple[str, list[float]]:
    """Type and box. The type may be of several words where a score makes that clear, or in quotes.

    Raises:
        DataError: columns are missing, or the box is not of numbers.
    """
    words = text.split()
    count = len(words)
    if count < _COLUMNS:
        raise DataError(
            f"{count} columns; expected are 15: type, truncated, occluded, alpha, left, top, right, bottom..."
        )
    has_score = count > _COLUMNS and _is_number(words[-_COLUMNS])
    first = count - (_COLUMNS if has_score else _COLUMNS - 1)
    name = " ".join(words[:first])
    if first > 1 and (any(map(_is_number, words[1:first])) or not (has_score or name.startswith('"'))):
        raise DataError(f"{count} columns; expected are 15, or 16 with a score, all numbers but the type")
    return name.strip('"'), to_numbers(words[first + 3 : first + 7])


def _is_number(text: str) -> bool:
    try:
        to_numbers([text])
    except DataError:
        return False
    return True
