"""All checks together: the whole examination, and the quick one before training."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from fasterrcnn.config import InputConfig
from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage
from fasterrcnn.data.checks.boxes import check_boxes, check_values
from fasterrcnn.data.checks.classes import check_classes
from fasterrcnn.data.checks.images import Seen, Track, check_folders, check_listing, look_at_headers, look_at_images
from fasterrcnn.data.checks.repair import Policy, Repaired, repair
from fasterrcnn.data.findings import KINDS, Finding, Severity, printable, refuse

HEADERS_READ = 20_000
"""Up to so many images, training looks at the header of each before it starts: seconds."""

IMAGES_READ = 5_000
"""Up to so many images, those that are damaged further behind are found too before they are left out."""

_ORDER = sorted(KINDS, key=lambda kind: get_args(Severity).index(KINDS[kind][0]))


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found.

    Attributes:
        data: that was looked at.
        findings: errors first, then by kind.
    """

    data: AnnotatedData
    findings: list[Finding]

    @property
    def counts(self) -> dict[str, int]:
        """How many errors, warnings and notes."""
        found: Counter[str] = Counter(finding.severity for finding in self.findings)
        return {severity: found[severity] for severity in get_args(Severity)}

    def by_kind(self) -> dict[str, list[Finding]]:
        """Findings of each kind, gravest kinds first."""
        kinds: dict[str, list[Finding]] = {}
        for finding in self.findings:
            kinds.setdefault(finding.kind, []).append(finding)
        return kinds

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "data": str(self.data.root),
            "summary": self.data.summary(),
            "counts": self.counts,
            "findings": [finding.to_dict() for finding in self.findings],
        }

    def to_text(self, *, examples: int | None = 20) -> str:
        """A summary to read, with some findings of each kind, or all (None)."""
        lines = [printable(self.data.summary())]
        for kind, found in self.by_kind().items():
            severity, advice = KINDS[kind]
            lines.append(f"\n{severity} {kind} ({len(found)}): {advice}")
            shown = found[:examples]
            lines += [f"  {finding}" for finding in shown]
            if len(found) > len(shown):
                lines.append(f"  ... and {len(found) - len(shown)} more (--all shows them)")
        counts = ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for name, count in self.counts.items())
        lines.append(f"\n{counts}" if self.findings else "\nnothing found: this data set looks right")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.to_text()

    def save(self, path: str | Path) -> None:
        """Write a page with the images and their boxes (.html)."""
        from fasterrcnn.data.checks.page import write_check_page  # noqa: PLC0415 - pages are asked for rarely

        write_check_page(Path(path), self.data, self.by_kind(), self.counts)


def check_data(
    data: AnnotatedData, config: InputConfig = InputConfig(), *, images: bool = True, track: Track | None = None
) -> Diagnosis:
    """The whole examination of a data set.

    Args:
        data: as `read_data` gives it.
        config: of the network input, which decides what is too small to be seen.
        images: decode every image, to find damaged ones and copies; otherwise their headers are read.
        track: wraps the records while their images are decoded, for a progress bar.
    """
    track = track or (lambda records, total: records)
    seen = look_at_images(data, track) if images else look_at_headers(data.records)
    findings = [*_of_files(data, seen), *check_folders(data), *check_listing(data)]
    findings += [*check_boxes(seen.framed(data), config), *check_classes(data)]
    return Diagnosis(data, sorted(findings, key=lambda finding: _ORDER.index(finding.kind)))


def admit(data: AnnotatedData, policy: Policy = "error") -> Repaired:
    """The quick examination before training or measuring: refuses errors, or fixes them, and says what it did.

    Raises:
        DataError: there are errors and the policy is "error"; the message names them.
    """
    if policy == "error":
        seen = look_at_headers(_unseen(data))
        refuse([*_of_files(data, seen), *check_folders(data), *check_values(seen.framed(data))], data.root)
    else:  # what is to be left out must be found first, damaged images too
        small = len(data.records) <= IMAGES_READ
        seen = look_at_images(data, lambda records, total: records) if small else look_at_headers(_unseen(data))
    repaired = repair(data, policy, seen.findings)
    counts = ", ".join(f"{done}: {count}" for done, count in repaired.counts.items())
    warnings = [f"{finding} ({finding.advice})" for finding in data.findings if finding.severity == "warning"]
    return replace(repaired, changes=[*([counts] if counts else []), *repaired.changes, *warnings])


def _of_files(data: AnnotatedData, seen: Seen) -> list[Finding]:
    """What the reader found, and what the images themselves say beyond that."""
    known = {(finding.kind, finding.image) for finding in data.findings}
    return [*data.findings, *(f for f in seen.findings if (f.kind, f.image) not in known)]


def _unseen(data: AnnotatedData) -> list[AnnotatedImage]:
    """Images whose sizes are not certain: the COCO reader opens none, the others tell which differ."""
    if data.format == "COCO" and len(data.records) <= HEADERS_READ:
        return data.records
    differ = {finding.image for finding in data.findings if finding.kind == "size-mismatch"}
    return [record for record in data.records if record.path in differ]
