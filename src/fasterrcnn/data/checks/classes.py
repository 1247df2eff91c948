"""Checks of classes and splits. Needs no torch."""

import re
import unicodedata
from collections import Counter
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from fasterrcnn.data.annotations import AnnotatedData
from fasterrcnn.data.findings import Finding, count_of, unseen_difference
from fasterrcnn.data.formats import data_format_of

IMBALANCE = 20
"""From this ratio between the most and the least frequent class on, the rare one needs help."""

_TYPO_RATIO, _SHORT_TYPO_RATIO = 5, 20  # how much rarer a misspelt name is than the right one
_MIN_IMAGES = 10  # fewer show no typical number of objects
_COMMON = 0.8  # share of the images that show a class
_CHANCE = 0.02  # images without a class are suspicious where fewer than this share of them is expected


def check_classes(data: AnnotatedData) -> list[Finding]:
    """All findings about classes, and about their distribution over the splits."""
    counts = Counter(label for image in data.images for label in image.labels.tolist())
    unused = [name for label, name in enumerate(data.classes) if counts and not counts[label]]
    return [
        *(Finding("unused-class", data.root, f"class {name!r} has no box") for name in unused),
        *_check_names(data, counts),
        *_check_splits(data, counts),
        *_check_balance(data, counts),
        *_check_missing(data),
    ]


def check_for_boxes(data: AnnotatedData) -> list[Finding]:
    """A finding if no image of a data set has a box, which is so where labels lie in the wrong place.

    Data made in memory may well be images alone.
    """
    if data_format_of(data) is None or any(len(image.boxes) for image in data.images):
        return []
    first = next((f"; for example {f}" for f in data.findings if f.severity != "note"), "")
    state = f"none of {count_of(len(data.images), 'image')} has a box" if data.images else "no image can be used"
    what = f"no labels were found: {state} ({data.format}){first}"
    return [Finding("no-boxes", data.root, what)]


def _check_names(data: AnnotatedData, counts: Counter[int]) -> list[Finding]:
    plain = [_plain(name) for name in data.classes]
    findings = []
    for first, second in combinations(range(len(plain)), 2):
        rare, common = sorted((first, second), key=lambda label: counts[label])
        same = plain[rare] == plain[common] and len(plain[rare]) > 1  # "a" and "A" may be two letters to read
        if same or is_typo(data.classes[rare], data.classes[common], counts[rare], counts[common]):
            names = f"{data.classes[rare]!r} ({counts[rare]} boxes) and {data.classes[common]!r} ({counts[common]})"
            unseen = unseen_difference(data.classes[rare], data.classes[common])
            words = f"classes {names} have nearly the same name{f': {unseen}' if unseen else ''}"
            findings.append(_at_first_box(data, rare, "similar-names", words))
    return findings


def _plain(name: str) -> str:
    """A name without capitals and word separators; those between digits stay, as a decimal point or a minus."""
    composed = unicodedata.normalize("NFC", name.casefold())
    return re.sub(r"(?<=[^\W\d_])[\s_.-]+|[\s_.-]+(?=[^\W\d_])", "", composed)


def is_typo(rare: str, common: str, rare_count: int, common_count: int) -> bool:
    """Whether the name of a class is probably a typing error: one letter differs, and it is far rarer.

    Other words differ in one letter too if they are short ("cat", "car"), so words of three or four letters must be
    rarer still. Names that differ in a digit or in a last word of one letter ("sign1", "sign2", "type a", "type b") are
    different classes. A class without a box is no typing error.
    """
    if not 0 < _TYPO_RATIO * rare_count <= common_count or _unnumbered(rare) == _unnumbered(common):
        return False
    rare, common = _plain(rare), _plain(common)
    if min(len(rare), len(common)) < 3 or not _differ_by_one(rare, common):
        return False
    replaced = len(rare) == len(common) and sorted(rare) != sorted(common)
    return not replaced or len(rare) > 4 or _SHORT_TYPO_RATIO * rare_count <= common_count


