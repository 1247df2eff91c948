"""Pascal VOC: one XML file per picture, splits in ImageSets/Main, or none.

Coordinates are taken as they stand, width = xmax - xmin: the way today's annotation tools write them, in which a
box with xmin = xmax is empty. (The challenge itself counted pixels from 1, both ends included.)
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from fasterrcnn.data.images import EXTENSIONS, read_size_hw
from fasterrcnn.data.records import WHOLE, AnnotatedData, Problem, Record
from fasterrcnn.errors import DataError, ImageError

_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "trainval": "trainval", "test": "test"}
"""Names of split files, and what they are called here."""

_SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class _Object:
    name: str
    box: tuple[float, float, float, float]
    difficult: bool


def read_voc(root: Path) -> AnnotatedData:
    """Read every annotation of a Pascal VOC folder, collecting all problems before any is raised.

    Boxes without area or outside the picture are dropped, boxes over the border are cut; both are reported in
    ``problems``.

    Raises:
        DataError: not a VOC folder, or files are missing or damaged; the message lists all of them.
    """
    folder = _find(root)
    dropped: list[Problem] = []
    ids_of_split = _read_splits(folder, dropped)
    pictures: dict[str, list[Path]] = {}
    for path in sorted((folder / "JPEGImages").iterdir()):
        if path.suffix.lower() in EXTENSIONS:
            pictures.setdefault(path.stem, []).append(path)
    fatal: list[Problem] = []
    drafts: dict[str, tuple[Path, tuple[int, int], list[_Object]]] = {}
    for stem in sorted({stem for stems in ids_of_split.values() for stem in stems}):
        file = folder / "Annotations" / f"{stem}.xml"
        try:
            path = _picture(pictures, stem, folder)
            size_hw = read_size_hw(path)
            drafts[stem] = path, size_hw, list(_clean(_read_objects(file), size_hw, file, dropped))
        except (DataError, ImageError) as error:
            fatal.append(Problem(file, str(error).removeprefix(f"{file}: ")))
    if fatal:
        shown = "; ".join(str(problem) for problem in fatal[:20])
        more = f"; and {len(fatal) - 20} more" if len(fatal) > 20 else ""
        raise DataError(f"{len(fatal)} problems in {folder}: {shown}{more}")
    classes = tuple(sorted({o.name for _, _, objects in drafts.values() for o in objects}))
    records = {
        stem: _record(number, path, size_hw, objects, classes)
        for number, (stem, (path, size_hw, objects)) in enumerate(drafts.items(), start=1)
    }
    splits = {name: [records[stem] for stem in stems] for name, stems in ids_of_split.items()}
    return AnnotatedData(folder, "Pascal VOC", classes, splits, dropped)


def _find(root: Path) -> Path:
    """The folder that holds Annotations and JPEGImages: the given one, or the only one below it."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    found = sorted(
        p.parent for p in [*root.glob("Annotations"), *root.glob("*/Annotations"), *root.glob("*/*/Annotations")]
    )
    found = [folder for folder in found if (folder / "JPEGImages").is_dir()]
    if not found:
        raise DataError(f"{root}: not Pascal VOC, there is no folder with Annotations/ and JPEGImages/ inside")
    if len(found) > 1:
        raise DataError(f"{root}: several data sets, name one: {', '.join(str(folder) for folder in found)}")
    return found[0]


def _read_splits(folder: Path, problems: list[Problem]) -> dict[str, list[str]]:
    """Names of the pictures of each split, in the order of the files."""
    splits: dict[str, list[str]] = {}
    annotated = {file.stem for file in (folder / "Annotations").glob("*.xml")}
    for name, split in _SPLITS.items():
        file = folder / "ImageSets" / "Main" / f"{name}.txt"
        if file.is_file():
            try:
                lines = file.read_text(encoding="utf-8").splitlines()
            except UnicodeDecodeError as error:
                raise DataError(f"{file}: not UTF-8 text ({error.reason} at byte {error.start})") from None
            stems = list(dict.fromkeys(_stem(line.strip(), annotated) for line in lines if line.strip()))
            if stems:
                splits.setdefault(split, stems)
            else:
                problems.append(Problem(file, "names no picture; this split is left out"))
    if not splits:
        splits[WHOLE] = sorted(annotated)
    if not any(splits.values()):
        raise DataError(f"{folder}: no annotated picture")
    return splits


def _stem(line: str, annotated: set[str]) -> str:
    """The picture's name, which may have spaces, without VOC's mark (-1, 0, 1) of whether it shows a class."""
    return line if line in annotated else re.sub(r"\s+-?[01]$", "", line)


def _picture(pictures: dict[str, list[Path]], stem: str, folder: Path) -> Path:
    candidates = pictures.get(stem, [])
    if not candidates:
        raise DataError(f"there is no picture {folder / 'JPEGImages' / stem}.*")
    if len(candidates) > 1:
        raise DataError(f"several pictures have its name: {', '.join(str(path) for path in candidates)}; keep one")
    return candidates[0]


def _read_objects(file: Path) -> list[_Object]:
    """Objects of one XML file, as they are written."""
    try:
        root = ElementTree.parse(file).getroot()
    except FileNotFoundError:
        raise DataError("no such file") from None
    except (ElementTree.ParseError, OSError, ValueError) as error:
        raise DataError(f"not readable XML ({error})") from None
    return [_read_object(element, number) for number, element in enumerate(root.iter("object"), start=1)]


def _read_object(element: ElementTree.Element, number: int) -> _Object:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise DataError(f"object {number} has no name")
    try:
        left, top, right, bottom = (float(element.findtext(f"bndbox/{side}") or "missing") for side in _SIDES)
    except ValueError as error:
        raise DataError(f"object {number} ({name}): xmin, ymin, xmax and ymax must be numbers ({error})") from None
    difficult = (element.findtext("difficult") or "0").strip() == "1"
    return _Object(name, (left, top, right, bottom), difficult)


def _clean(
    objects: Iterable[_Object], size_hw: tuple[int, int], file: Path, problems: list[Problem]
) -> Iterable[_Object]:
    """The objects that can be learnt from, cut at the border of the picture."""
    height, width = size_hw
    for number, found in enumerate(objects, start=1):
        x1, y1, x2, y2 = found.box
        where = f"object {number} ({found.name}) {x1:g},{y1:g},{x2:g},{y2:g}"
        if not all(math.isfinite(value) for value in found.box):
            problems.append(Problem(file, f"{where}: not finite; dropped"))
            continue
        if x2 <= x1 or y2 <= y1:
            problems.append(Problem(file, f"{where}: no area; dropped"))
            continue
        box = (max(0.0, x1), max(0.0, y1), min(float(width), x2), min(float(height), y2))
        if box[2] <= box[0] or box[3] <= box[1]:
            problems.append(Problem(file, f"{where}: outside the picture of {width} x {height}; dropped"))
            continue
        if max(abs(a - b) for a, b in zip(box, found.box, strict=True)) > 1:
            problems.append(Problem(file, f"{where}: reaches over the picture of {width} x {height}; cut"))
        yield _Object(found.name, box, found.difficult)


def _record(
    number: int, path: Path, size_hw: tuple[int, int], objects: list[_Object], classes: tuple[str, ...]
) -> Record:
    return Record(
        path,
        number,
        size_hw,
        np.array([o.box for o in objects], dtype=np.float32).reshape(-1, 4),
        np.array([classes.index(o.name) for o in objects], dtype=np.int64),
        np.array([o.difficult for o in objects], dtype=np.bool_),
    )
