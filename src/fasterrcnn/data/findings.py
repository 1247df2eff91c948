"""What can be wrong with a data set: every kind of finding, its severity, and what to do about it.

Needs no torch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fasterrcnn.errors import DataError, ImageError
from fasterrcnn.images import SIDEWAYS

Severity = Literal["error", "warning", "note"]

FINDING_KINDS: dict[str, tuple[Severity, str]] = {
    # Files
    "unreadable-image": ("error", "replace the file, or take it out of the data set"),
    "missing-image": ("error", "put the image there, or delete its annotations"),
    "ambiguous-image": ("error", "rename one of the images, or name their folder (--images)"),
    "missing-annotations": ("error", "put the file there, or take the image out of the split"),
    "unreadable-annotations": ("error", "correct the file"),
    "unlisted-annotations": ("warning", "they take no part; name the file alone if it is the one that counts"),
    "unlabelled-image": ("warning", "it counts as an image without objects; delete it if it was never labelled"),
    "other-files": ("note", "they take no part; save drawings and documents as PNG if they belong to the data set"),
    "unlisted-image": ("note", "it takes no part; delete it, or annotate it"),
    "empty-split": ("warning", "the split is left out"),
    "few-levels": (
        "warning",
        "training stretches them by the range of the data set; weights that keep no range need --pixel-range LOW HIGH",
    ),
    "several-frames": ("note", "only the first takes part; save the others as files of their own"),
    "size-mismatch": ("error", "the boxes may belong to another size of the image: correct the size, or the boxes"),
    # Identities
    "unknown-image": ("error", "add the image to the list, or delete the annotation"),
    "unknown-class": ("error", "add the class to the list, or correct the annotation"),
    "colliding-id": ("error", "number anew"),
    # Boxes
    "not-finite": ("error", "draw the box again, or delete it"),
    "inverted-box": ("error", "exchange the corners, if it is not another box format"),
    "flat-box": ("error", "draw the box again, or delete it"),
    "point-box": ("warning", "probably a click while annotating: delete it; it is left out"),
    "outside-box": ("error", "draw the box again, or delete it"),
    "over-border": ("warning", "it is cut at the border"),
    "normalised-box": ("error", "pixels are expected: multiply by width and height"),
    "wrong-format": ("error", "convert the boxes; for a table or a list, state their format (box_format)"),
    "duplicate-box": ("warning", "delete one of them"),
    "contradiction": ("warning", "one box cannot be of two classes: delete the wrong one"),
    "whole-image": ("note", "right only if the object fills the image"),
    "tiny-box": ("warning", "train with a larger input (short_side), cut the images into tiles, or delete it"),
    # The data set as a whole
    "unused-class": ("warning", "the detector would have an output that never learns: take it out of the list"),
    "similar-names": ("warning", "if they mean the same, rename one"),
    "class-not-in-split": ("warning", "its quality cannot be learned or measured there: split anew"),
    "imbalance": ("warning", "collect more of the rare class, or train on it more often"),
    "missing-objects": ("warning", "label them: what is visible and unlabelled teaches the detector to overlook it"),
    "same-image": ("warning", "keep one"),
    "leak": ("warning", "keep it in one split: results on images of the training mean nothing"),
}
"""Kinds of findings: severity, and advice.

error: training on it would go wrong; warning: should be checked; note: is often intended.
"""


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

    The orientation is EXIF's, from 1 to 8.
    """
    stated, true = (f"{width} x {height}" for height, width in (stated_hw, size_hw))
    turned = ""
    if size_hw == stated_hw[::-1]:
        turned = "; width and height are exchanged, or the image was rotated"
        if orientation in SIDEWAYS:
            turned = (
                f"; size and probably boxes are of the stored, unrotated image (EXIF orientation {orientation}); "
                "data check --fix turns such boxes"
            )
    what = f"states {stated} for {image.name}, the image has {true} (width x height){turned}"
    return Finding("size-mismatch", file, what, image=image)


def printable(text: str) -> str:
    """Text from a file, safe for a terminal: control characters and broken file names become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def only_errors(findings: Iterable[Finding]) -> list[Finding]:
    """Only those that training refuses."""
    return [finding for finding in findings if finding.severity == "error"]


def raise_on_errors(findings: Sequence[Finding], root: Path) -> None:
    """Raise a `DataError` where there are errors; it names the first twenty, and the options."""
    errors = only_errors(findings)
    if not errors:
        return
    shown = "; ".join(f"{finding} [{finding.advice}]" for finding in errors[:20])
    more = f"; and {len(errors) - 20} more" if len(errors) > 20 else ""
    raise DataError(
        f"{len(errors)} {'error' if len(errors) == 1 else 'errors'} in {root}: {shown}{more}. Correct them, or let "
        'them be fixed or left out with on_bad_box "fix" or "drop" (--on-bad-box); "fasterrcnn data check" shows all'
    )
