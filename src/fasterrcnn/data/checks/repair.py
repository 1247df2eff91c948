"""Repairing a data set in memory: before training, and for ``data check --fix``."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage, group_rows
from fasterrcnn.data.checks.boxes import BoxTable, Mask, classify, find_duplicate_boxes, interpret, tabulate
from fasterrcnn.data.checks.images import frame_hw, is_of_stored_image, lie_within
from fasterrcnn.data.findings import Finding, only_errors
from fasterrcnn.errors import ImageError
from fasterrcnn.images import SIDEWAYS, read_header

_KEPT, _NOT_READ = "kept", "not taken over"
NO_CHANGE = frozenset({_KEPT, _NOT_READ})
"""What is done about problems that only the user can solve."""

BadBoxPolicy = Literal["error", "fix", "drop"]


@dataclass(frozen=True)
class Repaired:
    """A data set that can be trained on."""

    data: AnnotatedData  # every box finite, with an area, inside its image
    changes: list[str]  # one line for each thing that was changed or left out
    counts: Counter[str]  # how often each thing was done


@dataclass(frozen=True)
class _Log:
    lines: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, finding: Finding, done: str, details: str = "") -> None:
        self.lines.append(f"{finding}; {done}{details}")
        self.counts[done] += 1


def repair(
    data: AnnotatedData, policy: BadBoxPolicy, findings: Sequence[Finding] = (), *, duplicates_too: bool = False
) -> Repaired:
    """Repair boxes that cannot be trained on, or leave them out.

    Whatever the policy, boxes without width and height are left out and boxes over the border are cut. "fix" also
    exchanges inverted corners, converts shares of the image to pixels, reads all boxes in another layout if they fit
    their images only in that, and takes the size of the image file where the annotations state another. "drop" (and
    "error", after which nothing is left to drop) leaves such boxes and images out; all boxes where the layout is wrong.
    The findings are those of the checks that opened the images; unreadable images are left out.
    """
    log = _Log()
    for finding in only_errors(data.findings):
        if finding.kind != "size-mismatch":
            # Annotations and categories with the same id are used all the same.
            log.add(finding, _KEPT if finding.kind == "colliding-id" and finding.image is None else _NOT_READ)
    data = replace(_fix_images(data, policy, findings, log), findings=[])
    table = tabulate(data)
    interpreted = interpret(table)
    bad = np.zeros(len(table.boxes), dtype=np.bool_)
    if policy == "fix":
        table = _fix_corners(interpreted.table, log)
        for finding in interpreted.findings:
            log.add(finding, "all read so" if finding.kind == "wrong-format" else "made pixels")
    else:
        bad |= interpreted.shares | interpreted.misread
        for finding in interpreted.findings:
            log.add(finding, "left out" if finding.kind == "normalised-box" else "all boxes left out")
    # float32, as they are kept: rounding can make an area zero.
    table = replace(table, boxes=table.boxes.astype(np.float32).astype(np.float64))
    return Repaired(_leave_out(table, bad, log, duplicates_too=duplicates_too), log.lines, log.counts)


def _fix_images(data: AnnotatedData, policy: BadBoxPolicy, findings: Sequence[Finding], log: _Log) -> AnnotatedData:
    """The data without images that cannot be used, and with the sizes of the files for the others."""
    unreadable = {finding.image: finding for finding in findings if finding.kind == "unreadable-image"}
    mismatched = {f.image: f for f in (*findings, *data.findings) if f.kind == "size-mismatch"}

    def change(image: AnnotatedImage) -> AnnotatedImage | None:
        finding = unreadable.get(image.path)
        if finding is not None:
            log.add(finding, "image left out")
            return None
        finding = mismatched.get(image.path)
        if finding is None:
            return image
        changed = _with_true_size(image) if policy == "fix" else None
        if changed is None:
            log.add(finding, "image left out")
        else:
            log.add(finding, "size corrected", _done_to_boxes(image, changed))
        return changed

    return data.map(change)


def _with_true_size(image: AnnotatedImage) -> AnnotatedImage | None:
    """The image with the size of its file and its boxes scaled to it, or turned with it; None if they do not fit."""
    try:
        header = read_header(image.path)
    except ImageError:
        return None
    true_hw = header.size_hw
    if is_of_stored_image(image, header):
        return replace(image, size_hw=true_hw, boxes=turn_upright(image.boxes, header.orientation, image.size_hw))
    (height, width), (frame_height, frame_width) = true_hw, frame_hw(image, true_hw)
    scale = np.array([width / frame_width, height / frame_height] * 2)
    changed = replace(image, size_hw=true_hw, boxes=(image.boxes * scale).astype(np.float32), areas=None)
    return changed if lie_within(changed, true_hw) else None


def turn_upright(boxes: NDArray[np.float32], orientation: int, stored_hw: tuple[int, int]) -> NDArray[np.float32]:
    """Boxes (n, 4) of an image as it is stored, in the frame of the upright image.

    Args:
        boxes: xyxy in pixels of the stored image.
        orientation: EXIF's, 1 to 8.
        stored_hw: height and width of the stored image.
    """
    height, width = stored_hw
    x1, y1, x2, y2 = boxes.T
    if orientation in (2, 3, 7, 8):  # left and right are exchanged
        x1, x2 = width - x2, width - x1
    if orientation in (3, 4, 6, 7):  # top and bottom are exchanged
        y1, y2 = height - y2, height - y1
    columns = (y1, x1, y2, x2) if orientation in SIDEWAYS else (x1, y1, x2, y2)
    return np.stack(columns, axis=1).astype(np.float32)


def _done_to_boxes(image: AnnotatedImage, changed: AnnotatedImage) -> str:
    if np.array_equal(changed.boxes, image.boxes, equal_nan=True):
        return ", boxes left as they are"
    is_turned = changed.size_hw == image.size_hw[::-1]
    return ", boxes turned with the image by its EXIF orientation" if is_turned else ", boxes scaled to it"


def _fix_corners(table: BoxTable, log: _Log) -> BoxTable:
    """The table with inverted corners exchanged."""
    rows = np.flatnonzero(classify(table)["inverted-box"])
    boxes = table.boxes.copy()
    corners = boxes[rows].reshape(-1, 2, 2)
    boxes[rows] = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    for row in rows.tolist():
        box = ",".join(f"{value:g}" for value in boxes[row])
        log.add(table.finding("inverted-box", row, "is inverted"), "corners exchanged", f": {box}")
    return replace(table, boxes=boxes)


def _leave_out(table: BoxTable, bad: Mask, log: _Log, *, duplicates_too: bool) -> AnnotatedData:
    """The data with the boxes of the table, cut at the border, without the bad and the invalid ones."""
    rest = ~bad
    for kind, mask in classify(table).items():
        done = "cut at the border" if kind == "over-border" else "left out"
        for finding in table.findings(kind, mask & rest, f"({kind})"):
            log.add(finding, done)
        if kind != "over-border":
            bad = bad | mask
    duplicates = find_duplicate_boxes(table, ~bad) if duplicates_too else {}
    for later, earlier in duplicates.items():
        if table.labels[later] == table.labels[earlier]:
            log.add(table.finding("duplicate-box", later, "repeats another"), "left out")
            bad[later] = True
    # Images that stay as they are stay the same objects.
    cut = table.clipped().astype(np.float32)
    parts = group_rows(table.owners, len(table.data.images), cut, bad)
    new: dict[int, AnnotatedImage] = {}
    for image, (boxes, left_out) in zip(table.data.images, parts, strict=True):
        changed = left_out.any() or not np.array_equal(boxes, image.boxes)
        new[id(image)] = replace(image, boxes=boxes).select(~left_out) if changed else image
    return table.data.map(lambda image: new[id(image)])
