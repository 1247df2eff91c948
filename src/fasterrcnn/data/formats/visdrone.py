"""VisDrone: a text file for each image of the detection task, as the challenge distributes it.

A line is ``left,top,width,height,score,category,truncation,occlusion``; some files have a comma at its end.
"""

import re
from collections import Counter
from pathlib import Path

from fasterrcnn.data.annotations import AnnotatedData
from fasterrcnn.data.formats.base import DataFormat, ReadOptions
from fasterrcnn.data.formats.collector import Collector, UnusableError
from fasterrcnn.data.formats.label_lines import label_lines
from fasterrcnn.data.formats.shapes import Box, box_to_xyxy
from fasterrcnn.data.formats.values import to_numbers, to_whole
from fasterrcnn.errors import DataError

_NAMES = (
    "pedestrian",
    "people",
    "bicycle",
    "car",
    "van",
    "truck",
    "tricycle",
    "awning-tricycle",
    "bus",
    "motor",
)
_NOT_EVALUATED = {0: "ignored region (category 0)", 11: "other object (category 11)"}
_LINE = re.compile(rb"(?m)^[ \t]*-?[\d.]+(, ?-?[\d.]+){3}, ?[01], ?\d\d?, ?[01], ?[0-2],?[ \t]*\r?$")


class VisDrone(DataFormat):
    """VisDrone's detection in images: annotations/ beside images/."""

    title = "VisDrone"
    layout = "VisDrone (annotations/ beside images/, with .txt files of 8 columns)"
    box_format = "xywh"
    suffixes = (".txt",)

    def fits(self, content: bytes) -> bool:
        """Whether a line has the columns of the format."""
        return _LINE.search(content) is not None

    def read(self, place: Path, options: ReadOptions = ReadOptions()) -> AnnotatedData:
        """Read all annotations; the classes are the ten of the challenge, splits come from the names of the folders.

        Objects with score 0 are not evaluated: they become difficult. Ignored regions and "others" belong to none of
        the classes, so they are left out, and a note states how many.

        Raises:
            DataError: there is no image at all, or two files annotate one image.
        """
        collector = Collector(place, self.title, "line", images=options.images)
        left_out: Counter[str] = Counter()
        for line in label_lines(self, place, collector):
            with line.report_errors(collector):
                box, category, difficult = _read_line(line.text)
                if category in _NOT_EVALUATED:
                    left_out[_NOT_EVALUATED[category]] += 1
                elif 1 <= category <= len(_NAMES):
                    collector.add(line.image, box, category - 1, line.number, difficult=difficult)
                else:
                    raise UnusableError("unknown-class", f"the categories are 0 to 11, not {category}")
        for kind, count in left_out.items():
            collector.note(f"{count} x {kind}: left out, it belongs to none of the classes and counts as background")
        return collector.finish(classes=_NAMES)


def _read_line(text: str) -> tuple[Box, int, bool]:
    """Corners, category, and whether it is ignored.

    Raises:
        DataError: it does not have eight numbers.
    """
    values = text.removesuffix(",").split(",")
    if len(values) != 8:
        what = "left, top, width, height, score, category, truncation, occlusion"
        raise DataError(f"{len(values)} columns; expected are 8: {what}")
    return box_to_xyxy(to_numbers(values[:4]), "xywh"), to_whole(values[5]), to_whole(values[4]) == 0
