"""WIDER FACE: a text file for each split, as the benchmark, CVAT and Datumaro write it.

An image is a line with its path, a line with the number of its faces, and a line for each:
``left top width height blur expression illumination invalid occlusion pose``. Where the number is 0, the benchmark has
a line of zeros, and newer versions of Datumaro leave the number out. Datumaro and CVAT may put the name of a class
behind the box, and have the attributes in another order, with invalid last and "-" for what is not stated.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from fasterrcnn.data.annotations import AnnotatedData
from fasterrcnn.data.formats.base import DataFormat, ReadOptions
from fasterrcnn.data.formats.collector import CollectedImage, Collector
from fasterrcnn.data.formats.label_lines import LabelLine
from fasterrcnn.data.formats.reading import beginning_and_end, by_split, files_below, read_lines
from fasterrcnn.data.formats.shapes import Box, box_to_xyxy
from fasterrcnn.data.formats.values import to_numbers, to_whole
from fasterrcnn.errors import DataError
from fasterrcnn.images import EXTENSIONS

_FACE = "face"
_ATTRIBUTES = 6
_INVALID, _INVALID_OF_DATUMARO = 3, 5  # places among the attributes
_FILE_NAME = re.compile(r"wider_face_.*_bbx_gt\.txt", re.I)
_EXTENSION = b"|".join(extension[1:].encode() for extension in sorted(EXTENSIONS))
_ENTRY = re.compile(
    rb"(?im)^\S.*\.("
    + _EXTENSION
    + rb")[ \t]*\r?\n[ \t]*\d+[ \t]*\r?\n[ \t]*(-?[\d.]+[ \t]+){4}([\d-]|True|False)[ \t]"
)


@dataclass
class _Entry:
    """An image of the file: numbers and texts of its lines, and how many faces are stated, if that is readable."""

    number: int
    path: str
    stated: int | None = None
    lines: list[tuple[int, str]] = field(default_factory=list)


class WiderFace(DataFormat):
    """WIDER FACE: wider_face_split/wider_face_train_bbx_gt.txt and WIDER_train/images/."""

    title = "WIDER FACE"
    layout = "WIDER FACE (wider_face_..._bbx_gt.txt files, and the images)"
    box_format = "xywh"
    suffixes = (".txt",)

    def fits(self, content: bytes) -> bool:
        """Whether there is the entry of an image with a face."""
        return _ENTRY.search(content) is not None

    def read(self, place: Path, options: ReadOptions = ReadOptions()) -> AnnotatedData:
        """Read the file of each split; the class is "face" where the file names none. Invalid faces are difficult.

        Raises:
            DataError: there is no image at all, or two files are of one split.
        """
        collector = Collector(place, self.title, "line", images=options.images)
        files = [place] if place.is_file() else self._files(place)
        for split, file in by_split(files, collector.root, collector).items():
            with collector.report_errors(file):
                entries = list(_entries(read_lines(file)))
                matches = collector.find_images([entry.path for entry in entries], file, split)
                for entry in entries if matches else ():
                    what = f"line {entry.number}"
                    path = collector.only_one(matches[entry.path], entry.path, file, what, entry.number)
                    image = collector.claim(path, split, file, entry.path)
                    if image:
                        _read_entry(entry, image, file, collector)
        if place.is_dir():
            collector.report_unlisted("image without annotations")
        return collector.finish()

    def _files(self, folder: Path) -> list[Path]:
        """The annotation files; also those that are so called, though their content may be broken."""
        files = files_below(folder, self.suffixes, lambda content: True)
        return [file for file in files if _FILE_NAME.fullmatch(file.name) or self.fits(beginning_and_end(file))]


def _entries(lines: Sequence[str]) -> Iterator[_Entry]:
    """The images of a file. A damaged line costs no other image: a path is recognised by its extension."""
    entry: _Entry | None = None
    for number, line in enumerate(lines, start=1):
        is_path = PurePosixPath(line.replace("\\", "/")).suffix.lower() in EXTENSIONS
        if line and (is_path or entry is None):
            if entry is not None:
                yield entry
            entry = _Entry(number, line)
        elif line and entry is not None:
            if entry.stated is None and not entry.lines and line.isdecimal() and len(line) < 10:
                entry.stated = int(line)
            else:
                entry.lines.append((number, line))
    if entry is not None:
        yield entry


def _read_entry(entry: _Entry, image: CollectedImage, file: Path, collector: Collector) -> None:
    """Collect the faces of an image. What follows the stated number of faces may belong to another image."""
    lines = entry.lines
    if entry.stated == 0 and lines and set(lines[0][1].split()) == {"0"}:
        lines = lines[1:]
    if (lines and entry.stated is None) or len(lines) < (entry.stated or 0):
        states = "states no number of faces" if entry.stated is None else f"states {entry.stated} faces"
        what = f"line {entry.number} ({entry.path}): {states}, {len(lines)} lines follow"
        collector.problem("unreadable-annotations", file, what, entry.number, image=image.path)
    for position, (number, text) in enumerate(lines):
        with LabelLine(image, number, text).report_errors(collector):
            if entry.stated is not None and position >= entry.stated:
                raise DataError(f"more lines than the {entry.stated} faces of {entry.path}")
            box, name, is_invalid = _read_line(text)
            collector.add(image, box, name, number, difficult=is_invalid)


def _read_line(text: str) -> tuple[Box, str, bool]:
    """Corners, class, and whether the face is invalid.

    Raises:
        DataError: columns are missing, or not of numbers.
    """
    words = text.split()
    box = box_to_xyxy(to_numbers(words[:4]), "xywh") if len(words) >= 4 else None
    attributes, name = words[4:10], words[10:]
    if len(words) < 10:  # Datumaro writes no attributes where an object has none
        attributes, name = [], words[4:]
    if box is None or (name and re.match(r"[-+.\d]", name[0])):
        raise DataError(f"{len(words)} columns; expected are 10, from left, top, width and height to pose")
    by_datumaro = any(not value.isdecimal() for value in attributes)
    invalid = attributes[_INVALID_OF_DATUMARO if by_datumaro else _INVALID] if len(attributes) == _ATTRIBUTES else "0"
    is_invalid = invalid == "True" or (invalid.isdecimal() and to_whole(invalid) != 0)
    return box, " ".join(name) or _FACE, is_invalid
