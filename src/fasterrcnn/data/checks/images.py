"""Checks that open the images: are they readable, of the stated size, and not duplicates of each other?

Needs no torch.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np

from fasterrcnn.data.annotations import SPLITS, AnnotatedData, AnnotatedImage
from fasterrcnn.data.checks.boxes import OVER_BORDER
from fasterrcnn.data.duplicates import (
    Fingerprint,
    differ_clearly,
    find_identical,
    find_similar,
    original_name,
    take_fingerprint,
)
from fasterrcnn.data.findings import Finding, count_of, size_mismatch, unreadable_image
from fasterrcnn.data.formats import IN_MEMORY
from fasterrcnn.data.pixel_range import check_pixel_values
from fasterrcnn.errors import ImageError
from fasterrcnn.files import subfolders
from fasterrcnn.images import ImageHeader, count_frames, image_files, other_files, read_header, read_stretched
from fasterrcnn.pixel_values import ValueFacts

TrackProgress = Callable[[Iterable[AnnotatedImage], int], Iterable[AnnotatedImage]]

_WORKERS = 4
_TEXTS = frozenset((".txt", ".xml", ".json", ".csv", ".tsv", ".yaml", ".yml", ".md", ".html", ".names", ".data", ""))
"""Extensions of annotations and of descriptions, which often lie beside images."""

_AHEAD = 32  # images decoded in advance
_DETAIL = 4.0  # second difference in grey levels of a thumbnail; smaller ones are no detail
_LARGE = 20_000_000  # pixels; larger images are decoded one at a time, to save memory


@dataclass(frozen=True)
class ImageFacts:
    """What reading the image files has shown."""

    findings: list[Finding] = field(default_factory=list)
    sizes_hw: dict[Path, tuple[int, int]] = field(default_factory=dict)  # true ones of images that could be opened

    def note_size(self, image: AnnotatedImage, header: ImageHeader) -> None:
        """Keep the true size of an image; one that differs from the stated size is a finding.

        Boxes of the stored, unrotated image are checked in that: its size counts as true.
        """
        self.sizes_hw[image.path] = image.size_hw if is_of_stored_image(image, header) else header.size_hw
        if header.size_hw != image.size_hw:
            sizes_hw = (image.size_hw, header.size_hw)
            self.findings.append(size_mismatch(image.path, image.annotation_file, *sizes_hw, header.orientation))

    def framed(self, data: AnnotatedData) -> AnnotatedData:
        """The data with the size of each image that its boxes belong to."""

        def frame(image: AnnotatedImage) -> AnnotatedImage:
            true_hw = self.sizes_hw.get(image.path, image.size_hw)
            return image if true_hw == image.size_hw else replace(image, size_hw=frame_hw(image, true_hw))

        return data.map(frame)


def is_of_stored_image(image: AnnotatedImage, header: ImageHeader) -> bool:
    """Whether size and boxes are probably those of the image as it is stored, before EXIF turns it upright.

    Only the stated size shows it, so the image cannot be square.
    """
    is_stored_size = image.size_hw == header.stored_hw != header.size_hw
    return is_stored_size and lie_within(image, image.size_hw)


def frame_hw(image: AnnotatedImage, true_hw: tuple[int, int]) -> tuple[int, int]:
    """The size that the boxes of an image belong to: that of the file, or that in the annotations.

    If both have the same aspect ratio, the image may have been resized after it was annotated: the boxes then belong
    to the smaller of the two sizes in which they all lie.
    """
    if not same_aspect_ratio(image.size_hw, true_hw):
        return true_hw
    smaller, larger = sorted((image.size_hw, true_hw))
    return smaller if lie_within(image, smaller) else larger


def same_aspect_ratio(first_hw: tuple[int, int], second_hw: tuple[int, int]) -> bool:
    """Whether one size is the other one scaled."""
    return abs(first_hw[0] * second_hw[1] / (first_hw[1] * second_hw[0]) - 1) < 0.02


def lie_within(image: AnnotatedImage, size_hw: tuple[int, int]) -> bool:
    """Whether no box reaches over the border of an image of that size."""
    height, width = size_hw
    boxes = image.boxes[np.isfinite(image.boxes).all(axis=1)]
    return bool((boxes <= np.array([width, height] * 2) + OVER_BORDER).all())


def read_headers(images: Iterable[AnnotatedImage]) -> ImageFacts:
    """Check the headers of images: whether they are images, and of the stated size."""
    facts = ImageFacts()
    for image in images:
        try:
            facts.note_size(image, read_header(image.path))
        except ImageError as error:
            facts.findings.append(unreadable_image(image.path, error))
    return facts


def decode_images(data: AnnotatedData, track: TrackProgress) -> ImageFacts:
    """Decode every image once, to find damaged ones, other sizes than stated, and duplicates."""
    facts = ImageFacts()
    images: list[AnnotatedImage] = []
    prints: list[Fingerprint] = []
    values: dict[Path, ValueFacts] = {}
    frames: dict[Path, int] = {}
    for image, outcome in _decode(track(data.images, len(data.images))):
        if isinstance(outcome, ImageError):
            facts.findings.append(unreadable_image(image.path, outcome))
            continue
        facts.note_size(image, outcome.header)
        images.append(image)
        prints.append(outcome.fingerprint)
        if outcome.values is not None:
            values[image.path] = outcome.values
        if outcome.frames > 1:
            frames[image.path] = outcome.frames
    facts.findings.extend([*check_pixel_values(values), *_check_frames(frames)])
    facts.findings.extend(_check_duplicates(data, images, prints))
    return facts


def check_listing(data: AnnotatedData) -> list[Finding]:
    """Files, and versions of one image, that are in two splits; "trainval" may hold those of train and val."""
    findings = []
    for first, second in combinations((name for name in data.splits if name != "trainval"), 2):
        paths = {image.path for image in data.splits[first]}
        originals = {name: path for path in sorted(paths, reverse=True) if (name := original_name(path))}
        for path in dict.fromkeys(image.path for image in data.splits[second]):
            original = originals.get(original_name(path) or "")
            if path in paths:
                findings.append(Finding("leak", path, f"is in the splits {first!r} and {second!r}", image=path))
            elif original is not None:
                words = f"in {second!r}: another version of the image of {original.name} in {first!r}"
                findings.append(Finding("leak", path, words, image=path))
    return findings


def check_folders(data: AnnotatedData) -> list[Finding]:
    """Folders of splits with images that no annotation file mentions."""
    if data.format == IN_MEMORY:
        return []
    listed = {image.path.parent for image in data.images} | {f.image.parent for f in data.findings if f.image}
    findings = []
    for folder in (*subfolders(data.root), *subfolders(data.root / "images")):
        word = re.match("[a-z]*", folder.name.lower())
        split = SPLITS.get(word[0]) if word else None
        if split is None or split in data.splits or any(folder in (place, *place.parents) for place in listed):
            continue
        images = image_files(folder, deep=True)
        if images:
            # Test images are often published without annotations.
            kind = "missing-annotations" if split.startswith("train") else "unlisted-image"
            findings.append(Finding(kind, folder, f"{count_of(len(images), 'image')} that no annotation file lists"))
    return findings


class _Decoded(NamedTuple):
    header: ImageHeader
    fingerprint: Fingerprint
    values: ValueFacts | None  # of more than 8 bits
    frames: int


def check_other_files(data: AnnotatedData) -> list[Finding]:
    """Files beside the images that are neither images by their names nor texts, such as drawings."""
    folders = sorted({image.path.parent for image in data.images}) if data.format != IN_MEMORY else []
    others = {folder: other_files(folder, _TEXTS) for folder in folders if folder.is_dir()}
    return [
        Finding("other-files", folder, f"not images by their names: {names}")
        for folder, names in others.items()
        if names
    ]


def _check_frames(frames: Mapping[Path, int]) -> list[Finding]:
    """At most one finding for a whole data set: files of which only the first page or frame is read."""
    if not frames:
        return []
    path, count = next(iter(frames.items()))
    more = f", and {len(frames) - 1} other files have several" if len(frames) > 1 else ""
    return [Finding("several-frames", path, f"has {count} pages or frames{more}", image=path)]


def _decode(images: Iterable[AnnotatedImage]) -> Iterator[tuple[AnnotatedImage, _Decoded | ImageError]]:
    """What is read of each image, or the error; threads decode a few in advance."""
    one_at_a_time = Lock()

    def decode(path: Path) -> _Decoded | ImageError:
        try:
            header = read_header(path)
            height, width = header.size_hw
            with one_at_a_time if height * width > _LARGE else nullcontext():
                pil_image, values = read_stretched(path)
                return _Decoded(header, take_fingerprint(pil_image), values, count_frames(path))
        except ImageError as error:
            return error
        except MemoryError:
            return ImageError(f"{path}: there is not enough memory for it")

    with ThreadPoolExecutor(_WORKERS) as pool:
        waiting = []
        for image in images:
            waiting.append((image, pool.submit(decode, image.path)))
            if len(waiting) >= _AHEAD:
                done, future = waiting.pop(0)
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()


def _check_duplicates(
    data: AnnotatedData, images: Sequence[AnnotatedImage], prints: Sequence[Fingerprint]
) -> list[Finding]:
    names = {id(image): name for name, members in data.splits.items() if name != "trainval" for image in members}
    splits = [names.get(id(image), "trainval") for image in images]
    # Images without boxes and of one colour, or with a gradient, are similar without being duplicates.
    plain = {i for i, image in enumerate(images) if not len(image.boxes) and _is_plain(prints[i])}
    findings = []

    def add(first: int, other: int, words: str) -> None:
        path = images[other].path
        if splits[first] == splits[other]:
            findings.append(Finding("same-image", path, words, image=path))
        else:
            words = f"in {splits[other]!r}: {words} in {splits[first]!r}"
            findings.append(Finding("leak", path, words, image=path))

    for first, *others in find_identical(prints):
        for other in others if not plain.issuperset((first, *others)) else ():
            image, copy = images[first], images[other]
            same_boxes = np.array_equal(image.labels, copy.labels) and np.array_equal(image.boxes, copy.boxes)
            if image.path != copy.path:
                add(first, other, f"the same image as {image.path.name}{'' if same_boxes else ', with other boxes'}")
            elif splits[first] == splits[other]:
                add(first, other, "is listed twice")
    for first, other in find_similar(prints):
        alike = plain.isdisjoint((first, other)) and not differ_clearly(images[first], images[other])
        if splits[first] != splits[other] and alike:
            add(first, other, f"nearly the same image as {images[first].path.name}")
    return findings


def _is_plain(fingerprint: Fingerprint) -> bool:
    return all(bool((np.abs(np.diff(fingerprint.thumbnail, 2, axis)) < _DETAIL).all()) for axis in (0, 1))
