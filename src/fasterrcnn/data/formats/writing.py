"""Writes data sets: what is refused, the copies of the images, and what the formats' own writers share."""

import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fasterrcnn.data.annotations import NO_SPLIT, SPLITS, AnnotatedData, AnnotatedImage
from fasterrcnn.data.formats.base import DataFormat, NamedImages
from fasterrcnn.errors import DataError
from fasterrcnn.files import atomic_folder
from fasterrcnn.images import EXTENSIONS

# Characters that file systems, lists with one name a line, UTF-8 or XML do not allow.
_NOT_IN_NAMES = re.compile(r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|\u2028\u2029\ud800-\udfff\ufffe\uffff]')


def write_as(form: DataFormat, data: AnnotatedData, folder: Path) -> list[str]:
    """Write a data set in a format; see `fasterrcnn.data.formats.write_data`."""
    _check_writable(data)
    splits = {name: images for name, images in data.splits.items() if images}
    if form.splits_are_lists:
        distinct = {image.content: image for image in data.images}
        name_of = dict(zip(distinct, _file_names(list(distinct.values())), strict=True))
        named = {split: {name_of[image.content]: image for image in images} for split, images in splits.items()}
        copies = {form.image_folder(NO_SPLIT): {name_of[content]: image for content, image in distinct.items()}}
    else:
        splits = _without_trainval(splits)
        named = {split: dict(zip(_file_names(images), images, strict=True)) for split, images in splits.items()}
        copies = {form.image_folder(split): images for split, images in named.items()}
    with atomic_folder(folder) as temporary:
        notes = [note for place, images in copies.items() for note in _copy_images(images, temporary / place)]
        form.write(data, named, temporary)
    return form.losses(data) + notes + ([] if form.splits_are_lists else _note_copies(splits))


def shortest_decimals(boxes: NDArray[np.float32]) -> list[list[float]]:
    """The shortest decimal numbers that are these boxes: 38.65 instead of 38.650001525878906."""
    return [[float(str(value)) for value in box] for box in boxes]


def write_file(file: Path, text: str) -> None:
    """Write UTF-8 text with the same line ends on every system; the folder is made if need be."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8", newline="\n")


def lost_areas_and_ids(title: str, data: AnnotatedData) -> list[str]:
    """Sentences about what only COCO can hold: areas of outlines, and ids of classes."""
    notes = []
    outlines = sum(_count_outlines(image) for image in data.images)
    if outlines:
        notes.append(f"{title} has no areas: of {_count_of(outlines, 'object')} the box counts, not the outline")
    if data.category_ids != tuple(range(1, len(data.classes) + 1)):
        notes.append(f"{title} has no ids of classes: those of the original are lost")
    return notes


def lost_class_list(title: str, data: AnnotatedData) -> list[str]:
    """Sentences about what a list of classes would hold, for formats that have none."""
    notes = []
    used = {int(label) for image in data.images for label in image.labels}
    unused = [name for label, name in enumerate(data.classes) if label not in used]
    if unused:
        notes.append(f"{title} has no list of classes: those without boxes are lost ({', '.join(unused)})")
    if list(data.classes) != sorted(data.classes):
        notes.append(f"{title} has no list of classes: their order is lost, most tools sort the names")
    return notes


def lost_flags(title: str, data: AnnotatedData) -> list[str]:
    """A sentence about difficult objects, for formats that have no flag for them."""
    difficult = sum(int(image.difficult.sum()) for image in data.images)
    if not difficult:
        return []
    become = "1 box becomes an ordinary one" if difficult == 1 else f"{difficult} boxes become ordinary ones"
    return [f"{title} has no flag for difficult objects: {become}"]


def _check_writable(data: AnnotatedData) -> None:
    for name in data.splits:
        if name != NO_SPLIT and name not in SPLITS:
            allowed = ", ".join(dict.fromkeys(SPLITS.values()))
            raise DataError(f"{data.root}: tools know no split called {name!r}; name it one of {allowed}")
    if data.splits.get(NO_SPLIT) and len(data.splits) > 1:
        raise DataError(
            f"{data.root}: {data.splits[NO_SPLIT][0].path.name} and perhaps more are in no split, others are; "
            'put each into one, or make new ones with "fasterrcnn data split"'
        )
    for image in data.images:
        not_finite = np.flatnonzero(~np.isfinite(image.boxes).all(axis=1))
        if len(not_finite):
            finding = data.box_finding("not-finite", image, int(not_finite[0]), "is not finite")
            raise DataError(f'{finding}; nothing was written, "fasterrcnn data check --fix" leaves such boxes out')


def _without_trainval(splits: dict[str, list[AnnotatedImage]]) -> dict[str, list[AnnotatedImage]]:
    """The splits, but no "trainval" of images of train and val: where splits are folders, it would be copies."""
    in_train_or_val = {id(image) for name in ("train", "val") for image in splits.get(name, ())}
    is_copy = all(id(image) in in_train_or_val for image in splits.get("trainval", ()))
    return {name: images for name, images in splits.items() if name != "trainval" or not is_copy}


def _file_names(images: Sequence[AnnotatedImage]) -> list[str]:
    """A portable file name for each image; no two have the same stem, after which YOLO and VOC name annotations."""
    names: list[str] = []
    taken: set[str] = set()
    for image in images:
        path = Path(_NOT_IN_NAMES.sub("_", image.path.name))
        stem, suffix = path.stem.strip(" ."), path.suffix
        if suffix.lower() not in EXTENSIONS:
            stem, suffix = path.name.strip(" ."), ".jpg"  # tools find images by it, and decoders ignore it
        stem = stem or "image"
        free, number = stem, 1
        while free.casefold() in taken:
            number += 1
            free = f"{stem}-{number}"
        taken.add(free.casefold())
        names.append(free + suffix)
    return names


def _copy_images(images: NamedImages, folder: Path) -> list[str]:
    """Copy the images into a folder; a sentence if any of them gets another name."""
    folder.mkdir(parents=True)
    for name, image in images.items():
        try:
            shutil.copyfile(image.path, folder / name)
        except FileNotFoundError:
            raise DataError(f"{image.path}: no such file; nothing was written") from None
    renamed = [(image.path.name, name) for name, image in images.items() if image.path.name != name]
    if not renamed:
        return []
    old, new = renamed[0]
    return [f"{_count_of(len(renamed), 'image')} in {folder.name}/ got another name, as {old!r}, which is now {new!r}"]


def _note_copies(splits: Mapping[str, Sequence[AnnotatedImage]]) -> list[str]:
    """A sentence if there are images in several splits."""
    counts = Counter(id(image) for images in splits.values() for image in images)
    several = sum(count > 1 for count in counts.values())
    return [f"{_count_of(several, 'image')} in several splits: a copy is in each"] if several else []


def _count_of(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _count_outlines(image: AnnotatedImage) -> int:
    """How many objects have another area than their boxes."""
    if image.areas is None:
        return 0
    sides = image.boxes[:, 2:] - image.boxes[:, :2]
    return int((~np.isclose(sides.prod(axis=1), image.areas, rtol=0.01, atol=0.01)).sum())
