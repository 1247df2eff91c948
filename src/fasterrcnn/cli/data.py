"""``fasterrcnn data anchors``: anchors fitted to the objects."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from fasterrcnn.cli.options import DataSource, Json, OnBadBox, Reading, on_terminal
from fasterrcnn.errors import DataError

if TYPE_CHECKING:
    from fasterrcnn.data.annotations import AnnotatedImage
    from fasterrcnn.data.checks import Diagnosis


def anchors(
    data: DataSource,
    /,
    *,
    model: Annotated[str, Parameter(help="Preset whose anchors are fitted.")] = "resnet50-fpn",
    split: Annotated[str | None, Parameter(help='Whose boxes; default is "train" where there is one.')] = None,
    output: Annotated[
        list[Path] | None,
        Parameter(name=["--output", "-o"], help="Write .yaml for train --anchors, or .html with a plot.", negative=""),
    ] = None,
    seed: Annotated[int, Parameter(help="Of the search.")] = 0,
    on_bad_box: OnBadBox = "drop",
    reading: Reading = Reading(),
    as_json: Json = False,
) -> None:
    """Fit the sizes and ratios of anchors to the objects, as the network sees them; says what share they reach."""
    from fasterrcnn import build, presets
    from fasterrcnn.data.anchors import fit_anchors, input_boxes, input_labels
    from fasterrcnn.data.checks import admit

    config = presets.get(model)
    data_set = admit(reading.read(data), on_bad_box).data
    records = data_set.split(split or data_set.training_split)
    boxes, labels = input_boxes(records, config.input), input_labels(records)
    fit = fit_anchors(boxes, config.anchors, build.anchor_strides(config), labels=labels, seed=seed)
    print(json.dumps(fit.to_dict()) if as_json else f"{fit}\n\n{fit.to_yaml()}")
    for path in output or ():
        fit.save(path)
        print(f"wrote {path}", file=sys.stderr)


def check(
    data: DataSource,
    /,
    *,
    reading: Reading = Reading(),
    model: Annotated[str, Parameter(help="Preset whose input size decides what is too small.")] = "resnet50-fpn",
    report: Annotated[Path | None, Parameter(help="Also write a page with images and boxes (.html).")] = None,
    fix: Annotated[Path | None, Parameter(help="New folder for a repaired COCO copy and a log of changes.")] = None,
    quick: Annotated[bool, Parameter(negative="", help="Read only the headers of images, do not decode them.")] = False,
    show_all: Annotated[bool, Parameter(name="--all", negative="", help="Show every finding.")] = False,
    as_json: Json = False,
) -> int:
    """Find what is wrong with a data set: files, boxes, classes, splits, images that are there twice.

    The data set itself is never touched. Exit code: 0 without errors, 2 with errors.
    """
    from fasterrcnn import presets
    from fasterrcnn.data.checks import check_data
    from fasterrcnn.files import check_output

    config = presets.get(model).input
    check_output(fix)
    diagnosis = check_data(reading.read(data), config, images=not quick, track=_track)
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


def _track(records: "Iterable[AnnotatedImage]", total: int) -> "Iterable[AnnotatedImage]":
    from rich.progress import track

    return track(records, "looking at images", total, disable=not on_terminal())


def _write_fixed(diagnosis: "Diagnosis", folder: Path) -> None:
    """The repaired copy, and beside its annotations what was changed."""
    from fasterrcnn.data.checks import repair
    from fasterrcnn.data.convert import write_data
    from fasterrcnn.files import write_text

    repaired = repair(diagnosis.data, "fix", diagnosis.findings, copies_too=True)
    if not repaired.data.records:
        raise DataError(f"{diagnosis.data.root}: no image can be kept, so there is no copy to write")
    notes = write_data(repaired.data, folder, "coco")
    lines = [f"{len(repaired.changes)} changes, made to a copy of {diagnosis.data.root}", *repaired.changes, *notes]
    write_text(folder / "changes.txt", "\n".join(lines) + "\n")
    print(f"wrote a repaired copy to {folder}: {len(repaired.changes)} changes, see changes.txt", file=sys.stderr)


def convert(
    data: DataSource,
    /,
    *,
    to: Annotated[Literal["coco", "voc", "yolo"], Parameter(help="Format to write.")],
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="New folder, for images and annotations.")],
    reading: Reading = Reading(),
) -> None:
    """Write a data set in another format, images included; boxes stay exactly as they are, good or bad."""
    from fasterrcnn.data.checks.boxes import check_values
    from fasterrcnn.data.convert import write_data
    from fasterrcnn.data.findings import errors_of, refuse

    annotated = reading.read(data)
    refuse(annotated.findings, annotated.root)
    print(annotated.summary())
    wrong = errors_of(check_values(annotated))
    if wrong:
        print(f"note: {len(wrong)} errors in the boxes are converted as they are (see data check), first: {wrong[0]}")
    for note in write_data(annotated, output, to):
        print(f"note: {note}")
    print(f"wrote {output}")


def show(
    data: DataSource,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="Image to write, .jpg or .png.")],
    model: Annotated[str, Parameter(help="Preset whose input is meant.")] = "resnet50-fpn",
    augmentation: Annotated[
        Literal["none", "light", "default", "strong"], Parameter(help="How much the images are varied.")
    ] = "default",
    split: Annotated[str | None, Parameter(help='Whose images; default is "train" where there is one.')] = None,
    count: Annotated[int, Parameter(help="Images to show.")] = 6,
    seed: Annotated[int, Parameter(help="Of the choice and the variations.")] = 0,
    on_bad_box: OnBadBox = "drop",
    reading: Reading = Reading(),
) -> None:
    """Draw what the network will see, before and after augmentation, with its boxes, into one image."""
    from fasterrcnn import presets
    from fasterrcnn.data.checks import admit
    from fasterrcnn.data.show import draw_views

    config = presets.get(model).input
    data_set = admit(reading.read(data), on_bad_box).data
    records = data_set.split(split or data_set.training_split)
    output.parent.mkdir(parents=True, exist_ok=True)
    draw_views(data_set, records, config, augmentation, count, seed).save(output)
    print(f"wrote {output}")


def split(
    data: DataSource,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="New folder, for images and annotations.")],
    train: Annotated[float, Parameter(help="Share of the images to learn from.")] = 0.7,
    val: Annotated[float, Parameter(help="Share to watch the training with.")] = 0.15,
    test: Annotated[float, Parameter(help="Share to measure on at the end.")] = 0.15,
    group: Annotated[
        str | None,
        Parameter(help='Regular expression: file names with the same match stay together, "(patient\\d+)_".'),
    ] = None,
    seed: Annotated[int, Parameter(help="The same seed gives the same splits.")] = 0,
    to: Annotated[Literal["coco", "voc", "yolo"], Parameter(help="Format to write.")] = "coco",
    reading: Reading = Reading(),
) -> None:
    """Divide a data set anew: every class in every split, near-identical images never in two."""
    from fasterrcnn.data.convert import write_data
    from fasterrcnn.data.findings import refuse
    from fasterrcnn.data.split import split_data
    from fasterrcnn.files import check_output

    annotated = reading.read(data)
    refuse(annotated.findings, annotated.root)
    fractions = {name: share for name, share in (("train", train), ("val", val), ("test", test)) if share}
    check_output(output)
    divided = split_data(annotated, fractions, seed=seed, pattern=group, progress=on_terminal())
    print(divided.data.summary())
    if divided.kept_together:
        print(f"{divided.kept_together} images were kept with others that show the same or belong to their group")
    for note in write_data(divided.data, output, to):
        print(f"note: {note}")
    print(f"wrote {output}")


def stats(
    data: DataSource,
    /,
    *,
    reading: Reading = Reading(),
    model: Annotated[str, Parameter(help="Preset whose input size is meant.")] = "resnet50-fpn",
    output: Annotated[
        Path | None, Parameter(name=["--output", "-o"], help="Also write a page with charts (.html), or .json.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Count and measure the objects of a data set, at the size the network sees them."""
    from fasterrcnn import presets
    from fasterrcnn.data.statistics import describe

    config = presets.get(model).input
    statistics = describe(reading.read(data), config)
    print(json.dumps(statistics.to_dict()) if as_json else statistics)
    if output is not None:
        statistics.save(output)
        print(f"wrote {output}", file=sys.stderr)
