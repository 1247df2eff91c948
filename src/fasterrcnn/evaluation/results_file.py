"""Detections of any model from a file in COCO's results format."""

import json
from pathlib import Path
from typing import Any

from fasterrcnn.errors import DataError
from fasterrcnn.evaluation.reading import MAX_DETS, Rows, read_results
from fasterrcnn.evaluation.truth import Predictions, Truth


def load_results(path: str | Path, truth: Truth, max_dets: int = MAX_DETS) -> Predictions:
    """Detections of a results file.

    Args:
        path: a JSON list of image_id, category_id, bbox (left, top, width, height) and score; or the folder (or its
            metrics.json) of a report, which has such a file. Where every row has a ``file_name``, as those of
            ``fasterrcnn predict``, it says which picture is meant, and image_id is not looked at.
        truth: what they are measured against.
        max_dets: most detections of a picture and class that count.

    Raises:
        DataError: the file cannot be read or does not fit the data set; the message names the file.
    """
    path = Path(path)
    if path.is_dir() or path.name == "metrics.json":
        path = (path if path.is_dir() else path.parent) / "results.json"
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; COCO results are wanted, a JSON list of detections") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error})") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: COCO results are a list of objects with image_id, category_id, bbox and score")
    try:
        return read_results(truth, _by_name(rows, truth), max_dets)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _by_name(rows: list[dict[str, Any]], truth: Truth) -> Rows:
    """The rows with the image ids of the files that they name, where all do."""
    if not rows or not all(isinstance(row.get("file_name"), str) for row in rows):
        return rows
    ids = truth.pictures.ids.tolist()
    files = truth.pictures.files
    by_name: dict[str, int | None] = {}
    for image_id, file in zip(ids, files, strict=True):
        by_name[file.name] = None if file.name in by_name else image_id  # None: two pictures are called so
    by_path = {str(file): image_id for image_id, file in zip(ids, files, strict=True)}
    found = []
    for number, row in enumerate(rows):
        name = row["file_name"]
        image_id = by_path.get(name, by_name.get(Path(name).name))
        if image_id is None:
            twice = Path(name).name in by_name
            raise DataError(f"result {number}: {'several pictures are' if twice else 'no picture is'} called {name}")
        found.append({**row, "image_id": image_id})
    return found
