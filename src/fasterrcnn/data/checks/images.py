"""Checks that open the images: can they be decoded, are they what the annotations say, are they there twice?

Needs no torch.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from threading import Lock

import numpy as np

from fasterrcnn.data.annotations import SPLITS, AnnotatedData, AnnotatedImage
from fasterrcnn.data.checks.boxes import OVER_BORDER
from fasterrcnn.data.duplicates import Fingerprint, find_identical, find_similar, take_fingerprint
from fasterrcnn.data.findings import Finding, unreadable_image
from fasterrcnn.data.formats import dicts
from fasterrcnn.data.images import image_files, read_image, read_size_hw
from fasterrcnn.errors import ImageError

Track = Callable[[Iterable[AnnotatedImage], int], Iterable[AnnotatedImage]]

_WORKERS = 4
_AHEAD = 32  # images decoded before they are asked for
_DETAIL = 4.0  # bend in grey levels of a thumbnail below which there is none
_LARGE = 20_000_000  # pixels from which on only one image at a time is decoded, to spare memory


@dataclass(frozen=True)
class Seen:
    """What the images themselves say.

    Attributes:
        findings: what is wrong with them.
        sizes_hw: true height and width of every image that could be opened.
    """

    findings: list[Finding] = field(default_factory=list)
    sizes_hw: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def framed(self, data: AnnotatedData) -> AnnotatedData:
        """The data with the sizes that its boxes belong to."""

        def frame(record: AnnotatedImage) -> AnnotatedImage:
            true_hw = self.sizes_hw.get(record.path, record.size_hw)
            return record if true_hw == record.size_hw else replace(record, size_hw=frame_hw(record, true_hw))

        return data.map(frame)


def frame_hw(record: AnnotatedImage, true_hw: tuple[int, int]) -> tuple[int, int]:
    """The size that the boxes of an image belong to: its own, or the one that the annotations say.

    Where both have the same shape, the image may have been resized after it was annotated: the boxes then belong to
    the smaller of the two sizes in which they all lie.
    """
    if not same_shape(record.size_hw, true_hw):
        return true_hw
    smaller, larger = sorted((record.size_hw, true_hw))
    return smaller if lie_within(record, smaller) else larger


def same_shape(first_hw: tuple[int, int], second_hw: tuple[int, int]) -> bool:
    """Whether one size is the other, enlarged or made smaller."""
    return abs(first_hw[0] * second_hw[1] / (first_hw[1] * second_hw[0]) - 1) < 0.02


def lie_within(record: AnnotatedImage, size_hw: tuple[int, int]) -> bool:
    """Whether no box reaches over the border of an image of that size."""
    height, width = size_hw
    boxes = record.boxes[np.isfinite(record.boxes).all(axis=1)]
    return bool((boxes <= np.array([width, height] * 2) + OVER_BORDER).all())


def look_at_headers(records: Iterable[AnnotatedImage]) -> Seen:
    """What the first bytes of images tell: are they images, of the size that the annotations say?"""
    seen = Seen()
    for record in records:
        try:
            _note_size(record, read_size_hw(record.path), seen)
        except ImageError as error:
            seen.findings.append(unreadable_image(record.path, error))
    return seen


def look_at_images(data: AnnotatedData, track: Track) -> Seen:
    """Everything that can be learned by decoding every image once.

    Args:
        data: as read.
        track: wraps the records while they are gone through, for a progress bar.
    """
    seen = Seen()
    records: list[AnnotatedImage] = []
    prints: list[Fingerprint] = []
    for record, outcome in _decode(track(data.records, len(data.records))):
        if isinstance(outcome, ImageError):
            seen.findings.append(unreadable_image(record.path, outcome))
            continue
        size_hw, fingerprint = outcome
        _note_size(record, size_hw, seen)
        records.append(record)
        prints.append(fingerprint)
    seen.findings.extend(_check_copies(data, records, prints))
    return seen


def check_listing(data: AnnotatedData) -> list[Finding]:
    """Images that stand in two splits by name; "trainval" is meant to hold those of train and val."""
    findings = []
    for first, second in combinations((name for name in data.splits if name != "trainval"), 2):
        others = {record.path for record in data.splits[second]}
        findings += [
            Finding("leak", record.path, f"is in the splits {first!r} and {second!r}", image=record.path)
            for record in data.splits[first]
            if record.path in others
        ]
    return findings


def check_folders(data: AnnotatedData) -> list[Finding]:
    """Folders of splits that hold images, but of which no annotation file says anything."""
    if data.format == dicts.NAME:
        return []  # has no folder
    known = {record.path.parent for record in data.records} | {f.image.parent for f in data.findings if f.image}
    findings = []
    for folder in (*_folders(data.root), *_folders(data.root / "images")):
        word = re.match("[a-z]*", folder.name.lower())
        split = SPLITS.get(word[0]) if word else None
        if split is None or split in data.splits or any(folder in (place, *place.parents) for place in known):
            continue
        images = image_files(folder, deep=True)
        if images:
            # Images to test on are often given without.
            kind = "missing-annotations" if split.startswith("train") else "unlisted-image"
            findings.append(Finding(kind, folder, f"{len(images)} images that no annotation file lists"))
    return findings


def _folders(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if path.is_dir()) if place.is_dir() else []


def _decode(
    records: Iterable[AnnotatedImage],
) -> Iterator[tuple[AnnotatedImage, tuple[tuple[int, int], Fingerprint] | ImageError]]:
    """Size and fingerprint of each image, or why it has none; a few are decoded ahead in threads."""
    one_at_a_time = Lock()

    def look(path: Path) -> tuple[tuple[int, int], Fingerprint] | ImageError:
        try:
            height, width = read_size_hw(path)
            with one_at_a_time if height * width > _LARGE else nullcontext():
                return (height, width), take_fingerprint(read_image(path))
        except ImageError as error:
            return error
        except MemoryError:
            return ImageError(f"{path}: there is not enough memory for it")

    with ThreadPoolExecutor(_WORKERS) as pool:
        waiting = []
        for record in records:
            waiting.append((record, pool.submit(look, record.path)))
            if len(waiting) >= _AHEAD:
                done, future = waiting.pop(0)
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()


def _note_size(record: AnnotatedImage, size_hw: tuple[int, int], seen: Seen) -> None:
    seen.sizes_hw[record.path] = size_hw
    if size_hw == record.size_hw:
        return
    (said_height, said_width), (height, width) = record.size_hw, size_hw
    turned = "; width and height are exchanged, or the image was turned" if size_hw == record.size_hw[::-1] else ""
    what = (
        f"says {said_width} x {said_height} for {record.path.name}, "
        f"the image has {width} x {height} (width x height){turned}"
    )
    seen.findings.append(Finding("size-mismatch", record.source or record.path, what, image=record.path))


def _check_copies(
    data: AnnotatedData, records: Sequence[AnnotatedImage], prints: Sequence[Fingerprint]
) -> list[Finding]:
    splits = {id(record): name for name, members in data.splits.items() if name != "trainval" for record in members}
    # Empty images of one colour or a gradient are alike without being copies.
    plain = {i for i, record in enumerate(records) if not len(record.boxes) and _is_plain(prints[i])}
    findings = []
    for group in find_identical(prints):
        if all(i in plain for i in group):
            continue
        first, *others = (records[i] for i in group)
        for other in others:
            words = f"the same image as {first.path.name}{'' if _same_boxes(first, other) else ', with other boxes'}"
            if first.path != other.path:
                findings.append(_copy(first, other, splits, words))
            elif splits.get(id(first)) == splits.get(id(other)):
                findings.append(_copy(first, other, splits, "is listed twice"))
    for i, j in find_similar(prints):
        if splits.get(id(records[i])) != splits.get(id(records[j])) and plain.isdisjoint((i, j)):
            findings.append(_copy(records[i], records[j], splits, f"nearly the same image as {records[i].path.name}"))
    return findings


def _is_plain(fingerprint: Fingerprint) -> bool:
    return all(bool((np.abs(np.diff(fingerprint.thumbnail, 2, axis)) < _DETAIL).all()) for axis in (0, 1))


def _copy(first: AnnotatedImage, other: AnnotatedImage, splits: dict[int, str], words: str) -> Finding:
    here, there = splits.get(id(other), "trainval"), splits.get(id(first), "trainval")
    if here == there:
        return Finding("same-image", other.path, words, image=other.path)
    return Finding("leak", other.path, f"in {here!r}: {words} in {there!r}", image=other.path)


def _same_boxes(first: AnnotatedImage, other: AnnotatedImage) -> bool:
    return np.array_equal(first.labels, other.labels) and np.array_equal(first.boxes, other.boxes)
