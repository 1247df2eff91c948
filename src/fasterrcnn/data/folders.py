"""Folders for what a run writes: never one that holds something already."""

import itertools
from pathlib import Path

from fasterrcnn.errors import UsageError


def check_output(output: Path | None) -> None:
    """Refuse an output folder that is a file or not empty, before any work is done.

    Raises:
        UsageError: it is; the message names it.
    """
    if output is not None and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{output} exists and is not empty; give another output folder")


def make_folder(output: Path | None, name: str) -> Path:
    """The folder that was asked for, or the next free one called ``runs/<name>-<number>``; made now."""
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        return output
    for number in itertools.count(1):
        folder = Path("runs") / f"{name}-{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:  # taken, perhaps a moment ago by another run
            continue
        break
    return folder
