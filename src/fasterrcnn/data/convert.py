"""Writing a data set in another format: COCO, Pascal VOC or YOLO, in the layout that most tools expect."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args
from xml.etree import ElementTree

import numpy as np
import yaml
from numpy.typing import NDArray

from fasterrcnn.data.annotations import SPLITS, WHOLE, AnnotatedData, AnnotatedImage, to_coco
from fasterrcnn.data.formats import coco, voc, yolo
from fasterrcnn.data.images import EXTENSIONS
from fasterrcnn.data.split import content_of
from fasterrcnn.errors import DataError, UsageError
from fasterrcnn.files import atomic_folder

Target = Literal["coco", "voc", "yolo"]

_TITLES: dict[Target, str] = {"coco": coco.NAME, "voc": voc.NAME, "yolo": yolo.NAME}
_SHARE_DIGITS = 9  # 0.0005 pixels in an image of a million
# What some system, a list with one name a line, UTF-8 or XML cannot hold.
_NOT_IN_NAMES = re.compile(r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|\u2028\u2029\ud800-\udfff\ufffe\uffff]')


def write_data(data: AnnotatedData, folder: Path, to: Target) -> list[str]:
    """Write a data set, images included, into a new folder.

    Boxes are written as they are, those without area or over the border too. What is written appears all at once:
    after an error, or Ctrl-C, there is nothing. An image keeps its file name, unless another one has it already or it
    is one that no file should have. Splits without images are left out; so is, but in VOC, a "trainval" that holds
    the images of train and val.

    - COCO: annotations/instances_<split>.json and <split>/ with the images; instances_all.json and images/ where
      there are no splits. Ids are those of the original.
    - VOC: JPEGImages/, Annotations/, ImageSets/Main/<split>.txt. An image in two splits is there once.
    - YOLO: data.yaml, images/<split>/, labels/<split>/; images/ and labels/ where there are no splits. An image
      without boxes has an empty file.

    Args:
        data: what to write.
        folder: must not exist, or be empty.
        to: the format.

    Returns:
        What the format has no place for, in sentences.

    Raises:
        UsageError: the folder is not empty, or there is no such format.
        DataError: a box has NaN or infinite coordinates, a split has a name that tools do not know, or an image is
            not there.
    """
    if to not in _TITLES:
        raise UsageError(f"no format {to!r} to write; there are: {', '.join(get_args(Target))}")
    _check(data)
    splits = {name: records for name, records in data.splits.items() if records}
    parts = {id(record) for name in ("train", "val") for record in splits.get(name, ())}
    if to != "voc" and all(id(record) in parts for record in splits.get("trainval", ())):
        splits.pop("trainval", None)  # VOC has lists; here it would be copies of train and val
    with atomic_folder(folder) as temporary:
        said = _WRITERS[to](data, splits, temporary)
    return _losses(data, to) + said


def _check(data: AnnotatedData) -> None:
    for name in data.splits:
        if name != WHOLE and name not in SPLITS:
            known = ", ".join(dict.fromkeys(SPLITS.values()))
            raise DataError(f"{data.root}: tools know no split called {name!r}; name it one of {known}")
    if data.splits.get(WHOLE) and len(data.splits) > 1:
        raise DataError(
            f"{data.root}: {data.splits[WHOLE][0].path.name} and perhaps more are in no split, others are; "
            'put each into one, or make new ones with "fasterrcnn data split"'
        )
    for record in data.records:
        odd = np.flatnonzero(~np.isfinite(record.boxes).all(axis=1))
        if len(odd):
            found = data.finding("not-finite", record, int(odd[0]), "is not finite")
            raise DataError(f'{found}; nothing was written, "fasterrcnn data check --fix" leaves such boxes out')


def _losses(data: AnnotatedData, to: Target) -> list[str]:
    """What the format cannot hold of these data."""
    title, records = _TITLES[to], data.records
    said = []
    difficult = sum(int(record.difficult.sum()) for record in records)
    if difficult and to == "yolo":
        boxes = "1 box becomes an ordinary one" if difficult == 1 else f"{difficult} boxes become ordinary ones"
        said.append(f"{title} has no flag for difficult objects: {boxes}")
    if difficult and to == "coco" and data.format != title:
        boxes = "1 box becomes a crowd" if difficult == 1 else f"{difficult} boxes become crowds"
        said.append(f"{title} has no flag for difficult objects: {boxes}, which evaluation ignores as well")
    if to == "coco":
        return said
    masks = sum(_of_masks(record) for record in records)
    if masks:
        said.append(f"{title} has no areas: of {masks} {_plural(masks, 'object')} the box counts, not the outline")
    if data.category_ids != tuple(range(1, len(data.classes) + 1)):
        said.append(f"{title} has no ids of classes: those of the original are lost")
    if to == "voc":
        used = {int(label) for record in records for label in record.labels}
        unused = [name for label, name in enumerate(data.classes) if label not in used]
        if unused:
            said.append(f"{title} has no list of classes: those without boxes are lost ({', '.join(unused)})")
        if list(data.classes) != sorted(data.classes):
            said.append(f"{title} has no list of classes: their order is lost, most tools sort the names")
    return said


def _of_masks(record: AnnotatedImage) -> int:
    """How many objects have another area than their boxes."""
    if record.areas is None:
        return 0
    sides = record.boxes[:, 2:] - record.boxes[:, :2]
    return int((~np.isclose(sides.prod(axis=1), record.areas, rtol=0.01, atol=0.01)).sum())


def _write_coco(data: AnnotatedData, splits: dict[str, list[AnnotatedImage]], folder: Path) -> list[str]:
    (folder / "annotations").mkdir()
    said = []
    for split, records in splits.items():
        names = _file_names(records)
        said += _copy(records, names, folder / ("images" if split == WHOLE else split))
        content: dict[str, Any] = {"info": {"description": f"from {data.format}"}, "licenses": []}
        content |= to_coco(data, records)
        for image, name in zip(content["images"], names, strict=True):
            image["file_name"] = name
        boxes = [box for record in records for box in _decimals(record.boxes)]
        for annotation, number, (x1, y1, x2, y2) in zip(
            content["annotations"], _numbers(data, records), boxes, strict=True
        ):
            annotation["id"] = number
            annotation["bbox"] = [x1, y1, round(x2 - x1, 6), round(y2 - y1, 6)]
            if annotation["iscrowd"]:
                annotation["ignore"] = 1
        _write(folder / "annotations" / f"instances_{split}.json", json.dumps(content, ensure_ascii=False))
    return said + _copied_twice(splits)


def _numbers(data: AnnotatedData, records: Sequence[AnnotatedImage]) -> list[int]:
    """Ids of the annotations: those of a COCO file where they are sound, otherwise from 1."""
    count = sum(len(record.boxes) for record in records)
    numbers = [int(number) for record in records if record.numbers is not None for number in record.numbers]
    sound = data.format == coco.NAME and len(numbers) == count == len(set(numbers)) and min(numbers, default=1) >= 1
    return numbers if sound else list(range(1, count + 1))


def _write_voc(data: AnnotatedData, splits: dict[str, list[AnnotatedImage]], folder: Path) -> list[str]:
    distinct = {content_of(record): record for record in data.records}
    names = _file_names(list(distinct.values()))
    said = _copy(list(distinct.values()), names, folder / "JPEGImages")
    (folder / "Annotations").mkdir()
    for record, name in zip(distinct.values(), names, strict=True):
        text = ElementTree.tostring(_xml(data, record, name), encoding="unicode")
        _write(folder / "Annotations" / f"{Path(name).stem}.xml", text + "\n")
    if list(splits) != [WHOLE]:
        (folder / "ImageSets" / "Main").mkdir(parents=True)
        stems = {content: Path(name).stem for content, name in zip(distinct, names, strict=True)}
        for split, records in splits.items():
            lines = "".join(f"{stems[content_of(record)]}\n" for record in records)
            _write(folder / "ImageSets" / "Main" / f"{split}.txt", lines)
    return said


def _xml(data: AnnotatedData, record: AnnotatedImage, name: str) -> ElementTree.Element:
    """The annotation of one image."""

    def add(parent: ElementTree.Element, tag: str, text: object = None) -> ElementTree.Element:
        element = ElementTree.SubElement(parent, tag)
        element.text = None if text is None else str(text)
        return element

    root = ElementTree.Element("annotation")
    add(root, "folder", "JPEGImages")
    add(root, "filename", name)
    size = add(root, "size")
    for tag, pixels in zip(("width", "height", "depth"), (*record.size_hw[::-1], 3), strict=True):
        add(size, tag, pixels)
    add(root, "segmented", 0)
    for box, label, difficult in zip(_decimals(record.boxes), record.labels, record.difficult, strict=True):
        thing = add(root, "object")
        add(thing, "name", data.classes[label])
        add(thing, "pose", "Unspecified")
        add(thing, "truncated", 0)
        add(thing, "difficult", int(difficult))
        corners = add(thing, "bndbox")
        for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True):
            add(corners, tag, np.format_float_positional(np.float32(value), trim="-"))
    ElementTree.indent(root)
    return root


def _write_yolo(data: AnnotatedData, splits: dict[str, list[AnnotatedImage]], folder: Path) -> list[str]:
    said = []
    content: dict[str, object] = {}
    for split, records in splits.items():
        below = "" if split == WHOLE else split
        names = _file_names(records)
        said += _copy(records, names, folder / "images" / below)
        (folder / "labels" / below).mkdir(parents=True, exist_ok=True)
        for record, name in zip(records, names, strict=True):
            _write(folder / "labels" / below / f"{Path(name).stem}.txt", _lines(record))
        if below:
            content[split] = f"images/{split}"
    # Without "path": tools then start from the folder of this file, wherever it is.
    content["names"] = dict(enumerate(data.classes))
    _write(folder / "data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    return said + _copied_twice(splits)


def _lines(record: AnnotatedImage) -> str:
    """A line for each box: class, centre and size in shares of the image."""
    height, width = record.size_hw
    x1, y1, x2, y2 = (np.array(_decimals(record.boxes)).reshape(-1, 4) / (width, height, width, height)).T
    shares = np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], axis=1)
    texts = [
        " ".join(np.format_float_positional(value, precision=_SHARE_DIGITS, trim="-") for value in row)
        for row in shares
    ]
    return "".join(f"{label} {text}\n" for label, text in zip(record.labels, texts, strict=True))


def _decimals(boxes: NDArray[np.float32]) -> list[list[float]]:
    """The shortest decimal numbers that are these boxes: 38.65 instead of 38.650001525878906."""
    return [[float(str(value)) for value in box] for box in boxes]


def _file_names(records: Sequence[AnnotatedImage]) -> list[str]:
    """A plain file name for each image; no two have the same stem, for YOLO and VOC name annotations after it."""
    names: list[str] = []
    taken: set[str] = set()
    for record in records:
        path = Path(_NOT_IN_NAMES.sub("_", record.path.name))
        stem, suffix = path.stem.strip(" ."), path.suffix
        if suffix.lower() not in EXTENSIONS:
            stem, suffix = path.name.strip(" ."), ".jpg"  # tools tell images by it, and decoders do not care
        stem = stem or "image"
        free, number = stem, 1
        while free.casefold() in taken:
            number += 1
            free = f"{stem}-{number}"
        taken.add(free.casefold())
        names.append(free + suffix)
    return names


def _copy(records: Sequence[AnnotatedImage], names: Sequence[str], folder: Path) -> list[str]:
    """Copy the images; returns a sentence if some got another name."""
    folder.mkdir(parents=True, exist_ok=True)
    for record, name in zip(records, names, strict=True):
        try:
            shutil.copyfile(record.path, folder / name)
        except FileNotFoundError:
            raise DataError(f"{record.path}: no such file; nothing was written") from None
    renamed = [(r.path.name, name) for r, name in zip(records, names, strict=True) if r.path.name != name]
    if not renamed:
        return []
    old, new = renamed[0]
    count = f"{len(renamed)} {_plural(len(renamed), 'image')}"
    return [f"{count} in {folder.name}/ got another name, as {old!r}, which is now {new!r}"]


def _copied_twice(splits: dict[str, list[AnnotatedImage]]) -> list[str]:
    counts = Counter(id(record) for records in splits.values() for record in records)
    several = sum(count > 1 for count in counts.values())
    return [f"{several} {_plural(several, 'image')} in several splits: a copy is in each"] if several else []


def _plural(count: int, word: str) -> str:
    return word if count == 1 else f"{word}s"


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8", newline="\n")


_WRITERS: dict[Target, Callable[[AnnotatedData, dict[str, list[AnnotatedImage]], Path], list[str]]] = {
    "coco": _write_coco,
    "voc": _write_voc,
    "yolo": _write_yolo,
}
