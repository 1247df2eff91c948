"""COCO JSON: one file for each split, anywhere beside the images; Roboflow's layout included.

Segmentations and key points are ignored: this library is about boxes.
"""

import json
import mmap
import os
import re
import reprlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fasterrcnn.data.annotations import (
    NO_SPLIT,
    SPLITS,
    AnnotatedData,
    AnnotatedImage,
    group_rows,
    split_of,
    to_coco,
)
from fasterrcnn.data.findings import Finding, unreadable_image
from fasterrcnn.data.formats.base import DataFormat, ReadOptions
from fasterrcnn.data.formats.writing import copy_images, file_names, note_copies, shortest_decimals, write_file
from fasterrcnn.data.images import image_files, read_size_hw
from fasterrcnn.errors import DataError, ImageError

_Content = dict[str, list[dict[str, Any]]]

_LISTS = ("images", "annotations", "categories")


class Coco(DataFormat):
    """COCO JSON.

    Written as annotations/instances_<split>.json and <split>/ with the images; instances_all.json and images/ where
    there are no splits. Ids are those of the original.
    """

    title = "COCO"
    layout = 'COCO (.json files with "images" and "annotations")'
    box_format = "xywh"
    opens_images = False
    can_write = True

    def recognise(self, root: Path, options: ReadOptions = ReadOptions()) -> list[Path]:
        """The annotation file itself, or the folder whose annotation files make one data set."""
        if root.is_file():
            return [root] if root.suffix.lower() == ".json" else []
        return [root] if _annotation_files(root) else []

    def read(self, place: Path, options: ReadOptions = ReadOptions()) -> AnnotatedData:
        """Read one annotation file, or a folder with one for each split.

        Raises:
            DataError: a file is no COCO data set, two files are of the same split, their categories contradict each
                other, or not one image is where it could be.
        """
        files = {NO_SPLIT: place} if place.is_file() else _by_split(_annotation_files(place), place)
        if not files:
            raise DataError(f"{place}: no COCO file, that is .json with images and annotations")
        contents = {split: _load(file) for split, file in files.items()}
        findings: list[Finding] = []
        classes, ids, label_of = _categories({files[split]: content for split, content in contents.items()}, findings)
        splits: dict[str, list[AnnotatedImage]] = {}
        listed: set[Path] = set()
        present: set[Path] = set()
        for split, content in contents.items():
            names = [_file_name(image) for image in content["images"]]
            folder = _image_folder(files[split], names, split, options.images)
            paths = [folder / name for name in names]
            listed.update(paths)
            # Listing a folder is much faster than asking for every file.
            present.update(path for parent in {path.parent for path in paths} for path in image_files(parent))
            splits[split] = _annotated_images(content, files[split], paths, present, label_of, findings)
            if not paths:
                findings.append(Finding("empty-split", files[split], "lists no image"))
        unlisted = sorted(present - listed)
        findings += [Finding("unlisted-image", path, "no annotation file lists it", image=path) for path in unlisted]
        splits = {split: images for split, images in splits.items() if images}
        if not splits:
            raise DataError(f"{place}: no image that could be used{f'; first: {findings[0]}' if findings else ''}")
        return AnnotatedData(place if place.is_dir() else place.parent, self.title, classes, splits, findings, ids)

    def write(self, data: AnnotatedData, splits: Mapping[str, Sequence[AnnotatedImage]], folder: Path) -> list[str]:
        """Write a file and a folder of images for each split."""
        (folder / "annotations").mkdir()
        notes = []
        for split, images in splits.items():
            names = file_names(images)
            notes += copy_images(images, names, folder / ("images" if split == NO_SPLIT else split))
            content: dict[str, Any] = {"info": {"description": f"from {data.format}"}, "licenses": []}
            content |= to_coco(data, images)
            for entry, name in zip(content["images"], names, strict=True):
                entry["file_name"] = name
            boxes = [box for image in images for box in shortest_decimals(image.boxes)]
            for annotation, number, (x1, y1, x2, y2) in zip(
                content["annotations"], self._annotation_ids(data, images), boxes, strict=True
            ):
                annotation["id"] = number
                annotation["bbox"] = [x1, y1, round(x2 - x1, 6), round(y2 - y1, 6)]
                if annotation["iscrowd"]:
                    annotation["ignore"] = 1
            write_file(folder / "annotations" / f"instances_{split}.json", json.dumps(content, ensure_ascii=False))
        return notes + note_copies(splits)

    def _annotation_ids(self, data: AnnotatedData, images: Sequence[AnnotatedImage]) -> list[int]:
        """Those of a COCO file where they are unique and positive, otherwise from 1."""
        count = sum(len(image.boxes) for image in images)
        ids = [int(number) for image in images if image.numbers is not None for number in image.numbers]
        valid = data.format == self.title and len(ids) == count == len(set(ids)) and min(ids, default=1) >= 1
        return ids if valid else list(range(1, count + 1))

    def losses(self, data: AnnotatedData) -> list[str]:
        """That difficult objects become crowds."""
        difficult = sum(int(image.difficult.sum()) for image in data.images)
        if not difficult or data.format == self.title:
            return []
        become = "1 box becomes a crowd" if difficult == 1 else f"{difficult} boxes become crowds"
        return [f"{self.title} has no flag for difficult objects: {become}, which evaluation ignores as well"]


