"""DOTA: a text file for each aerial image, with rotated boxes; also Roboflow's "Oriented Bounding Boxes".

A line is ``x1 y1 x2 y2 x3 y3 x4 y4 category difficult``: four corners in pixels. The first lines may name the source of
the image and the size of its pixels on the ground.
"""

import re
from pathlib import Path

from fasterrcnn.data.annotations import AnnotatedData
from fasterrcnn.data.formats.base import DataFormat, ReadOptions
from fasterrcnn.data.formats.collector import Collector
from fasterrcnn.data.formats.label_lines import label_lines
from fasterrcnn.data.formats.values import to_numbers, to_whole
from fasterrcnn.errors import DataError

_HEADER = re.compile(r"[a-z][a-z _]*:", re.I)
_CORNERS = rb"[ \t]*([-+]?[\d.]+(e[-+]?\d+)?[ \t]+){8}"
_CATEGORY = rb"[^\s\d.+-][^\n]*"  # a number would fit other formats, as the lines of WIDER FACE
_LINE = re.compile(rb"(?im)^(\xef\xbb\xbf)?(imagesource[ \t]*:|gsd[ \t]*:|" + _CORNERS + _CATEGORY + rb"$)")


class Dota(DataFormat):
    """DOTA's oriented boxes: labelTxt/ beside images/."""

    title = "DOTA"
    layout = "DOTA (labelTxt/ beside images/, with .txt files of four corners, category and difficult)"
    suffixes = (".txt",)

    def fits(self, content: bytes) -> bool:
        """Whether it begins as DOTA's files do, or has such a line; results of the benchmark's tasks have none."""
        return _LINE.search(content) is not None

    def read(self, place: Path, options: ReadOptions = ReadOptions()) -> AnnotatedData:
        """Read all labels; classes are sorted by name, splits come from the names of the folders.

        Boxes are those around the rotated boxes.

        Raises:
            DataError: there is no image at all, or two files annotate one image, as those of two versions do.
        """
        collector = Collector(place, self.title, "line", images=options.images)
        for line in label_lines(self, place, collector):
            if _HEADER.match(line.text):
                continue
            with line.report_errors(collector):
                corners, category, difficult = _read_line(line.text)
                points = list(zip(corners[::2], corners[1::2], strict=True))
                flag, shape = difficult, "rotated box"
                collector.add_outline(line.image, points, category, line.number, shape=shape, difficult=flag)
        return collector.finish(sort_classes=True)


def _read_line(text: str) -> tuple[list[float], str, bool]:
    """Corners, category, and whether it is difficult; the flag may be missing after a category of one word.

    Raises:
        DataError: columns are missing, or not of numbers.
    """
    words = text.split()
    count = len(words)
    corners, category = to_numbers(words[:8]), words[8:] if count == 9 else words[8:-1]
    if not category or (count == 9 and not re.search(r"[^\d.+-]", words[8])):
        raise DataError(f"{count} columns; expected are 10: x and y of four corners, category, difficult")
    return corners, " ".join(category), count > 9 and to_whole(words[-1]) != 0
