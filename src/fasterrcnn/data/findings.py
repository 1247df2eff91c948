"""What can be wrong with a data set: every kind of finding, its severity, and what to do about it.

Needs no torch.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from fasterrcnn.errors import DataError, ImageError

Severity = Literal["error", "warning", "note"]

FINDING_KINDS: dict[str, tuple[Severity, str]] = {
    # Files
    "unreadable-image": ("error", "replace the file, or take it out of the data set"),
    "missing-image": ("error", "put the image there, or name the folder of the images (--images)"),
    "ambiguous-image": ("error", "rename one of the images, or name the folder of the images (--images)"),
    "missing-annotations": ("error", "put the file there, or take the image out of the split"),
    "unreadable-annotations": ("error", "correct the file"),
    "unlisted-annotations": ("warning", "they take no part; name the file alone if it is the one that counts"),
    "unlabelled-image": ("warning", "it counts as an image without objects: right only if it shows none"),
    "unlisted-image": ("note", "it takes no part; annotate it if it should"),
    "other-files": ("note", "they take no part; save drawings and documents as PNG if they belong to the data set"),
    "empty-split": ("warning", "the split is left out"),
    "few-levels": (
        "warning",
        "training stretches them by the range of the data set; weights that keep no range need --pixel-range LOW HIGH",
    ),
    "several-frames": ("note", "only the first takes part; save the others as files of their own"),
    "size-mismatch": ("error", "the boxes may belong to another size of the image: correct the size, or the boxes"),
    # Identities
    "unknown-image": ("error", "add the image to the list of images, or correct its id"),
    "unknown-class": ("error", "add the class to the list of classes, or correct the annotation"),
    "colliding-id": ("error", "give each a number of its own"),
    # Boxes
    "not-finite": ("error", "draw the box again, or delete it"),
    "inverted-box": ("error", "exchange the corners, if it is not another box format"),
    "flat-box": ("error", "draw the box again, or delete it"),
    "point-box": ("warning", "probably a click while annotating: delete it; it is left out"),
    "outside-box": ("error", "draw the box again, or delete it"),
    "over-border": ("warning", "it is cut at the border"),
    "normalised-box": ("error", "pixels are expected: multiply by width and height"),
    "wrong-format": (
        "error",
        "convert the boxes; for a table or a list, state their format (box_format, --box-format)",
    ),
    "duplicate-box": ("warning", "delete one of them"),
    "contradiction": ("warning", "one box cannot be of two classes: delete the wrong one"),
    "whole-image": ("note", "right only if the object fills the image"),
    "tiny-box": (
        "warning",
        "train with a larger input (short_side), or cut the images into tiles; delete it if it is a slip",
    ),
    # The data set as a whole
    "no-boxes": ("error", "check where the labels lie, and whether this is their format (--format)"),
    "unused-class": ("warning", "the detector would have an output that never learns: take it out of the list"),
    "similar-names": ("warning", "if they mean the same, rename one"),
    "class-not-in-split": (
        "warning",
        'its quality cannot be learned or measured there: split anew ("fasterrcnn data split")',
    ),
    "imbalance": ("warning", "collect more of the rare class, or train on it more often"),
    "missing-objects": ("warning", "label them: what is visible and unlabelled teaches the detector to overlook it"),
    "same-image": ("warning", "keep one of them"),
    "leak": (
        "warning",
        'keep it in one split ("fasterrcnn data split"): results on images of the training mean nothing',
    ),
}
"""Kinds of findings: severity, and advice.

