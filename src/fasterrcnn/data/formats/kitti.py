"""KITTI: a text file for each image, as the benchmark for 2D objects, NVIDIA TAO, DIGITS and CVAT have it.

A line is ``type truncated occluded alpha left top right bottom height width length x y z rotation_y``, and perhaps a
score, which CVAT always writes. Only the type and the box are used; tools that draw boxes fill the rest with zeros.
"""

import os
import re
from dataclasses import replace
from pathlib import Path, PurePosixPath

from fasterrcnn.data.annotations import SPLITS, AnnotatedData
from fasterrcnn.data.findings import Finding, count_of
from fasterrcnn.data.formats.base import DataFormat, ReadOptions
from fasterrcnn.data.formats.collector import Collector
from fasterrcnn.data.formats.label_lines import label_lines
from fasterrcnn.data.formats.reading import files_in, read_lines
from fasterrcnn.data.formats.values import to_numbers
from fasterrcnn.errors import DataError
from fasterrcnn.images import EXTENSIONS

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
        """Read all labels; classes are sorted by name.

        Splits come from the lists in ImageSets/, beside the folder of the labels or one level above, where there are
        any; else from the names of the folders.

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
        data = collector.finish(sort_classes=True)
        return _divided_by_lists(data) if place.is_dir() else data


def _divided_by_lists(data: AnnotatedData) -> AnnotatedData:
    """The data set, its splits as the lists of names in ImageSets/ state them, if there are any: train.txt, val.txt...

    The benchmark's own test.txt lists images without labels, numbered like those with labels: it is not used.
    """
    image_of = {image.source: image for image in data.images if image.source is not None}
    folders = {file.parent for file in image_of}
    if len(folders) != 1:  # the same names may be in several
        return data
    findings = list(data.findings)
    lists = _read_lists(next(iter(folders)), findings)
    trained = {file for split, files in lists.items() if split != "test" for file in files}
    if not trained.isdisjoint(lists.get("test", ())):
        del lists["test"]
    members = {
        split: [image_of[file] for file in dict.fromkeys(files) if file in image_of] for split, files in lists.items()
    }
    splits = {split: members[split] for split in dict.fromkeys(SPLITS.values()) if members.get(split)}
    left_out = len(image_of.keys() - {image.source for images in splits.values() for image in images})
    notes = list(data.notes)
    if splits and left_out:
        notes.append(f"{count_of(left_out, 'image')} with labels left out, for no list in ImageSets/ names them")
    return replace(data, splits=splits or data.splits, findings=findings, notes=notes)


def _read_lists(labels: Path, findings: list[Finding]) -> dict[str, list[Path]]:
    """The label files of each split, from the lists beside the folder of the labels or one level above."""
    lists: dict[str, list[Path]] = {}
    for place in (labels.parent / "ImageSets", labels.parent.parent / "ImageSets"):
        for text in files_in(place, (".txt",)):
            split = SPLITS.get(text.stem.lower())
            try:
                lines = read_lines(text) if split else []
            except DataError as error:
                findings.append(Finding("unreadable-annotations", text, str(error).removeprefix(f"{text}: ")))
                continue
            files = [labels / f"{_without_extension(line)}.txt" for line in lines if line]
            if split:
                lists.setdefault(split, []).extend(files)
            for file in files if split != "test" else ():
                if not os.path.isfile(file):  # unlike Path.is_file, no error for a name that is too long
                    findings.append(Finding("missing-annotations", text, f"lists {file.stem}, which has no labels"))
    return lists


def _without_extension(name: str) -> str:
    path = PurePosixPath(name)
    return path.stem if path.suffix.lower() in {*EXTENSIONS, ".txt"} else path.name


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