def _unnumbered(name: str) -> str:
    """A name without digits and without letters that stand alone, as in "type b" or "typeB"."""
    words = re.findall(r"[^\W\d_]+", re.sub(r"(?<=[^\W\d_A-Z])(?=[A-Z])", " ", name))
    return "".join(word for word in words if len(word) > 1).casefold()


def _differ_by_one(a: str, b: str) -> bool:
    """Whether one letter was added, left out, exchanged for another or with its neighbour, of two texts that differ."""
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    a, b = a[start:], b[start:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or (a[:2] == b[1::-1] and a[2:] == b[2:])


def _at_first_box(data: AnnotatedData, label: int, kind: str, what: str) -> Finding:
    """A finding about a class, at the first of its boxes."""
    for image in data.images:
        indices = np.flatnonzero(image.labels == label)
        if len(indices):
            text = f"{what}; for example {data.describe_box(image, int(indices[0]))}"
            number = None if image.numbers is None else int(image.numbers[indices[0]])
            return Finding(kind, image.annotation_file, text, number, image.path)
    return Finding(kind, data.root, what)


def _check_splits(data: AnnotatedData, counts: Counter[int]) -> list[Finding]:
    findings = []
    for split, images in data.splits.items():
        own = {label for image in images for label in image.labels.tolist()}
        for label in sorted(counts.keys() - own) if images else ():
            what = f"class {data.classes[label]!r} has no box in the split {split!r}"
            findings.append(Finding("class-not-in-split", data.root, what))
    return findings


def _check_balance(data: AnnotatedData, counts: Counter[int]) -> list[Finding]:
    findings = []
    common, largest = counts.most_common(1)[0] if counts else (0, 0)
    for label, count in counts.most_common():
        if largest >= IMBALANCE * count:
            rare = f"{count} of {data.classes[label]!r}: {largest // count} to 1"
            findings.append(Finding("imbalance", data.root, f"{largest} boxes of {data.classes[common]!r}, {rare}"))
    return findings


def _check_missing(data: AnnotatedData) -> list[Finding]:
    """Images with boxes, but none of a class of which nearly all others show several."""
    labelled = [image for image in data.images if len(image.labels)]
    if len(labelled) < _MIN_IMAGES:
        return []
    owners = np.repeat(np.arange(len(labelled)), [len(image.labels) for image in labelled])
    labels = np.concatenate([image.labels for image in labelled])
    _, shown_in = np.unique(np.unique(np.stack([labels, owners]), axis=1)[0], return_counts=True)
    common = np.unique(labels)[shown_in >= _COMMON * len(labelled)]
    findings = []
    for label in common.tolist():
        counts = np.bincount(owners[labels == label], minlength=len(labelled))
        present, absent = counts[counts > 0], np.flatnonzero(counts == 0)
        if expect_empty(present) * len(labelled) > _CHANCE * len(absent):
            continue
        name, typical = data.classes[label], np.median(present)
        words = f"no {name!r}, though {len(present)} of {len(labelled)} images show about {typical:g}"
        for image in (labelled[index] for index in absent.tolist()):
            findings.append(Finding("missing-objects", image.annotation_file, words, image=image.path))
    return findings


def expect_empty(counts: NDArray[np.int64]) -> float:
    """Chance that an image shows none of a class, given the numbers of objects in images that show some; 1 for none.

    The binomial, Poisson or negative binomial distribution with the mean and variance of the counts.
    """
    mean = float(counts.mean()) if len(counts) else 0.0
    if mean < 2:
        return 1.0  # with so few objects, an image without any proves nothing
    # A few images estimate the variance badly, so one with the variance of a Poisson distribution is added.
    ratio = float(((counts - mean) ** 2).sum() / mean + 1) / (len(counts) + 1)
    return float(np.exp(-mean)) if abs(ratio - 1) < 1e-6 else float(ratio ** (mean / (1 - ratio)))