error: training on it would go wrong; warning: should be checked; note: is often intended.
"""


BOX_KINDS = frozenset(
    {
        *("not-finite", "inverted-box", "flat-box", "point-box", "outside-box", "over-border", "normalised-box"),
        *("duplicate-box", "contradiction", "whole-image", "tiny-box"),
    }
)
"""Kinds of findings of which each concerns one box."""

MAX_LINE = 200
"""Characters of a line of a message."""

MAX_LINES = 20
"""Lines of a message."""

MAX_EXAMPLES = 3
"""Findings of a kind that a message shows."""

_MAX_KINDS = 8
_REMEDY = '"fasterrcnn data check DATA" shows all, and writes a repaired copy with --fix NEW'
_POLICY = '; on_bad_box "fix" or "drop" (--on-bad-box) fixes them for this command alone, or leaves them out'


@dataclass(frozen=True)
class Finding:
    """One problem of a data set, or something that should be checked."""

    kind: str  # one of `FINDING_KINDS`
    file: Path  # the annotation file, or the image, where it is
    what: str  # what is wrong, with the value: "annotation 17 (cat): box 5,5,5,20 has no area"
    annotation: int | None = None  # id, object number or line number of the annotation in the file, where there is one
    image: Path | None = None  # the image it concerns, where there is one

    @property
    def severity(self) -> Severity:
        """error, warning or note."""
        return FINDING_KINDS[self.kind][0]

    @property
    def advice(self) -> str:
        """What to do."""
        return FINDING_KINDS[self.kind][1]

    def __str__(self) -> str:
        return printable(f"{self.file}: {self.what}")

    def line(self, limit: int = MAX_LINE) -> str:
        """The text, at most ``limit`` characters of it: of a long path and of long words the middle is left out."""
        file = shorten_middle(printable(str(self.file)), limit // 2)
        return f"{file}: {shorten_middle(printable(self.what), limit - len(file) - 2)}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        image = None if self.image is None else str(self.image)
        place = {"file": str(self.file), "annotation": self.annotation, "image": image}
        return {"severity": self.severity, "kind": self.kind, **place, "what": self.what, "advice": self.advice}


def unreadable_image(path: Path, error: ImageError) -> Finding:
    """A finding about an image that cannot be opened."""
    return Finding("unreadable-image", path, str(error).removeprefix(f"{path}: "), image=path)


def size_mismatch(
    image: Path, file: Path, stated_hw: tuple[int, int], size_hw: tuple[int, int], orientation: int
) -> Finding:
    """A finding about an annotation file that states another size than the upright image has.

    The orientation is EXIF's, from 1 to 8; from 5 on, width and height of the stored pixels are exchanged.
    """
    stated, true = (f"{width} x {height}" for height, width in (stated_hw, size_hw))
    turned = ""
    if size_hw == stated_hw[::-1]:
        turned = "; width and height are exchanged, or the image was rotated"
        if orientation >= 5:
            turned = (
                f"; size and probably boxes are of the stored, unrotated image (EXIF orientation {orientation}); "
                "data check --fix turns such boxes"
            )
    what = f"states {stated} for {image.name}, the image has {true} (width x height){turned}"
    return Finding("size-mismatch", file, what, image=image)


def printable(text: str) -> str:
    """Text from a file, safe for a terminal: control characters and broken file names become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shorten_middle(text: str, limit: int = MAX_LINE) -> str:
    """The text, without its middle where it is longer than the limit."""
    if len(text) <= limit:
        return text
    end = (limit - 5) // 2
    return f"{text[: limit - 5 - end]} ... {text[-end:]}"


def count_of(count: int, noun: str) -> str:
    """A number and a noun: "1 error", "1,725 errors"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


@lru_cache(1000)
def not_in_list(name: str, names: tuple[str, ...]) -> str:
    """In words that a name is none of some classes: which there are, or of many the most similar ones."""
    text = f"{name!r} is none of the classes {', '.join(names)}"
    if len(text) > MAX_LINE // 2:
        similar = get_close_matches(name, names, MAX_EXAMPLES, cutoff=0.5)
        nearest = f" (similar: {', '.join(map(repr, similar))})" if similar else ""
        text = f"{name!r} is none of the {len(names)} classes{nearest}"
    differences = (unseen_difference(name, other) for other in names)
    return text + next((f"; {words}" for words in differences if words), "")


def unseen_difference(first: str, other: str) -> str:
    """How two names differ that are printed alike; empty where a reader sees the difference, or there is none."""
    spelled = f"{first!a} and {other!a}"
    if first == other or _visible(first) != _visible(other):
        return ""
    if unicodedata.normalize("NFC", first) == unicodedata.normalize("NFC", other):
        return f"the accents are written in two ways, {spelled} (composed and decomposed Unicode: choose one)"
    return f"the names differ in characters that cannot be seen, {spelled}"


def _visible(name: str) -> str:
    """What a reader sees of a name: without invisible characters, and with one kind of space."""
    composed = unicodedata.normalize("NFC", name)
    shown = "".join(character for character in composed if unicodedata.category(character) not in ("Cc", "Cf"))
    return " ".join(shown.split())


def heading(kind: str, count: int) -> str:
    """The line above the findings of a kind."""
    severity, advice = FINDING_KINDS[kind]
    return f"{severity} {kind} ({count:,}): {advice}"


def group_by_kind(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """Findings of each kind, in their order."""
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(finding.kind, []).append(finding)
    return groups


def only_errors(findings: Iterable[Finding]) -> list[Finding]:
    """Only those that training refuses."""
    return [finding for finding in findings if finding.severity == "error"]


def raise_on_errors(findings: Iterable[Finding], root: Path, *, has_policy: bool = False) -> None:
    """Raise a `DataError` where there are errors: their number, and some of each kind, in at most twenty lines.

    ``has_policy``: the caller has the option ``on_bad_box``, which the message may advise.
    """
    errors = only_errors(findings)
    if not errors:
        return
    by_kind = group_by_kind(errors)
    shown = dict(list(by_kind.items())[:_MAX_KINDS])
    examples = min(MAX_EXAMPLES, 2 * _MAX_KINDS // len(shown) - 1)
    lines = [f"{count_of(len(errors), 'error')} in {shorten_middle(printable(str(root)), MAX_LINE // 2)}"]
    for kind, members in shown.items():
        lines.append(heading(kind, len(members)))
        lines += [f"  {finding.line(MAX_LINE - 2)}" for finding in members[:examples]]
    if len(by_kind) > len(shown):
        lines.append(f"and errors of {len(by_kind) - len(shown)} more kinds")
    if by_kind.keys() != {"no-boxes"}:  # which nothing can repair
        lines.append(_REMEDY + (_POLICY if has_policy else ""))
    raise DataError("\n".join(lines))
