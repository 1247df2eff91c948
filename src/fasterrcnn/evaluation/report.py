"""`Report`: COCO's 12 numbers, and where asked everything behind them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fasterrcnn.errors import UsageError
from fasterrcnn.evaluation.analysis import Analysis
from fasterrcnn.evaluation.report_files import describe_analysis, summary_of, write_json, write_tables

LABELS = {
    "ap": "AP  (IoU .50 to .95)",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "AP  small (under 32 x 32)",
    "ap_medium": "AP  medium (up to 96 x 96)",
    "ap_large": "AP  large",
    "ar1": "AR  1 detection an image",
    "ar10": "AR  10 detections",
    "ar100": "AR  100 detections, or --max-dets",
    "ar_small": "AR  small",
    "ar_medium": "AR  medium",
    "ar_large": "AR  large",
}
"""COCO's 12 numbers in COCO's order, and their names for people."""


@dataclass(frozen=True)
class Report:
    """COCO's 12 numbers, each 0..1, or None where there is no ground truth to measure against.

    Attributes:
        ap: average precision, mean over IoU .50 to .95 and over classes.
        ap50: at IoU .50.
        ap75: at IoU .75.
        ap_small: of objects under 32 x 32 pixels.
        ap_medium: of objects up to 96 x 96 pixels.
        ap_large: of larger objects.
        ar1: recall with one detection an image and class.
        ar10: with ten.
        ar100: with a hundred, or with as many as were asked for.
        ar_small: recall of small objects.
        ar_medium: of medium objects.
        ar_large: of large objects.
        per_class: average precision of each class, and at IoU .50.
        images: images that were measured.
        objects: objects in them.
        analysis: everything behind the numbers; None where only the numbers were asked for.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    ar1: float | None
    ar10: float | None
    ar100: float | None
    ar_small: float | None
    ar_medium: float | None
    ar_large: float | None
    per_class: Mapping[str, Mapping[str, float | None]]
    images: int
    objects: int
    analysis: Analysis | None = field(default=None, repr=False, compare=False)

    @property
    def numbers(self) -> dict[str, float | None]:
        """COCO's 12 numbers by name."""
        return {name: getattr(self, name) for name in LABELS}

    def with_analysis(self, analysis: Analysis) -> "Report":
        """The same numbers, with everything behind them."""
        return replace(self, analysis=analysis)

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for JSON; without the single detections, which the tables of `save` have."""
        counted = {"images": self.images, "objects": self.objects}
        plain = {**self.numbers, "per_class": {name: dict(row) for name, row in self.per_class.items()}, **counted}
        return plain if self.analysis is None else {**plain, **summary_of(self.analysis)}

    def save(self, path: str | Path) -> None:
        """Write the report; folders are made if need be, and files appear whole or not at all.

        Args:
            path: a page (.html), the numbers (.json), or a folder for both (report.html, metrics.json), tables
                (.csv) and the detections (results.json, in COCO's format).

        Raises:
            UsageError: the kind of file is unknown, or a page or tables are asked of a report without analysis.
        """
        path = Path(path)
        if path.suffix.lower() == ".json":
            write_json(path, self.to_dict())
            return
        check_target(path)
        if self.analysis is None:
            raise UsageError(f"{path}: this report has only numbers; write it as .json")
        from fasterrcnn.evaluation.page import write_page  # noqa: PLC0415 - templates and Pillow are for pages only

        if path.suffix.lower() in (".html", ".htm"):
            write_page(path, self.analysis, self.numbers, self.per_class, LABELS)
            return
        write_json(path / "metrics.json", self.to_dict())
        write_tables(path, self.analysis, self.per_class)
        write_page(path / "report.html", self.analysis, self.numbers, self.per_class, LABELS)

    def __str__(self) -> str:
        rows = [f"{self.images} images, {self.objects} objects"]
        rows += [f"{label:34}{shown(getattr(self, name))}" for name, label in LABELS.items()]
        width = max([34, *(len(name) + 2 for name in self.per_class)])
        rows.append(f"{'class':{width}}AP      AP50")
        rows += [f"{name:{width}}{shown(row['ap'])}   {shown(row['ap50'])}" for name, row in self.per_class.items()]
        return "\n".join([*rows, *(() if self.analysis is None else describe_analysis(self.analysis))])


def check_target(path: Path) -> None:
    """Refuse a path that no report can be written to, before any work is done.

    Raises:
        UsageError: the kind of file is unknown, or a folder is wanted where there is a file.
    """
    if path.suffix.lower() in (".html", ".htm", ".json") and path.is_dir():
        raise UsageError(f"{path} is a folder, not a file")
    if path.suffix.lower() not in ("", ".html", ".htm", ".json") and not path.is_dir():
        raise UsageError(f"{path}: a report is written as .html, as .json, or into a folder")
    if not path.suffix and path.is_file():
        raise UsageError(f"{path} is a file, not a folder")


def shown(value: float | None) -> str:
    """A number of a report for people: three decimals, or "n/a"."""
    return "n/a  " if value is None else f"{value:.3f}"