def _annotation_files(root: Path) -> list[Path]:
    """COCO files in a folder, in its annotations/ or in the folders of its splits."""
    candidates = [*root.glob("*.json"), *root.glob("annotations/*.json")]
    candidates += [file for file in root.glob("*/*.json") if file.parent.name.lower() in SPLITS]
    files = sorted(file for file in candidates if file.is_file() and _is_coco(file))
    instances = [file for file in files if file.name.startswith("instances")]
    return instances or files  # not those of captions and key points


def _is_coco(file: Path) -> bool:
    if file.stat().st_size == 0:
        return False
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return all(content.find(f'"{name}"'.encode()) >= 0 for name in ("images", "annotations"))


def _by_split(files: Iterable[Path], root: Path) -> dict[str, Path]:
    """Files by the split in the name of the file or of its folder."""
    by_split: dict[str, list[Path]] = {}
    for file in files:
        by_split.setdefault(split_of(file, root), []).append(file)
    several = [files for files in by_split.values() if len(files) > 1]
    if several or (NO_SPLIT in by_split and len(by_split) > 1):
        names = ", ".join(str(file) for files in by_split.values() for file in files)
        raise DataError(f"{root}: several COCO files, and their names do not state the splits; name one: {names}")
    order = [*dict.fromkeys(SPLITS.values()), NO_SPLIT]
    return {split: files[0] for split, files in sorted(by_split.items(), key=lambda item: order.index(item[0]))}


def _load(file: Path) -> _Content:
    def without_masks(value: dict[str, Any]) -> dict[str, Any]:
        value.pop("segmentation", None)  # most of the file, and of the memory
        return value

    try:
        content = json.loads(file.read_bytes().decode("utf-8-sig"), object_hook=without_masks)
    except json.JSONDecodeError as error:
        raise DataError(f"{file}: broken JSON ({error}); is the file complete?") from None
    except (OSError, ValueError, RecursionError) as error:  # not UTF-8, a number of thousands of digits, nesting
        raise DataError(f"{file}: cannot be read ({error})") from None
    if isinstance(content, list):
        raise DataError(f"{file}: a list, as of COCO results; a data set has {', '.join(_LISTS)}")
    for name in _LISTS:
        rows = content.get(name) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DataError(f"{file}: not a COCO data set: {name!r} must be a list of objects")
    return {name: content[name] for name in _LISTS}


def _whole(value: object) -> int | None:
    """A whole number, though it may be written as text or as 1.0; None for all else."""
    if type(value) is not int:  # rare among millions
        value = float(value) if isinstance(value, str) and value.isdecimal() and len(value) < 16 else value
        value = int(value) if isinstance(value, float) and value.is_integer() else value
    return value if isinstance(value, int) and abs(value) < 2**63 else None


