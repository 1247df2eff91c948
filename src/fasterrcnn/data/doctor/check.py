"""All checks together: the whole examination, and the quick one before training."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from fasterrcnn.config import InputConfig
from fasterrcnn.data.doctor.boxes import check_boxes, check_values
from fasterrcnn.data.doctor.classes import check_classes
from fasterrcnn.data.doctor.pictures import Seen, Track, check_folders, check_listing, look_at_headers, look_at_pictures
from fasterrcnn.data.doctor.repair import Policy, Repaired, repair
from fasterrcnn.data.findings import KINDS, Finding, Severity, printable, refuse
from fasterrcnn.data.records import AnnotatedData, Record

HEADERS_READ = 20_000
"""Up to so many pictures, training looks at the header of each before it starts: seconds."""

PICTURES_READ = 5_000
"""Up to so many pictures, those that are damaged further behind are found too before they are left out."""

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
        """Write a page with the pictures and their boxes (.html)."""
        from fasterrcnn.data.doctor.report import write_report  # noqa: PLC0415 - pages are asked for rarely

        write_report(self, Path(path))


def check_data(
    data: AnnotatedData, config: InputConfig = InputConfig(), *, pictures: bool = True, track: Track | None = None
) -> Diagnosis:
    """The whole examination of a data set.

    Args:
        data: as `read_data` gives it.
        config: of the network input, which decides what is too small to be seen.
        pictures: decode every picture, to find damaged ones and copies; otherwise their headers are read.
        track: wraps the records while their pictures are decoded, for a progress bar.
    """
    track = track or (lambda records, total: records)
    seen = look_at_pictures(data, track) if pictures else look_at_headers(data.records)
    findings = [*_of_files(data, seen), *check_folders(data), *check_listing(data)]
    findings += [*check_boxes(seen.framed(data), config), *check_classes(data)]
    return Diagnosis(data, sorted(findings, key=lambda finding: _ORDER.index(finding.kind)))


def admit(data: AnnotatedData, policy: Policy = "error") -> Repaired:
    """The quick examination before training or measuring: refuses errors, or mends them, and says what it did.

    Raises:
        DataError: there are errors and the policy is "error"; the message names them.
    """
    if policy == "error":
        seen = look_at_headers(_unseen(data))
        refuse([*_of_files(data, seen), *check_folders(data), *check_values(seen.framed(data))], data.root)
    else:  # what is to be left out must be found first, damaged pictures too
        small = len(data.records) <= PICTURES_READ
        seen = look_at_pictures(data, lambda records, total: records) if small else look_at_headers(_unseen(data))
    repaired = repair(data, policy, seen.findings)
    counts = ", ".join(f"{done}: {count}" for done, count in repaired.counts.items())
    warnings = [f"{finding} ({finding.advice})" for finding in data.findings if finding.severity == "warning"]
    return replace(repaired, changes=[*([counts] if counts else []), *repaired.changes, *warnings])


def _of_files(data: AnnotatedData, seen: Seen) -> list[Finding]:
    """What the reader found, and what the pictures themselves say beyond that."""
    known = {(finding.kind, finding.picture) for finding in data.findings}
    return [*data.findings, *(f for f in seen.findings if (f.kind, f.picture) not in known)]


def _unseen(data: AnnotatedData) -> list[Record]:
    """Pictures whose sizes are not certain: the COCO reader opens none, the others tell which differ."""
    if data.format == "COCO" and len(data.records) <= HEADERS_READ:
        return data.records
    differ = {finding.picture for finding in data.findings if finding.kind == "size-mismatch"}
    return [record for record in data.records if record.path in differ]
