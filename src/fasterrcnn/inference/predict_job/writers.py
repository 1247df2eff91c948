"""The files of a prediction job: annotated images, crops, label files and tables of all detections."""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from fasterrcnn.detections import Detections
from fasterrcnn.errors import ImageError
from fasterrcnn.files import atomic_write
from fasterrcnn.inference.predict_job.journal import Entry, SaveKind
from fasterrcnn.inference.predict_job.tasks import Task

_QUALITY = 90

_COLUMNS = ("file", "frame", "time", "x1", "y1", "x2", "y2", "score", "label", "name")


@dataclass(frozen=True)
class Saver:
    """Writes the files of each image or frame, and makes its entry of the journal."""

    output: Path  # the folder for all files
    kinds: tuple[SaveKind, ...]  # which files are written

    def save_image(self, task: Task, detections: Detections) -> Entry:
        """Write the files of an image.

        Returns:
            The entry for the journal.

        Raises:
            ImageError: one cannot be written; the message names the file.
        """
        target = self.output / f"{task.stem}.jpg" if "images" in self.kinds else None
        if target is not None:
            _save_jpeg(detections.plot(), target)
        self._save_labels_and_crops(detections, task.stem, f"{task.stem}-")
        return {**_about(task, image=_text(target)), **_results(detections), "saved": sorted(self.kinds)}

    def save_frame(self, task: Task, detections: Detections) -> Entry:
        """Write the files of a frame, other than the video; see `save_image`."""
        name = f"{task.stem}/{detections.frame:06d}"
        self._save_labels_and_crops(detections, name, f"{name}-")
        return {**_about(task, frame=detections.frame, time=detections.seconds), **_results(detections)}

    def video_entry(self, task: Task, target: Path | None, frames: int, *, interrupted: bool = False) -> Entry:
        """The entry for the end of a video, after all its frames or after an interruption."""
        about = _about(task, image=_text(target))
        return {**about, "frames": frames, "interrupted": interrupted, "saved": sorted(self.kinds)}

    def is_done(self, last: Entry) -> bool:
        """Whether an earlier job has written all files of a source that are wanted now, given its last entry."""
        exists = last.get("image") is None or Path(last["image"]).exists()
        return exists and not last.get("interrupted") and set(self.kinds) <= set(last.get("saved", ()))

    def _save_labels_and_crops(self, detections: Detections, label_name: str, crop_name: str) -> None:
        if "yolo" in self.kinds:
            with atomic_write(self.output / "labels" / f"{label_name}.txt") as temporary:
                temporary.write_text("".join(f"{line}\n" for line in detections.to_yolo()), encoding="utf-8")
        if "crops" in self.kinds and len(detections):
            for number, (name, crop) in enumerate(zip(detections.names, detections.crops(), strict=True), start=1):
                _save_jpeg(crop, self.output / "crops" / _folder_name(name) / f"{crop_name}{number}.jpg")


def write_coco(entries: Iterable[Entry], path: Path, category_ids: Sequence[int]) -> None:
    """COCO results, one object a line; ``image_id`` counts images and frames from 1, ``file_name`` names the source."""
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
            for record in entry.get("detections", ()):
                table.writerow((*about, *record["box"], record["score"], record["label"], record["name"]))


def _coco_rows(entries: Iterable[Entry], category_ids: Sequence[int]) -> Iterator[dict[str, Any]]:
    images = (entry for entry in entries if "detections" in entry)
    for image_id, entry in enumerate(images, start=1):
        frame = {"frame": entry["frame"]} if "frame" in entry else {}
        for record in entry["detections"]:
            x1, y1, x2, y2 = record["box"]
            yield {
                "image_id": image_id,
                "category_id": category_ids[record["label"]],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": record["score"],
                "file_name": entry["file"],
                **frame,
            }


def _about(task: Task, **more: Any) -> Entry:
    return {"file": str(task.source), "stem": task.stem, **more}


def _results(detections: Detections) -> Entry:
    height, width = detections.image_hw
    return {"height": height, "width": width, "detections": detections.to_records()}


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _save_jpeg(image: Image.Image, target: Path) -> None:
    try:
        with atomic_write(target) as temporary:
            image.save(temporary, format="JPEG", quality=_QUALITY)
    except (OSError, ValueError) as error:  # a side beyond 65,500 pixels, a full disk
        raise ImageError(f"{target}: cannot be written ({error})") from None


def _folder_name(name: str) -> str:
    """The name of a class as a folder name that is valid on every system: a checkpoint may hold any text."""
    return re.sub(r"[^\w .+-]+|^[ .]+|[ .]+$", "_", name) or "_"
