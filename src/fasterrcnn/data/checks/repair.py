"""Fixing a data set, in memory: what training does before it starts, and what ``data check --fix`` writes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage
from fasterrcnn.data.checks.boxes import Boxes, BoxTable, Mask, classify, find_copies, interpret, tabulate
from fasterrcnn.data.checks.images import frame_hw, lie_within
from fasterrcnn.data.findings import Finding, errors_of
from fasterrcnn.data.images import read_size_hw
from fasterrcnn.errors import ImageError

Policy = Literal["error", "fix", "drop"]


@dataclass(frozen=True)
class Repaired:
    """A data set that can be learned from.

    Attributes:
        data: every box finite, with an area, inside its image.
        changes: one line for everything that was changed or left out.
        counts: how often each thing was done.
    """

    data: AnnotatedData
    changes: list[str]
    counts: Counter[str]


@dataclass(frozen=True)
class _Log:
    lines: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, finding: Finding, done: str, details: str = "") -> None:
        self.lines.append(f"{finding}; {done}{details}")
        self.counts[done] += 1


def repair(
    data: AnnotatedData, policy: Policy, findings: Sequence[Finding] = (), *, copies_too: bool = False
) -> Repaired:
    """Make every box one that can be learned from.

    Whatever the policy, points are left out and boxes over the border are cut. "fix" also exchanges corners, makes
    pixels of boxes that are shares of the image, reads all boxes in another layout if that is what they are in, and
    takes the image's own size where the annotations say another. "drop" (and "error", which expects that there is
    nothing left to drop) leaves such boxes and images out; of a data set in another layout, all boxes.

    Args:
        data: as read.
        policy: what to do about errors.
        findings: about images, from the checks that opened them: unreadable ones are left out.
        copies_too: leave out repeated boxes.
    """
    log = _Log()
    for finding in errors_of(data.findings):
        if finding.kind != "size-mismatch":
            # Annotations and categories with the same id count none the less.
            log.add(finding, "kept" if finding.kind == "colliding-id" and finding.image is None else "not taken over")
    data = replace(_fix_images(data, policy, findings, log), findings=[])
    table = tabulate(data)
    meant = interpret(table)
    bad = np.zeros(len(table), dtype=np.bool_)
    if policy == "fix":
        table = _fix_corners(meant.table, log)
        for finding in meant.findings:
            log.add(finding, "all read so" if finding.kind == "wrong-format" else "made pixels")
    else:
        bad |= meant.shares | meant.misread
        for finding in meant.findings:
            log.add(finding, "left out" if finding.kind == "normalised-box" else "all boxes left out")
    # As they will be kept: rounding can take the last bit of an area.
    table = replace(table, boxes=table.boxes.astype(np.float32).astype(np.float64))
    return Repaired(_leave_out(table, bad, log, copies_too=copies_too), log.lines, log.counts)


def _fix_images(data: AnnotatedData, policy: Policy, findings: Sequence[Finding], log: _Log) -> AnnotatedData:
    """The data without images that cannot be used, and with the true sizes of the others."""
    unreadable = {finding.image: finding for finding in findings if finding.kind == "unreadable-image"}
    mismatched = {f.image: f for f in (*findings, *data.findings) if f.kind == "size-mismatch"}

    def change(record: AnnotatedImage) -> AnnotatedImage | None:
        finding = unreadable.get(record.path)
        if finding is not None:
            log.add(finding, "image left out")
            return None
        finding = mismatched.get(record.path)
        if finding is None:
            return record
        changed = _with_true_size(record) if policy == "fix" else None
        if changed is None:
            log.add(finding, "image left out")
        else:
            scaled = not np.array_equal(changed.boxes, record.boxes, equal_nan=True)
            log.add(finding, "size corrected", ", boxes scaled to it" if scaled else ", boxes left as they are")
        return changed

    return data.map(change)


def _with_true_size(record: AnnotatedImage) -> AnnotatedImage | None:
    """Take the image's own size, and the boxes to it; None if they do not belong to it."""
    try:
        true_hw = read_size_hw(record.path)
    except ImageError:
        return None
    (height, width), (frame_height, frame_width) = true_hw, frame_hw(record, true_hw)
    scale = np.array([width / frame_width, height / frame_height] * 2)
    changed = replace(record, size_hw=true_hw, boxes=(record.boxes * scale).astype(np.float32), areas=None)
    return changed if lie_within(changed, true_hw) else None


def _fix_corners(table: BoxTable, log: _Log) -> BoxTable:
    """The table with corners in their order."""
    rows = np.flatnonzero(classify(table)["inverted-box"])
    boxes = table.boxes.copy()
    corners = boxes[rows].reshape(-1, 2, 2)
    boxes[rows] = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    for row in rows.tolist():
        log.add(table.finding("inverted-box", row, "is inverted"), "corners exchanged", f": {_words(boxes[row])}")
    return replace(table, boxes=boxes)


def _leave_out(table: BoxTable, bad: Mask, log: _Log, *, copies_too: bool) -> AnnotatedData:
    """The data with the boxes of the table, cut at the border, without the bad ones and those that are of no use."""
    rest = ~bad
    for kind, mask in classify(table).items():
        done = "cut at the border" if kind == "over-border" else "left out"
        for row in np.flatnonzero(mask & rest).tolist():
            log.add(table.finding(kind, row, f"({kind})"), done)
        if kind != "over-border":
            bad = bad | mask
    copies = find_copies(table, ~bad) if copies_too else {}
    for later, earlier in copies.items():
        if table.labels[later] == table.labels[earlier]:
            log.add(table.finding("duplicate-box", later, "repeats another"), "left out")
            bad[later] = True
    return _rebuild(table, bad)


def _rebuild(table: BoxTable, bad: Mask) -> AnnotatedData:
    starts = np.searchsorted(table.owners, np.arange(len(table.records) + 1))
    cut = table.clipped().astype(np.float32)
    new: dict[int, AnnotatedImage] = {}
    for number, record in enumerate(table.records):
        rows = slice(int(starts[number]), int(starts[number + 1]))
        changed = bad[rows].any() or not np.array_equal(cut[rows], record.boxes)
        new[id(record)] = replace(record, boxes=cut[rows]).take(~bad[rows]) if changed else record
    return table.data.map(lambda record: new[id(record)])


def _words(box: Boxes) -> str:
    return ",".join(f"{value:g}" for value in box)