def _categories(
    contents: Mapping[Path, _Content], findings: list[Finding]
) -> tuple[tuple[str, ...], tuple[int, ...], dict[int, int]]:
    """Names and ids of the classes in the order of the files, and the label of every id."""
    name_of: dict[int, str] = {}
    parents = {str(c.get("supercategory")) for content in contents.values() for c in content["categories"]}
    used = {_whole(row.get("category_id")) for content in contents.values() for row in content["annotations"]}
    for file, content in contents.items():
        own: set[int] = set()
        for category in content["categories"]:
            number, name = _whole(category.get("id")), str(category.get("name") or "").strip()
            if number is None or not name:
                raise DataError(f"{file}: category {reprlib.repr(category)} needs a whole number as id, and a name")
            if number in own:
                findings.append(Finding("colliding-id", file, f"two categories have the id {number}; the first counts"))
                continue
            own.add(number)
            # Roboflow puts the name of the project before the classes.
            if number not in used and name in parents and category.get("supercategory") == "none":
                continue
            if name_of.setdefault(number, name) != name:
                raise DataError(f"{file}: category {number} is {name!r} here and {name_of[number]!r} in another split")
    if not name_of:
        raise DataError(f"{next(iter(contents))}: no categories")
    ids_of: dict[str, list[int]] = {}
    for number, name in name_of.items():
        ids_of.setdefault(name, []).append(number)
    for name, ids in ids_of.items():
        if len(ids) > 1:
            what = f"categories {', '.join(map(str, ids))} are all called {name!r}; they count as one class"
            findings.append(Finding("colliding-id", next(iter(contents)), what))
    label_of = {number: label for label, ids in enumerate(ids_of.values()) for number in ids}
    return tuple(ids_of), tuple(ids[0] for ids in ids_of.values()), label_of


