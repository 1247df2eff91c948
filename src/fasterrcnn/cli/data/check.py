"""``fasterrcnn data check``: the data doctor."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from fasterrcnn.cli.options import DataSource, Json, Reading, on_terminal
from fasterrcnn.errors import DataError

if TYPE_CHECKING:
    from fasterrcnn.data.doctor import Diagnosis
    from fasterrcnn.data.records import Record


def check(
    data: DataSource,
    /,
    *,
    reading: Reading = Reading(),
    model: Annotated[str, Parameter(help="Preset whose input size decides what is too small.")] = "resnet50-fpn",
    report: Annotated[Path | None, Parameter(help="Also write a page with pictures and boxes (.html).")] = None,
    fix: Annotated[Path | None, Parameter(help="New folder for a repaired COCO copy and a log of changes.")] = None,
    quick: Annotated[
        bool, Parameter(negative="", help="Read only the headers of pictures, do not decode them.")
    ] = False,
    show_all: Annotated[bool, Parameter(name="--all", negative="", help="Show every finding.")] = False,
    as_json: Json = False,
) -> int:
    """Find what is wrong with a data set: files, boxes, classes, splits, pictures that are there twice.

    The data set itself is never touched. Exit code: 0 without errors, 2 with errors.
    """
    from fasterrcnn import presets
    from fasterrcnn.data.doctor import check_data
    from fasterrcnn.data.folders import check_output

    config = presets.get(model).input
    check_output(fix)
    diagnosis = check_data(reading.read(data), config, pictures=not quick, track=_track)
    if as_json:
        print(json.dumps(diagnosis.to_dict(), allow_nan=False))
    else:
        print(diagnosis.to_text(examples=None if show_all else 20))
    if report is not None:
        diagnosis.save(report)
        print(f"wrote {report}", file=sys.stderr)
    if fix is not None:
        _write_fixed(diagnosis, fix)
    return 2 if diagnosis.counts["error"] else 0


def _track(records: "Iterable[Record]", total: int) -> "Iterable[Record]":
    from rich.progress import track

    return track(records, "looking at pictures", total, disable=not on_terminal())


def _write_fixed(diagnosis: "Diagnosis", folder: Path) -> None:
    """The repaired copy, and beside its annotations what was changed."""
    from fasterrcnn.data.convert import write_data
    from fasterrcnn.data.doctor import repair

    repaired = repair(diagnosis.data, "fix", diagnosis.findings, copies_too=True)
    if not repaired.data.records:
        raise DataError(f"{diagnosis.data.root}: no picture can be kept, so there is no copy to write")
    notes = write_data(repaired.data, folder, "coco")
    lines = [f"{len(repaired.changes)} changes, made to a copy of {diagnosis.data.root}", *repaired.changes, *notes]
    (folder / "changes.txt").write_text("\n".join(lines) + "\n", encoding="utf-8", errors="backslashreplace")
    print(f"wrote a repaired copy to {folder}: {len(repaired.changes)} changes, see changes.txt", file=sys.stderr)
