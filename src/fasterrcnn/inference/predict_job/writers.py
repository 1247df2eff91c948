"""What is kept of one image or frame: drawn on, cut out, as label file, and as an entry of the record."""

import csv
import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from fasterrcnn.detections import Detections
from fasterrcnn.errors import ImageError
from fasterrcnn.files import atomic_write
from fasterrcnn.inference.predict_job.journal import Entry
from fasterrcnn.inference.predict_job.tasks import Task

SaveKind = Literal["images", "coco", "csv", "yolo", "crops"]
"""Annotated images and videos; results.json; detections.csv; labels/*.txt; crops/CLASS/*.jpg."""

_QUALITY = 90


@dataclass(frozen=True)
class Saver:
    """Writes the files that belong to one image or frame.

    Attributes:
        output: the folder for everything.
        kinds: what is wanted.
    """

    output: Path
    kinds: tuple[SaveKind, ...]

    def image(self, task: Task, found: Detections) -> Entry:
        """Write what is wanted of an image.

        Returns:
            The entry for the record.

        Raises:
            ImageError: it cannot be written; the message names the file.
        """
        target = self.output / f"{task.stem}.jpg" if "images" in self.kinds else None
        if target is not None:
            _save_jpeg(found.plot(), target)
        self._labels_and_crops(found, task.stem, f"{task.stem}-")
        size = {"height": found.image_hw[0], "width": found.image_hw[1]}
        about = {
            "file": str(task.source),
            "stem": task.stem,
            "image": None if target is None else str(target),
            **size,
        }
        return {**about, "detections": found.to_records(), "saved": sorted(self.kinds)}

    def frame(self, task: Task, found: Detections) -> Entry:
        """Write what is wanted of a frame, but the video; see `image`."""
        self._labels_and_crops(found, f"{task.stem}/{found.frame:06d}", f"{task.stem}/{found.frame:06d}-")
        about = {"file": str(task.source), "stem": task.stem, "frame": found.frame, "time": found.seconds}
        size = {"height": found.image_hw[0], "width": found.image_hw[1]}
        return {**about, **size, "detections": found.to_records()}

    def end_of_video(self, task: Task, target: Path | None, frames: int, *, interrupted: bool = False) -> Entry:
        """The entry that says that all frames of a video are there, or that it was stopped by hand."""
        about = {"file": str(task.source), "stem": task.stem, "image": None if target is None else str(target)}
        return {**about, "frames": frames, "interrupted": interrupted, "saved": sorted(self.kinds)}

    def is_done(self, last: Entry) -> bool:
        """Whether an earlier run has left everything of a source that is wanted now, by its last entry."""
        there = last.get("image") is None or Path(last["image"]).exists()
        return there and not last.get("interrupted") and set(self.kinds) <= set(last.get("saved", ()))

    def _labels_and_crops(self, found: Detections, label_name: str, crop_name: str) -> None:
        if "yolo" in self.kinds:
            with atomic_write(self.output / "labels" / f"{label_name}.txt") as temporary:
                temporary.write_text("".join(f"{line}\n" for line in found.to_yolo()), encoding="utf-8")
        if "crops" in self.kinds and len(found):
            for number, (name, crop) in enumerate(zip(found.names, found.crops(), strict=True), start=1):
                _save_jpeg(crop, self.output / "crops" / _folder_name(name) / f"{crop_name}{number}.jpg")


class Stopwatch:
    """Seconds from one look at it to the next."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def lap(self) -> float:
        """Seconds since the last call, or since it was made."""
        last, self._last = self._last, time.monotonic()
        return self._last - last


def _save_jpeg(image: Image.Image, target: Path) -> None:
    try:
        with atomic_write(target) as temporary:
            image.save(temporary, format="JPEG", quality=_QUALITY)
    except (OSError, ValueError) as error:  # a side beyond 65,500 pixels, a full disk
        raise ImageError(f"{target}: cannot be written ({error})") from None


def _folder_name(name: str) -> str:
    """The name of a class, fit for a folder on every system: a checkpoint may hold any text."""
    return re.sub(r"[^\w .+-]+|^[ .]+|[ .]+$", "_", name) or "_"


_COLUMNS = ("file", "frame", "time", "x1", "y1", "x2", "y2", "score", "label", "name")


def write_coco(entries: Iterable[Entry], path: Path, category_ids: Sequence[int]) -> None:
    """COCO results, one object a line; ``image_id`` counts images and frames from 1, ``file_name`` names the source.

    Args:
        entries: the record.
        path: the file to write.
        category_ids: id of each class.
    """
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write("[")
        for number, row in enumerate(_coco_rows(entries, category_ids)):
            file.write((",\n" if number else "\n") + json.dumps(row))
        file.write("\n]\n")


def write_csv(entries: Iterable[Entry], path: Path) -> None:
    """One object a row: file, frame and time of a video, box as x1 y1 x2 y2 in pixels, score, label, name."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(_COLUMNS)
        for entry in entries:
            about = (entry["file"], entry.get("frame"), entry.get("time"))
            for found in entry.get("detections", ()):
                table.writerow((*about, *found["box"], found["score"], found["label"], found["name"]))


def _coco_rows(entries: Iterable[Entry], category_ids: Sequence[int]) -> Iterator[dict[str, Any]]:
    images = (entry for entry in entries if "detections" in entry)
    for image_id, entry in enumerate(images, start=1):
        frame = {"frame": entry["frame"]} if "frame" in entry else {}
        for found in entry["detections"]:
            x1, y1, x2, y2 = found["box"]
            yield {
                "image_id": image_id,
                "category_id": category_ids[found["label"]],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": found["score"],
                "file_name": entry["file"],
                **frame,
            }