def _image_folder(file: Path, names: list[str], split: str, images: Path | None) -> Path:
    """The folder in which most of the listed images lie, of the places where tools put them."""
    words = re.split("[^A-Za-z0-9]+", file.stem)[::-1]  # instances_train2017
    words += [word for word, meant in SPLITS.items() if meant == split]
    subfolders = ["", "images", "JPEGImages", "data", *words]
    subfolders += [f"{folder}/{word}" for folder in ("images", "data") for word in words]
    bases = [file.parent, file.parent.parent] if images is None else [images]
    places = [place for place in dict.fromkeys(base / sub for base in bases for sub in subfolders) if place.is_dir()]
    sample = [name for name in names[:: len(names) // 1000 + 1] if name]
    counts = [sum(os.path.isfile(place / name) for name in sample) for place in places]
    if any(counts):
        return places[counts.index(max(counts))]
    if not sample:
        return bases[0]
    shown = ", ".join(map(str, places or bases))
    hint = "name their folder (--images), or the annotation file whose images are there"
    raise DataError(f"{file}: its images ({sample[0]}...) are in none of {shown}; {hint}")


def _file_name(image: Mapping[str, Any]) -> str:
    """Path of an image below the folder; of a URL or a path that leads out of it, the last part."""
    name = str(image.get("file_name") or "").replace("\\", "/")
    parts = name.split("/")
    return parts[-1] if name.startswith("/") or ":/" in name or ".." in parts else name


def _annotated_images(
    content: _Content,
    file: Path,
    paths: list[Path],
    present: set[Path],
    label_of: Mapping[Any, int],
    findings: list[Finding],
) -> list[AnnotatedImage]:
    images, index_of = _images(content["images"], file, paths, present, findings)
    owners: list[int] = []
    numbers: list[int] = []
    rows: list[tuple[float | int, ...]] = []
    for position, annotation in enumerate(content["annotations"], start=1):
        number = position if (given := _whole(annotation.get("id"))) is None else given
        try:
            image_id = _whole(annotation["image_id"])
            if image_id not in index_of:
                what = f"annotation {number}: no image has the id {annotation['image_id']!r}"
                findings.append(Finding("unknown-image", file, what, number))
            elif (owner := index_of[image_id]) is not None:
                rows.append(_row(annotation, label_of))
                owners.append(owner)
                numbers.append(number)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            findings.append(_unusable(annotation, number, label_of, file, error))
    counts = Counter(_whole(annotation.get("id")) for annotation in content["annotations"])
    findings += [
        Finding("colliding-id", file, f"{count} annotations have the id {number}", number)
        for number, count in counts.items()
        if count > 1 and number is not None
    ]
    table = np.array(rows, dtype=np.float64).reshape(-1, 7)
    with np.errstate(over="ignore"):
        boxes, areas = table[:, :4].astype(np.float32), table[:, 4].astype(np.float32)
    labels, flags = table[:, 5].astype(np.int64), table[:, 6].astype(np.bool_)
    columns = (boxes, labels, flags, np.array(numbers, dtype=np.int64), areas)
    parts = group_rows(np.array(owners, dtype=np.int64), len(images), *columns)
    return [
        AnnotatedImage(path, number, size_hw, boxes, labels, flags, file, numbers, areas)
        for (number, path, size_hw), (boxes, labels, flags, numbers, areas) in zip(images, parts, strict=True)
    ]


def _images(
    images: list[dict[str, Any]], file: Path, paths: list[Path], present: set[Path], findings: list[Finding]
) -> tuple[list[tuple[int, Path, tuple[int, int]]], dict[int | None, int | None]]:
    """Id, path and size of every image that can be used, and the position of every id among them, or None."""
    usable: list[tuple[int, Path, tuple[int, int]]] = []
    position_of: dict[Path, int] = {}
    counts = Counter(_whole(image.get("id")) for image in images)
    index_of: dict[int | None, int | None] = dict.fromkeys(counts)
    for image, path in zip(images, paths, strict=True):
        number = _whole(image.get("id"))
        if number is None or not image.get("file_name"):
            what = f"image {image.get('id')!r} ({image.get('file_name')!r}) needs a whole number as id, and a file_name"
            findings.append(Finding("unreadable-annotations", file, what))
        elif counts[number] > 1:
            what = f"{counts[number]} images have the id {number}, one is {path.name}"
            findings.append(Finding("colliding-id", file, what, image=path))
        elif path in position_of:
            index_of[number] = position_of[path]
            what = f"images {usable[position_of[path]][0]} and {number} are one file; their boxes are put together"
            findings.append(Finding("same-image", file, what, image=path))
        elif path not in present and not os.path.isfile(path):
            findings.append(Finding("missing-image", file, f"image {number}: there is no {path}", image=path))
        elif (size_hw := _size_hw(image, path, findings)) is not None:
            position_of[path] = index_of[number] = len(usable)
            usable.append((number, path, size_hw))
    return usable, index_of


def _row(annotation: Mapping[str, Any], label_of: Mapping[Any, int]) -> tuple[float | int, ...]:
    """Box as xyxy, area, label, and whether it is a crowd or to be ignored."""
    x, y, width, height = map(float, annotation["bbox"])
    area = annotation.get("area")
    if not isinstance(area, int | float) or not 0 < area < 1e30:
        area = width * height
    label = label_of[_whole(annotation["category_id"])]
    flagged = _whole(annotation.get("iscrowd")) or _whole(annotation.get("ignore"))
    return x, y, x + width, y + height, area, label, bool(flagged)


def _unusable(
    annotation: Mapping[str, Any], number: int, label_of: Mapping[Any, int], file: Path, error: Exception
) -> Finding:
    category = annotation.get("category_id")
    if "category_id" in annotation and _whole(category) not in label_of:
        return Finding("unknown-class", file, f"annotation {number}: no category has the id {category!r}", number)
    if isinstance(error, KeyError):
        return Finding("unreadable-annotations", file, f"annotation {number} has no {error.args[0]}", number)
    what = f"bbox must be four numbers (left, top, width, height), not {reprlib.repr(annotation.get('bbox'))} ({error})"
    return Finding("unreadable-annotations", file, f"annotation {number}: {what}", number)


def _size_hw(image: Mapping[str, Any], path: Path, findings: list[Finding]) -> tuple[int, int] | None:
    """As the file states it; that of the image itself where it does not."""
    height, width = image.get("height"), image.get("width")
    if isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0:
        return height, width
    try:
        return read_size_hw(path)
    except ImageError as error:
        findings.append(unreadable_image(path, error))
        return None
