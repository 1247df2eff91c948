"""The journal of a prediction job: a line of JSON for each image or frame, written while the job runs.

The file is hidden until the job ends, then it becomes ``detections.jsonl``. After a process was killed, the next one
reads what was written: complete lines count, a broken last one does not, nor do the frames of an unfinished video.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TextIO

from fasterrcnn.files import atomic_write

JOURNAL = "detections.jsonl"

SaveKind = Literal["images", "coco", "csv", "yolo", "crops"]
"""Annotated images and videos; results.json; detections.csv; labels/*.txt; crops/CLASS/*.jpg."""

Entry = dict[str, Any]

_OLD_WORDS = {"picture": "image", "pictures": "images"}
"""Key of the annotated image, and its kind of file, in journals of version 0.1."""


class Journal:
    """The journal of one output folder, open for more entries; use it in a ``with`` statement.

    Args:
        folder: the output folder; it is made.
        keep: whether a source of an earlier job stays, given its last entry; None starts a new journal.
    """

    def __init__(self, folder: Path, keep: Callable[[Entry], bool] | None) -> None:
        self.path = folder / JOURNAL
        self.stems: dict[str, str] = {}
        self._growing = folder / f".{JOURNAL}.growing"
        folder.mkdir(parents=True, exist_ok=True)
        earlier = self._growing if self._growing.exists() else self.path
        entries: Iterator[Entry] = iter(())
        if keep is not None and earlier.exists():
            self.stems = {file: last["stem"] for file, last in _last_entries(earlier).items() if keep(last)}
            entries = finished_entries(earlier)
        _write(self._growing, (entry for entry in entries if entry["file"] in self.stems))
        self._file: TextIO = self._growing.open("a", encoding="utf-8")

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The journal of a job that ended, or was interrupted, gets its name; after an error it stays hidden."""
        if kind is None or issubclass(kind, KeyboardInterrupt | GeneratorExit):
            _write(self.path, self.entries())
            self._file.close()
            self._growing.unlink()
        self._file.close()

    def add(self, entry: Entry) -> None:
        """Record an image, a frame, or the end of a video."""
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()

    def entries(self) -> Iterator[Entry]:
        """All finished entries, in order."""
        self._file.flush()
        return finished_entries(self._growing)


def finished_entries(path: Path) -> Iterator[Entry]:
    """The images of a journal, and the frames and ends of videos that have an end, in order."""
    finished = set(_last_entries(path))
    return (entry for entry in _read(path) if entry["file"] in finished)


def _last_entries(path: Path) -> dict[str, Entry]:
    """The entry of each image, and of the end of each video, by file."""
    return {entry["file"]: entry for entry in _read(path) if "frame" not in entry}


def _write(path: Path, entries: Iterator[Entry]) -> None:
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(entry) + "\n" for entry in entries)


def _read(path: Path) -> Iterator[Entry]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                entry = json.loads(line)
            except ValueError:  # incomplete, because its writer was killed
                continue
            if isinstance(entry, dict) and isinstance(entry.get("file"), str) and isinstance(entry.get("stem"), str):
                yield _upgrade(entry)


def _upgrade(entry: Entry) -> Entry:
    entry = {_OLD_WORDS.get(key, key): value for key, value in entry.items()}
    if isinstance(entry.get("saved"), list):
        entry["saved"] = [_OLD_WORDS.get(kind, kind) for kind in entry["saved"]]
    return entry
