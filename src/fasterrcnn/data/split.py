"""New splits for a data set: each class with its share in every split, and duplicate images never in two splits."""

import math
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage, group_by
from fasterrcnn.data.duplicates import Fingerprint, connected_groups, find_identical, find_similar, take_fingerprint
from fasterrcnn.errors import ImageError, UsageError
from fasterrcnn.images import read_stretched

_TOLERANCE = 1e-6
_MAX_THREADS = 4


@dataclass(frozen=True)
class NewSplits:
    """A data set that was split anew; how many images had to stay together, as duplicates or because of their names."""

    data: AnnotatedData
    kept_together: int


def split_data(
    data: AnnotatedData,
    fractions: Mapping[str, float],
    *,
    seed: int = 0,
    pattern: str | None = None,
    progress: bool = False,
) -> NewSplits:
    """Distribute all images of a data set anew.

    Identical and nearly identical images land in one split. Each class, and the images without boxes, are distributed
    by the fractions, the rarest first (Sechidis, Tsoumakas, Vlahavas: On the Stratification of Multi-Label Data, 2011,
    section 3.2, here over groups of images). The result depends on the seed and the images, not on their order.
    Image ids that are not unique are numbered anew.

    Args:
        data: its own splits are ignored.
        fractions: share of the images of each split; they sum to 1. Every split gets an image at least.
        pattern: regular expression; images stay together if their file names are equal in what its first group
            matches, or all of it: ``(patient\\d+)_``.

    Raises:
        UsageError: fractions that cannot work, more splits than groups of images, or a pattern that is invalid or
            matches no file name.
    """
    _check(fractions)
    listed = sorted(data.images, key=lambda image: (image.path.as_posix(), image.image_id))
    images = list({image.content: image for image in listed}.values())
    names = [_captured(image.path.name, pattern) for image in images]
    if pattern is not None and not any(names):
        shown = f"; the first is {images[0].path.name}" if images else ""
        raise UsageError(f"the pattern {pattern!r} matches no file name in {data.root}{shown}")
    named = [index for index, name in enumerate(names) if name is not None]
    same_name = group_by(named, lambda index: names[index]).values()
    same_path = group_by(range(len(images)), lambda index: images[index].path).values()
    links = [*same_name, *same_path, *_duplicates(images, progress)]
    groups = connected_groups(len(images), links)
    if len(fractions) > len(groups):
        raise UsageError(
            f"{data.root}: {len(fractions)} splits need as many images that are not bound to each other; "
            f"there are {len(groups)}"
        )
    # Which classes each image shows; the last stands for images without boxes.
    classes = range(len(data.classes))
    present = np.array([[*np.isin(classes, image.labels), not len(image.labels)] for image in images])
    counts = np.stack([present[group].sum(axis=0) for group in groups])
    sizes = np.array([len(group) for group in groups])
    chosen = _distribute(counts, sizes, np.array(list(fractions.values())), np.random.default_rng(seed))
    unique = len({image.image_id for image in images}) == len(images)
    final = images if unique else [replace(image, image_id=n) for n, image in enumerate(images, start=1)]
    splits = {}
    for split, name in enumerate(fractions):
        members = sorted(i for group, own in zip(groups, chosen, strict=True) if own == split for i in group)
        splits[name] = [final[i] for i in members]
    return NewSplits(replace(data, splits=splits), sum(len(group) for group in groups if len(group) > 1))


def _check(fractions: Mapping[str, float]) -> None:
    shown = ", ".join(f"{name}={value:g}" for name, value in fractions.items()) or "none"
    if not all(math.isfinite(value) and value > 0 for value in fractions.values()):
        raise UsageError(f"the fractions of the splits must be above 0, not {shown}")
    if abs(sum(fractions.values()) - 1) > _TOLERANCE:
        raise UsageError(f"the fractions of the splits must sum to 1, not {sum(fractions.values()):g} ({shown})")


def _captured(name: str, pattern: str | None) -> str | None:
    """What the first group of the pattern matches in a file name, or all of it; None where nothing does."""
    if pattern is None:
        return None
    try:
        match = re.search(pattern, name)
    except re.error as error:
        raise UsageError(f"the pattern {pattern!r} is not a regular expression: {error}") from None
    return match and (match[1] if match.re.groups else match[0])


def _duplicates(images: Sequence[AnnotatedImage], progress: bool) -> list[list[int]]:
    """Groups of indices of images that show the same; those that cannot be read are in no group."""
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        fingerprints = pool.map(_fingerprint, [image.path for image in images])
        try:
            listed = list(track(fingerprints, "comparing images", len(images), disable=not progress))
        except BaseException:  # Ctrl-C does not wait for the remaining images
            pool.shutdown(cancel_futures=True)
            raise
    readable = [(index, fingerprint) for index, fingerprint in enumerate(listed) if fingerprint is not None]
    prints = [fingerprint for _, fingerprint in readable]
    return [[readable[i][0] for i in group] for group in (*find_identical(prints), *find_similar(prints))]


def _fingerprint(path: Path) -> Fingerprint | None:
    try:
        return take_fingerprint(read_stretched(path)[0])
    except ImageError:
        return None


def _distribute(
    counts: NDArray[np.int64], sizes: NDArray[np.int64], fractions: NDArray[np.float64], random: np.random.Generator
) -> NDArray[np.int64]:
    """(groups,) split of each group of images, given (groups, classes) images of it that show a class, and its size."""
    shuffled = random.permutation(len(sizes))
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]  # large groups while there is room for them
    wanted = fractions[:, None] * counts.sum(axis=0)
    room = fractions * sizes.sum()
    chosen = np.full(len(sizes), -1)
    while (left := chosen < 0).any():
        remaining = counts[left].sum(axis=0)
        rarest = int(np.argmin(np.where(remaining > 0, remaining, np.iinfo(np.int64).max)))
        for group in order[left[order] & (counts[order, rarest] > 0)]:
            # Rounded, so that equal needs stay equal whatever was subtracted before.
            needs = np.round(wanted[:, rarest], 6)
            candidates = np.flatnonzero(needs == needs.max())
            split = candidates[np.argmax(np.round(room[candidates], 6))]
            chosen[group] = split
            wanted[split] -= counts[group]
            room[split] -= sizes[group]
    for empty in sorted(set(range(len(fractions))) - set(chosen.tolist())):
        # It gets the smallest group of the largest split that can spare one.
        spare = np.bincount(chosen, minlength=len(fractions)) > 1
        images = np.bincount(chosen, weights=sizes, minlength=len(fractions))
        donor = np.argmax(np.where(spare, images, -1))
        chosen[order[chosen[order] == donor][-1]] = empty
    return chosen
