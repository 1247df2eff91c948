"""The record of what was found, a line of JSON for each image or frame: it grows while the work goes on.

It is hidden until the work ends, when it becomes ``detections.jsonl``. Who was killed finds it again: lines that were
written count, a last one that is torn does not, and neither do the frames of a video that was not finished.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from fasterrcnn.files import atomic_write

NAME = "detections.jsonl"

Entry = dict[str, Any]


class Journal:
    """The record of one output folder, open for more; use it in a ``with`` statement.

    Args:
        folder: the output folder; it is made.
        keep: which sources of an earlier record stay, by the last entry of each; None begins anew.
    """

    def __init__(self, folder: Path, keep: Callable[[Entry], bool] | None) -> None:
        self.path = folder / NAME
        self.stems: dict[str, str] = {}
        self._growing = folder / f".{NAME}.growing"
        folder.mkdir(parents=True, exist_ok=True)
        earlier = self._growing if self._growing.exists() else self.path
        going_on = keep is not None and earlier.exists()
        if keep is not None and going_on:
            self.stems = {file: last["stem"] for file, last in _last_entries(earlier).items() if keep(last)}
        with atomic_write(self._growing) as temporary, temporary.open("w", encoding="utf-8") as file:
            old = finished_entries(earlier) if going_on else ()
            file.writelines(json.dumps(entry) + "\n" for entry in old if entry["file"] in self.stems)
        self._file: TextIO = self._growing.open("a", encoding="utf-8")

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The record of work that ended, or was stopped by hand, gets its name; after an error it stays hidden."""
        if kind is None or issubclass(kind, KeyboardInterrupt | GeneratorExit):
            with atomic_write(self.path) as temporary, temporary.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(entry) + "\n" for entry in self.entries())
            self._file.close()
            self._growing.unlink()
        self._file.close()

    def add(self, entry: Entry) -> None:
        """Record an image, a frame, or the end of a video."""
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()

    def entries(self) -> Iterator[Entry]:
        """What is recorded and finished, in order, one at a time."""
        self._file.flush()
        return finished_entries(self._growing)


def finished_entries(path: Path) -> Iterator[Entry]:
    """The images of a record, and the frames and ends of videos that have an end, in order."""
    ended = set(_last_entries(path))
    return (entry for entry in _lines(path) if entry["file"] in ended)


def _last_entries(path: Path) -> dict[str, Entry]:
    """The entry of each image, and of the end of each video."""
    return {entry["file"]: entry for entry in _lines(path) if "frame" not in entry}


def _lines(path: Path) -> Iterator[Entry]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                entry = json.loads(line)
            except ValueError:  # torn when its writer was killed
                continue
            if isinstance(entry, dict) and isinstance(entry.get("file"), str) and isinstance(entry.get("stem"), str):
                yield entry
