"""All checks together: the complete one of ``data check``, and the quick one before training."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from PIL import Image

from fasterrcnn.config import InputConfig
from fasterrcnn.data.annotations import NO_SPLIT, AnnotatedData, AnnotatedImage
from fasterrcnn.data.checks.boxes import check_boxes, check_values
from fasterrcnn.data.checks.classes import check_classes, check_for_boxes
from fasterrcnn.data.checks.images import (
    ImageFacts,
    TrackProgress,
    check_folders,
    check_listing,
    check_other_files,
    decode_images,
    read_headers,
)
from fasterrcnn.data.checks.repair import BadBoxPolicy, Repaired, repair
from fasterrcnn.data.findings import (
    BOX_KINDS,
    FINDING_KINDS,
    MAX_EXAMPLES,
    MAX_LINE,
    Finding,
    Severity,
    count_of,
    group_by_kind,
    heading,
    printable,
    raise_on_errors,
    shorten_middle,
)
from fasterrcnn.data.formats import data_format_of
from fasterrcnn.errors import ImageError
from fasterrcnn.files import write_text
from fasterrcnn.images import read_stretched
from fasterrcnn.reporting.drawing import draw_boxes
from fasterrcnn.reporting.html import render_page

HEADERS_READ = 20_000
"""With up to so many images, training reads the header of each before it starts; this takes seconds."""

IMAGES_READ = 5_000
"""With up to so many images, ``on_bad_box`` "fix" or "drop" decodes each before training, to find damaged ones."""

_SIDE = 360  # pixels of an image on the page
_MANY, _NEARLY_ALL = 10, 0.8  # findings that are summarised: this many, of this share of the images or boxes
_MAX_IMAGES = 12  # shown of each kind; all findings stand there as text

_ORDER = sorted(FINDING_KINDS, key=lambda kind: get_args(Severity).index(FINDING_KINDS[kind][0]))


@dataclass(frozen=True)
class DataReport:
    """The result of `check_data`: the data as it was read, and findings, errors first, then by kind."""

    data: AnnotatedData
    findings: list[Finding]

    @property
    def counts(self) -> dict[str, int]:
        """How many errors, warnings and notes."""
        counts: Counter[str] = Counter(finding.severity for finding in self.findings)
        return {severity: counts[severity] for severity in get_args(Severity)}

    def by_kind(self) -> dict[str, list[Finding]]:
        """Findings of each kind, errors first."""
        return group_by_kind(self.findings)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "data": str(self.data.root),
            "summary": self.data.summary(),
            "notes": self.data.notes,
            "counts": self.counts,
            "findings": [finding.to_dict() for finding in self.findings],
        }

    def to_text(self, *, examples: int | None = MAX_EXAMPLES) -> str:
        """A summary to read, with some findings of each kind, or all (None); of long lines the middle is left out."""
        lines = [shorten_middle(printable(line)) for line in self.data.describe()]
        for kind, findings in self.by_kind().items():
            lines += ["", heading(kind, len(findings))]
            extent = describe_extent(self.data, findings)
            if extent:
                lines.append(f"  concerns {extent}")
            shown = findings[:examples]
            lines += [f"  {finding.line(MAX_LINE - 2)}" for finding in shown]
            if len(findings) > len(shown):
                lines.append(f"  ... and {len(findings) - len(shown):,} more (--all shows them)")
        counts = ", ".join(count_of(count, name) for name, count in self.counts.items())
        lines.append(f"\n{counts}" if self.findings else "\nno findings: this data set is ready for training")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.to_text()

    def save(self, path: str | Path) -> None:
        """Write a page (.html) with every finding, and for the first of each kind the image with its boxes."""
        images = {image.path: image for image in self.data.images}
        sections = []
        for kind, findings in self.by_kind().items():
            severity, advice = FINDING_KINDS[kind]
            shown, rest = findings[:_MAX_IMAGES], findings[_MAX_IMAGES:]
            examples = [{"finding": f, "image": _draw(f, images, self.data)} for f in shown]
            about = {"kind": kind, "severity": severity, "advice": advice, "count": len(findings)}
            about["extent"] = describe_extent(self.data, findings)
            sections.append({**about, "examples": examples, "rest": rest})
        title = f"Data check of {self.data.root.name}"
        texts = {"title": title, "summary": " ".join(self.data.describe()), "counts": self.counts}
        write_text(Path(path), render_page("fasterrcnn.data", "check.html", **texts, sections=sections))


def describe_extent(data: AnnotatedData, findings: Sequence[Finding]) -> str:
    """The splits of which findings of one kind concern nearly all images, or the share of all boxes, in words.

    Empty where the findings are single cases.
    """
    if len(findings) < _MANY:
        return ""
    concerned = {finding.image for finding in findings}
    parts = []
    for name, images in data.splits.items():
        paths = {image.path for image in images}
        count = len(paths & concerned)
        if images and count >= _NEARLY_ALL * len(paths):
            of_all = "all" if count == len(paths) else f"{count:,} of"
            parts.append(f"{of_all} {len(paths):,} images{'' if name == NO_SPLIT else f' of {name!r}'}")
    boxes = sum(len(image.boxes) for image in data.images)
    if findings[0].kind in BOX_KINDS and _NEARLY_ALL * boxes <= len(findings) <= boxes:
        parts.insert(0, f"{len(findings):,} of {boxes:,} boxes")
    return ", ".join(parts)


def check_data(
    data: AnnotatedData, config: InputConfig = InputConfig(), *, images: bool = True, track: TrackProgress | None = None
) -> DataReport:
    """Check a data set completely; boxes that are too small in the network's input are reported.

    With ``images``, every image is decoded, to find damaged ones and copies, otherwise its header is read; ``track``
    wraps them meanwhile, for a progress bar.
    """
    track = track or (lambda images, total: images)
    facts = decode_images(data, track) if images else read_headers(data.images)
    listing = check_listing(data)
    leaks = {finding.image for finding in listing}
    findings = [f for f in _of_files(data, facts) if f.kind != "leak" or f.image not in leaks]
    findings += [*listing, *check_folders(data), *check_other_files(data), *check_for_boxes(data)]
    findings += [*check_boxes(facts.framed(data), config), *check_classes(data)]
    return DataReport(data, sorted(findings, key=lambda finding: _ORDER.index(finding.kind)))


def check_and_repair(data: AnnotatedData, policy: BadBoxPolicy = "error", *, is_part: bool = False) -> Repaired:
    """The quick check before training or evaluation: refuses errors, or repairs them and reports what it did.

    ``is_part``: these are some images of a data set, of which nothing can be concluded about the whole.

    Raises:
        DataError: there are errors and the policy is "error", or there is no box at all; the message names them.
    """
    of_the_whole = [] if is_part else check_for_boxes(data)
    if policy == "error":
        facts = read_headers(_uncertain_sizes(data))
        of_the_whole += [] if is_part else check_folders(data)
        findings = [*_of_files(data, facts), *of_the_whole, *check_values(facts.framed(data))]
        raise_on_errors(findings, data.root, has_policy=True)
    else:  # all that has to be left out must be known first, damaged images too
        raise_on_errors(of_the_whole, data.root)
        small = len(data.images) <= IMAGES_READ
        facts = decode_images(data, lambda images, total: images) if small else read_headers(_uncertain_sizes(data))
    repaired = repair(data, policy, facts.findings)
    counts = ", ".join(f"{done}: {count}" for done, count in repaired.counts.items())
    warnings = [f"{finding} ({finding.advice})" for finding in data.findings if finding.severity == "warning"]
    return replace(repaired, changes=[*([counts] if counts else []), *repaired.changes, *warnings])


def _of_files(data: AnnotatedData, facts: ImageFacts) -> list[Finding]:
    """Findings of the reader, and those of the image files that the reader does not have."""
    reported = {(finding.kind, finding.image) for finding in data.findings}
    return [*data.findings, *(f for f in facts.findings if (f.kind, f.image) not in reported)]


def _uncertain_sizes(data: AnnotatedData) -> list[AnnotatedImage]:
    """Images whose stated size has not been compared with the file, or differs from it."""
    form = data_format_of(data)
    if form is not None and not form.opens_images and len(data.images) <= HEADERS_READ:
        return data.images
    differ = {finding.image for finding in data.findings if finding.kind == "size-mismatch"}
    return [image for image in data.images if image.path in differ]


def _draw(finding: Finding, images: Mapping[Path, AnnotatedImage], data: AnnotatedData) -> Image.Image | None:
    """The image of a finding with its boxes; the box that is meant is on top and keeps its name."""
    if finding.image is None:
        return None
    try:
        pil_image, _ = read_stretched(finding.image)
    except ImageError:
        return None
    scale = min(1.0, _SIDE / max(pil_image.size))
    small = pil_image.resize((max(1, round(pil_image.width * scale)), max(1, round(pil_image.height * scale))))
    annotated = images.get(finding.image)
    if annotated is None:
        return small
    boxes = annotated.boxes * scale
    # Boxes that Pillow cannot draw are described by the text alone.
    is_drawable = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] >= boxes[:, :2]).all(axis=1)
    is_drawable &= (np.abs(boxes) < 10_000).all(axis=1)
    is_meant = np.array([annotated.number(index) == finding.annotation for index in range(len(boxes))], np.bool_)
    order = [i for i in np.argsort(is_meant, kind="stable").tolist() if is_drawable[i]]
    names = [data.classes[label] for label in annotated.labels]
    captions = [names[i] if is_meant[i] or finding.annotation is None else "" for i in order]
    return draw_boxes(small, boxes[order], annotated.labels[order], captions)
