"""``fasterrcnn predict``: annotated pictures and a COCO results file."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from fasterrcnn.cli.options import Device, Json, Names, Preset, Style, Weights, tell
from fasterrcnn.errors import ImageError, UsageError


def predict(
    weights: Weights,
    sources: Annotated[list[str], Parameter(help="Pictures, folders or globs.", negative="")],
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="Folder for pictures and results.json.")],
    score: Annotated[float, Parameter(help="Lowest score, 0 to 1.")] = 0.5,
    classes: Annotated[
        list[str] | None, Parameter(help="Report these classes only.", consume_multiple=True, negative="")
    ] = None,
    nms: Annotated[
        Literal["class", "agnostic", "soft-linear", "soft-gaussian"] | None, Parameter(help="Kind of NMS.")
    ] = None,
    nms_threshold: Annotated[float | None, Parameter(help="IoU above which the weaker box goes.")] = None,
    max_detections: Annotated[int | None, Parameter(help="Most detections of a picture.")] = None,
    names: Names = None,
    preset: Preset = None,
    style: Style = None,
    device: Device = None,
    as_json: Json = False,
) -> int:
    """Find objects in pictures: draws them into JPEG files and writes results.json in COCO's results format.

    A picture that cannot be read is named and left out; the exit code is then 1.
    """
    from fasterrcnn.inference.detector import Options, load

    detector = load(weights, classes=names, preset=preset, style=style, device=device, say=tell)
    options: Options = {
        "score": score,
        "classes": classes,
        "nms": nms,
        "nms_threshold": nms_threshold,
        "max_detections": max_detections,
    }
    detector.stream([], **options)  # refuses bad options before anything is written
    files = _files(sources)
    targets = _targets(files, output)
    category_ids = detector.config.category_ids or None
    results: list[dict[str, Any]] = []
    broken = 0
    try:
        for image_id, (file, target) in enumerate(zip(files, targets, strict=True), start=1):
            started = time.monotonic()
            try:
                found = detector.predict(file, **options)
                _write_picture(found, target)
            except ImageError as error:
                print(f"error: {error}", file=sys.stderr)
                broken += 1
                continue
            results += [{**row, "file_name": str(file)} for row in found.to_coco(image_id, category_ids)]
            line = {"file": str(file), "picture": str(target), "detections": found.to_records()}
            print(json.dumps(line) if as_json else f"{found} {time.monotonic() - started:.2f} s")
    finally:
        _write_results(results, output)
    if not as_json:
        print(f"wrote {len(files) - broken} pictures and results.json to {output}")
    return 1 if broken else 0


def _files(sources: Sequence[str]) -> list[Path]:
    """All files that the sources stand for, each once; a missing one is left to be named later."""
    from fasterrcnn.inference.sources import find_files, is_many

    if not sources:
        raise UsageError("name at least one picture, folder or glob")
    found = [file for source in sources for file in (find_files(source) if is_many(source) else [Path(source)])]
    return list(dict.fromkeys(found))


def _targets(files: Sequence[Path], output: Path) -> list[Path]:
    """Where each annotated picture goes: its own name with .jpg, numbered where two would collide.

    Raises:
        UsageError: an annotated picture could replace a photograph beside one of the sources.
    """
    taken: set[Path] = set()
    targets = []
    for file in files:
        target, number = output / f"{file.stem}.jpg", 1
        while target in taken:
            number += 1
            target = output / f"{file.stem}-{number}.jpg"
        taken.add(target)
        targets.append(target)
    if output.resolve() in {file.resolve().parent for file in files}:
        raise UsageError(f"{output} holds pictures that are read; give another output folder")
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file, not a folder")
    output.mkdir(parents=True, exist_ok=True)
    return targets


def _write_picture(found: Any, target: Path) -> None:
    unfinished = target.with_name(f".{target.name}")
    try:
        found.plot().save(unfinished, format="JPEG", quality=90)
        unfinished.replace(target)
    except (OSError, ValueError) as error:  # a side beyond 65,500 pixels, a full disk
        raise ImageError(f"{target}: cannot be written ({error})") from None
    finally:
        unfinished.unlink(missing_ok=True)


def _write_results(results: list[dict[str, Any]], output: Path) -> None:
    unfinished = output / ".results.json"
    unfinished.write_text(json.dumps(results, indent=1), encoding="utf-8")
    unfinished.replace(output / "results.json")
