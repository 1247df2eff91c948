"""Pascal VOC: one XML file per image, splits in ImageSets/Main, or none.

The XML lies in Annotations, or with the images in one folder, or in a folder for each split, as Roboflow exports it.

Coordinates are taken as they stand, width = xmax - xmin: the way today's annotation tools write them, in which a
box with xmin = xmax is empty. (The challenge itself counted pixels from 1, both ends included.)
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from fasterrcnn.data.annotations import SPLITS, WHOLE, AnnotatedData, AnnotatedImage
from fasterrcnn.data.findings import Finding, unreadable_image
from fasterrcnn.data.formats.collection import size_mismatch
from fasterrcnn.data.images import EXTENSIONS, image_files, read_size_hw
from fasterrcnn.errors import DataError, ImageError

NAME = "Pascal VOC"

_SIDES = ("xmin", "ymin", "xmax", "ymax")
_MAX_BYTES = 64 * 2**20


@dataclass(frozen=True)
class _Object:
    name: str
    box: tuple[float, float, float, float]
    difficult: bool
    number: int


@dataclass(frozen=True)
class _Draft:
    path: Path
    size_hw: tuple[int, int]
    objects: list[_Object]
    file: Path


def find(root: Path) -> list[Path]:
    """Folders that hold a VOC data set: the given one, or some up to two levels below it."""
    return _search(root, levels=2)


def read(folder: Path) -> AnnotatedData:
    """Read every annotation of a Pascal VOC folder, collecting all problems.

    Images lie in JPEGImages or images, beside the annotations' folder, or in it. Classes are sorted by name, for the
    format has no list of them.

    Raises:
        DataError: there is no annotated image at all, or a split file is no text.
    """
    findings: list[Finding] = []
    drafts: dict[Path, _Draft] = {}
    files_of_split: dict[str, list[Path]] = {}
    for part, home in _homes(folder).items():
        annotated = {file.stem for file in _xml_files(home)}
        images = _images(home)
        splits = _read_splits(folder, annotated, findings) if part == WHOLE else {part: sorted(annotated)}
        for split, stems in splits.items():
            files_of_split[split] = [home / f"{stem}.xml" for stem in stems]
        for file in sorted({file for split in splits for file in files_of_split[split]}):
            draft = _draft(file, images.get(file.stem, []), findings)
            if draft is not None:
                drafts[file] = draft
        unlisted = [path for stem, paths in images.items() if stem not in annotated for path in paths]
        findings += [Finding("unlisted-image", path, "image without annotations", image=path) for path in unlisted]
    if not any(files_of_split.values()):
        raise DataError(f"{folder}: no annotated image")
    classes = tuple(sorted({o.name for draft in drafts.values() for o in draft.objects}))
    records = {file: _record(number, draft, classes) for number, (file, draft) in enumerate(drafts.items(), start=1)}
    return AnnotatedData(
        folder,
        NAME,
        classes,
        {split: [records[file] for file in files if file in records] for split, files in files_of_split.items()},
        findings,
        counted="object",
    )


def _search(folder: Path, levels: int) -> list[Path]:
    if _homes(folder):
        return [folder]
    return [found for child in _folders(folder) for found in _search(child, levels - 1)] if levels else []


def _folders(folder: Path) -> list[Path]:
    _, names, _ = next(os.walk(folder), ("", [], []))
    return [folder / name for name in sorted(names) if not name.startswith((".", "__MACOSX"))]


def _homes(folder: Path) -> dict[str, Path]:
    """Where the XML files of each split lie; of "all" if the folders make no splits."""
    if (home := _home(folder)) is not None:
        return {WHOLE: home}
    parts = {child: SPLITS.get(child.name.lower()) for child in _folders(folder)}
    return {split: home for child, split in parts.items() if split and (home := _home(child)) is not None}


def _home(folder: Path) -> Path | None:
    for home in (folder / "Annotations", folder / "annotations"):
        if _xml_files(home):
            return home
    # XML is not rare: only a look into it tells.
    return folder if any(_is_voc(file) for file in _xml_files(folder)[:1]) else None


def _is_voc(file: Path) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return re.search(rb"<annotation[\s>]", stream.read(4096).replace(b"\0", b"")) is not None


def _xml_files(folder: Path) -> list[Path]:
    """Hidden files are left out: macOS puts one beside every file of an archive."""
    return sorted(file for file in folder.glob("*.xml") if not file.name.startswith("."))


def _images(home: Path) -> dict[str, list[Path]]:
    """Images by the name that their XML file must have."""
    base = home.parent if home.name.lower() == "annotations" else home
    found: dict[str, list[Path]] = {}
    places = (base / "JPEGImages", base / "images", base, home)
    for path in next(filter(None, map(image_files, places)), []):
        found.setdefault(path.stem, []).append(path)
    return found


def _read_splits(folder: Path, annotated: set[str], findings: list[Finding]) -> dict[str, list[str]]:
    """Names of the images of each split, in the order of the files."""
    splits: dict[str, list[str]] = {}
    for name, split in SPLITS.items():
        file = folder / "ImageSets" / "Main" / f"{name}.txt"
        if file.is_file():
            try:
                lines = file.read_text(encoding="utf-8-sig").splitlines()
            except UnicodeDecodeError as error:
                raise DataError(f"{file}: not UTF-8 text ({error.reason} at byte {error.start})") from None
            stems = list(dict.fromkeys(_stem(line.strip(), annotated) for line in lines if line.strip()))
            if stems:
                splits.setdefault(split, stems)
            else:
                findings.append(Finding("empty-split", file, "names no image"))
    return splits or {WHOLE: sorted(annotated)}


def _stem(line: str, annotated: set[str]) -> str:
    """The image's name, which may have spaces, without extension and VOC's mark (-1, 0, 1): does it show a class?"""
    if line in annotated:
        return line
    name = re.sub(r"\s+-?[01]$", "", line)
    stem, extension = os.path.splitext(name)
    return stem if extension.lower() in EXTENSIONS and name not in annotated else name


def _draft(file: Path, paths: list[Path], findings: list[Finding]) -> _Draft | None:
    """What one XML file says, or None if image or file cannot be read."""
    if not os.path.isfile(file):
        findings.append(Finding("missing-annotations", file, "no such file", image=paths[0] if paths else None))
        return None
    if not paths:
        findings.append(Finding("missing-image", file, f"there is no image called {file.stem}.*"))
        return None
    if len(paths) > 1:
        names = ", ".join(path.name for path in paths)
        findings.append(Finding("colliding-id", file, f"several images have its name: {names}", image=paths[0]))
        return None
    try:
        tree = _parse(file)
        objects = [_read_object(e, number) for number, e in enumerate(tree.iter("object"), start=1)]
    except DataError as error:
        findings.append(Finding("unreadable-annotations", file, str(error), image=paths[0]))
        return None
    try:
        size_hw = read_size_hw(paths[0])
    except ImageError as error:
        findings.append(unreadable_image(paths[0], error))
        return None
    said_hw = (_pixels(tree.findtext("size/height")), _pixels(tree.findtext("size/width")))
    if all(said_hw) and said_hw != size_hw:
        findings.append(size_mismatch(paths[0], file, said_hw, size_hw))
        size_hw = said_hw
    return _Draft(paths[0], size_hw, objects, file)


def _parse(file: Path) -> ElementTree.Element:
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise DataError(f"larger than {_MAX_BYTES // 2**20} MiB")
        content = file.read_bytes()
        if b"<!ENTITY" in content.replace(b"\0", b""):  # the zeros of UTF-16
            raise DataError("declares XML entities, which can blow up in memory; refused")
        tree = ElementTree.fromstring(content)
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        raise DataError(f"not readable XML ({error})") from None
    if tree.tag != "annotation":
        raise DataError(f"not Pascal VOC: it begins with <{tree.tag}>, not with <annotation>")
    return tree


def _read_object(element: ElementTree.Element, number: int) -> _Object:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise DataError(f"object {number} has no name")
    try:
        left, top, right, bottom = (float(element.findtext(f"bndbox/{side}") or "missing") for side in _SIDES)
    except ValueError as error:
        raise DataError(f"object {number} ({name}): xmin, ymin, xmax and ymax must be numbers ({error})") from None
    difficult = (element.findtext("difficult") or "0").strip() == "1"
    return _Object(name, (left, top, right, bottom), difficult, number)


def _pixels(text: str | None) -> int:
    """A side of an image; 0, as some tools write, where nothing sensible is said."""
    try:
        return max(0, int(float(text or 0)))
    except (ValueError, OverflowError):
        return 0


def _record(image_id: int, draft: _Draft, classes: tuple[str, ...]) -> AnnotatedImage:
    return AnnotatedImage(
        draft.path,
        image_id,
        draft.size_hw,
        np.array([o.box for o in draft.objects], dtype=np.float32).reshape(-1, 4),
        np.array([classes.index(o.name) for o in draft.objects], dtype=np.int64),
        np.array([o.difficult for o in draft.objects], dtype=np.bool_),
        draft.file,
        np.array([o.number for o in draft.objects], dtype=np.int64),
    )
