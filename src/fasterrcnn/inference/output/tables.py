"""One file for all pictures, made from the record: COCO results and CSV. Neither is ever in memory as a whole."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fasterrcnn.files import written_whole
from fasterrcnn.inference.output.journal import Entry

_COLUMNS = ("file", "frame", "time", "x1", "y1", "x2", "y2", "score", "label", "name")


def write_coco(entries: Iterable[Entry], path: Path, category_ids: Sequence[int]) -> None:
    """COCO results, one object a line; ``image_id`` counts pictures and frames from 1, ``file_name`` names the source.

    Args:
        entries: the record.
        path: the file to write.
        category_ids: id of each class.
    """
    with written_whole(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        file.write("[")
        for number, row in enumerate(_coco_rows(entries, category_ids)):
            file.write((",\n" if number else "\n") + json.dumps(row))
        file.write("\n]\n")


def write_csv(entries: Iterable[Entry], path: Path) -> None:
    """One object a row: file, frame and time of a video, box as x1 y1 x2 y2 in pixels, score, label, name."""
    with written_whole(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(_COLUMNS)
        for entry in entries:
            about = (entry["file"], entry.get("frame"), entry.get("time"))
            for found in entry.get("detections", ()):
                table.writerow((*about, *found["box"], found["score"], found["label"], found["name"]))


def _coco_rows(entries: Iterable[Entry], category_ids: Sequence[int]) -> Iterator[dict[str, Any]]:
    pictures = (entry for entry in entries if "detections" in entry)
    for image_id, entry in enumerate(pictures, start=1):
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
