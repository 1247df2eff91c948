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
from fasterrcnn.data.duplicates import (
    Fingerprint,
    connected_groups,
    differ_clearly,
    find_identical,
    find_similar,
    original_name,
    take_fingerprint,
)
from fasterrcnn.errors import ImageError, UsageError
from fasterrcnn.images import read_stretched

_TOLERANCE = 1e-6
_MAX_THREADS = 4
_DEFAULTS = {"train": 0.7, "val": 0.15, "test": 0.15}


@dataclass(frozen=True)
class NewSplits:
    """A data set that was split anew."""

    data: AnnotatedData
    kept_together: int  # images that had to stay with others, as duplicates or because of their names
    left_out: int = 0  # images that belong to others of a split that stays as it was


def complete_fractions(given: Mapping[str, float | None], keep: Sequence[str] = ()) -> dict[str, float]:
    """The shares of train, val and test; those that are None divide the rest in the ratio of 0.7, 0.15 and 0.15.

    Splits without a share are left out, and those that stay as they are.

    Raises:
        UsageError: a split that stays as it is has a share.
    """
    fractions = {name: share for name, share in given.items() if share is not None}
    twice = [name for name in keep if fractions.get(name)]
    if twice:
        raise UsageError(f"the split {twice[0]!r} stays as it is (--keep), so it can have no share (--{twice[0]})")
    rest = 1 - sum(fractions.values())
    unstated = {name: share for name, share in _DEFAULTS.items() if name not in (*fractions, *keep)}
    if rest > _TOLERANCE:
        fractions |= {name: share * rest / sum(unstated.values()) for name, share in unstated.items()}
    return {name: fractions[name] for name in dict.fromkeys([*_DEFAULTS, *fractions]) if fractions.get(name)}


def split_data(
    data: AnnotatedData,
    fractions: Mapping[str, float],
    *,
    keep: Sequence[str] = (),
    seed: int = 0,
    pattern: str | None = None,
    progress: bool = False,
) -> NewSplits:
    """Distribute the images of a data set anew.

    Identical and nearly identical images land in one split, and versions of one image that Roboflow made. Each class,
    and the images without boxes, are distributed by the fractions, the rarest first (Sechidis, Tsoumakas, Vlahavas: On
    the Stratification of Multi-Label Data, 2011, section 3.2, here over groups of images). The result depends on the
    seed and the images, not on their order. Image ids that are not unique are numbered anew.

    Args:
        data: its own splits are ignored, but those to keep.
        fractions: share of the images of each split; they sum to 1. Every split gets an image at least.
        keep: splits that stay as they are, such as an official test split. The fractions are those of the other images,
            and of these, duplicates of images that stay are left out.
        pattern: regular expression; images stay together if their file names are equal in what its first group
            matches, or all of it: ``(patient\\d+)_``.

    Raises:
        UsageError: fractions that cannot work, more splits than groups of images, no such split to keep, or a pattern
            that is invalid or matches no file name.
    """
    _check(fractions)
    kept = {name: {image.content for image in data.split(name)} for name in keep}
    listed = sorted(data.images, key=lambda image: (image.path.as_posix(), image.image_id))
    images = list({image.content: image for image in listed}.values())
    groups = connected_groups(len(images), _links(images, data.root, pattern, progress))
    stays = [any(image.content in contents for contents in kept.values()) for image in images]
    free = [group for group in groups if not any(stays[index] for index in group)]
    if len(fractions) > len(free):
        raise UsageError(
            f"{data.root}: {len(fractions)} splits need as many images that are not bound to each other; "
            f"there are {len(free)}"
        )
    # Which classes each image shows; the last stands for images without boxes.
    classes = range(len(data.classes))
    present = np.array([[*np.isin(classes, image.labels), not len(image.labels)] for image in images])
    counts = np.stack([present[group].sum(axis=0) for group in free])
    sizes = np.array([len(group) for group in free])
    chosen = _distribute(counts, sizes, np.array(list(fractions.values())), np.random.default_rng(seed))
    members = {name: [i for i, image in enumerate(images) if image.content in kept[name]] for name in keep}
    for split, name in enumerate(fractions):
        members[name] = sorted(i for group, own in zip(free, chosen, strict=True) if own == split for i in group)
    unique = len({image.image_id for image in images}) == len(images)
    final = (
        images if unique else [replace(image, image_id=n, original_id=None) for n, image in enumerate(images, start=1)]
    )
    order = dict.fromkeys(name for name in (*_DEFAULTS, *fractions, *keep) if name in members)
    splits = {name: [final[i] for i in members[name]] for name in order}
    left_out = len(images) - sum(stays) - sum(map(len, free))
    return NewSplits(replace(data, splits=splits), sum(len(group) for group in free if len(group) > 1), left_out)


def _links(images: Sequence[AnnotatedImage], root: Path, pattern: str | None, progress: bool) -> list[Sequence[int]]:
    """Groups of indices of images that stay together."""
    names = [_captured(image.path.name, pattern) for image in images]
    if pattern is not None and not any(names):
        shown = f"; the first is {images[0].path.name}" if images else ""
        raise UsageError(f"the pattern {pattern!r} matches no file name in {root}{shown}")
    rows = range(len(images))
    same_name = group_by((i for i in rows if names[i] is not None), lambda index: names[index])
    same_path = group_by(rows, lambda index: images[index].path)
    same_original = group_by(rows, lambda index: original_name(images[index].path))
    same_original.pop(None, None)
    return [*same_name.values(), *same_path.values(), *same_original.values(), *_duplicates(images, progress)]


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
    own = [images[index] for index, _ in readable]
    similar = [pair for pair in find_similar(prints) if not differ_clearly(own[pair[0]], own[pair[1]])]
    return [[readable[i][0] for i in group] for group in (*find_identical(prints), *similar)]


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
