"""``fasterrcnn data ...``: check, convert, split, show and count annotated images, and fit anchors to them."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from fasterrcnn.cli.options import OUTPUT, DataSource, Json, OnBadBox, Reading, log, on_terminal
from fasterrcnn.data.findings import MAX_EXAMPLES, MAX_LINE
from fasterrcnn.errors import DataError

if TYPE_CHECKING:
    from fasterrcnn.data.annotations import AnnotatedData
    from fasterrcnn.data.checks import DataReport

InputOf = Annotated[str, Parameter(help="Preset whose input size is used.")]
NewFolder = Annotated[Path, Parameter(name=OUTPUT, help="New folder, for images and annotations.")]
WrittenFormat = Annotated[str, Parameter(help="Format to write, such as coco or yolo; a wrong name lists all.")]


def anchors(
    data: DataSource,
    /,
    *,
    model: Annotated[str, Parameter(help="Preset whose anchors are fitted.")] = "resnet50-fpn",
    split: Annotated[str | None, Parameter(help='Whose boxes; default is "train" where there is one.')] = None,
    output: Annotated[
        list[Path] | None,
        Parameter(name=OUTPUT, help="Write .yaml for train --anchors, or .html with a plot.", negative=""),
    ] = None,
    seed: Annotated[int, Parameter(help="Of the search.")] = 0,
    on_bad_box: OnBadBox = "drop",
    reading: Reading = Reading(),
    as_json: Json = False,
) -> None:
    """Fit the sizes and ratios of anchors to the objects at the network's input size, and report what they cover."""
    from fasterrcnn import build, presets
    from fasterrcnn.data.anchors import fit_anchors, input_boxes, input_labels
    from fasterrcnn.data.checks import check_and_repair

    config = presets.get(model)
    annotated = reading.read(data)
    data_set = check_and_repair(annotated, on_bad_box).data
    _log_errors(annotated)
    images = data_set.split(split or data_set.training_split)
    boxes, labels = input_boxes(images, config.input), input_labels(images)
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
    model: Annotated[
        str, Parameter(help="Preset whose input size decides which boxes are too small.")
    ] = "resnet50-fpn",
    report: Annotated[Path | None, Parameter(help="Also write a page with images and boxes (.html).")] = None,
    fix: Annotated[Path | None, Parameter(help="New folder for a repaired COCO copy and a log of changes.")] = None,
    quick: Annotated[bool, Parameter(negative="", help="Read only the headers of images, do not decode them.")] = False,
    show_all: Annotated[bool, Parameter(name="--all", negative="", help="Show every finding.")] = False,
    as_json: Json = False,
) -> int:
    """Find what is wrong with a data set: files, boxes, classes, splits, duplicate images.

    The data set itself is never changed. Exit code: 0 without errors, 2 with errors.
    """
    from rich.progress import track

    from fasterrcnn import presets
    from fasterrcnn.data.checks import check_data
    from fasterrcnn.files import check_output

    config = presets.get(model).input
    check_output(fix)
    data_report = check_data(
        reading.read(data),
        config,
        images=not quick,
        track=lambda images, total: track(images, "checking images", total, disable=not on_terminal()),
    )
    if as_json:
        print(json.dumps(data_report.to_dict(), allow_nan=False))
    else:
        print(data_report.to_text(examples=None if show_all else MAX_EXAMPLES))
        if fix is None:
            _print_what_fix_does(data_report)
    if report is not None:
        data_report.save(report)
        print(f"wrote {report}", file=sys.stderr)
    if fix is not None:
        _write_fixed(data_report, fix)
    return 2 if data_report.counts["error"] else 0


def _print_what_fix_does(data_report: "DataReport") -> None:
    """One line about the repaired copy, where there would be a change."""
    from fasterrcnn.data.checks.repair import NO_CHANGE, repair
    from fasterrcnn.data.findings import count_of

    repaired = repair(data_report.data, "fix", data_report.findings, duplicates_too=True)
    counts = {done: count for done, count in repaired.counts.items() if done not in NO_CHANGE}
    if counts and repaired.data.images:
        shown = ", ".join(f"{done}: {count:,}" for done, count in counts.items())
        print(f"--fix NEW writes a repaired copy, with {count_of(sum(counts.values()), 'change')}: {shown}")


def _log_errors(data: "AnnotatedData") -> None:
    """One line where the files have errors, so that numbers are not taken for those of the whole data set."""
    from fasterrcnn.data.findings import count_of, group_by_kind, only_errors

    errors = only_errors(data.findings)
    if errors:
        kinds = ", ".join(f"{kind}: {len(members):,}" for kind, members in group_by_kind(errors).items())
        count = count_of(len(errors), "error")
        log(f"note: {count} ({kinds}); what is concerned takes no part; see fasterrcnn data check")


def _write_fixed(data_report: "DataReport", folder: Path) -> None:
    """The repaired copy, and a list of the changes."""
    from fasterrcnn.data.checks import repair
    from fasterrcnn.data.formats import write_data
    from fasterrcnn.files import write_text

    repaired = repair(data_report.data, "fix", data_report.findings, duplicates_too=True)
    if not repaired.data.images:
        raise DataError(f"{data_report.data.root}: no image can be kept, so there is no copy to write")
    notes = write_data(repaired.data, folder, "coco")
    lines = [f"{len(repaired.changes)} changes, made to a copy of {data_report.data.root}", *repaired.changes, *notes]
    write_text(folder / "changes.txt", "\n".join(lines) + "\n")
    print(f"wrote a repaired copy to {folder}: {len(repaired.changes)} changes, see changes.txt", file=sys.stderr)


def convert(data: DataSource, /, *, to: WrittenFormat, output: NewFolder, reading: Reading = Reading()) -> None:
    """Write a data set in another format, images included; boxes stay exactly as they are, valid or not."""
    from fasterrcnn.data.checks.boxes import check_values
    from fasterrcnn.data.checks.classes import check_for_boxes
    from fasterrcnn.data.findings import count_of, only_errors, raise_on_errors

    annotated = reading.read(data)
    raise_on_errors([*annotated.findings, *check_for_boxes(annotated)], annotated.root)
    print("\n".join(annotated.describe()))
    wrong = only_errors(check_values(annotated))
    if wrong:
        first = wrong[0].line(MAX_LINE // 2)
        print(f"note: {count_of(len(wrong), 'error')} in the boxes stay as they are (see data check), first: {first}")
    _write(annotated, output, to)


def _write(data: "AnnotatedData", output: Path, to: str) -> None:
    from fasterrcnn.data.formats import write_data

    for note in write_data(data, output, to):
        print(f"note: {note}")
    print(f"wrote {output}")


def show(
    data: DataSource,
    /,
    *,
    output: Annotated[Path, Parameter(name=OUTPUT, help="Image to write, .jpg or .png.")],
    model: InputOf = "resnet50-fpn",
    augmentation: Annotated[
        Literal["none", "light", "default", "strong"], Parameter(help="How much the images are varied.")
    ] = "default",
    split: Annotated[str | None, Parameter(help='Whose images; default is "train" where there is one.')] = None,
    count: Annotated[int, Parameter(help="Images to show.")] = 6,
    seed: Annotated[int, Parameter(help="Of the choice and the variations.")] = 0,
    on_bad_box: OnBadBox = "drop",
    reading: Reading = Reading(),
) -> None:
    """Draw the input of the network, before and after augmentation, with its boxes, into one image."""
    from fasterrcnn import presets
    from fasterrcnn.data.checks import check_and_repair
    from fasterrcnn.data.dataset import draw_augmented

    config = presets.get(model).input
    annotated = reading.read(data)
    data_set = check_and_repair(annotated, on_bad_box).data
    _log_errors(annotated)
    images = data_set.split(split or data_set.training_split)
    output.parent.mkdir(parents=True, exist_ok=True)
    draw_augmented(data_set, images, config, augmentation, count, seed).save(output)
    print(f"wrote {output}")


def split(
    data: DataSource,
    /,
    *,
    output: NewFolder,
    train: Annotated[float | None, Parameter(help="Share of the images to train on; of 1, by default 0.7.")] = None,
    val: Annotated[float | None, Parameter(help="Share to validate on during training; by default 0.15.")] = None,
    test: Annotated[
        float | None, Parameter(help="Share to test on at the end; by default 0.15. Shares not given divide the rest.")
    ] = None,
    keep: Annotated[
        list[str] | None,
        Parameter(help="Splits that stay as they are, such as an official test; shares are of the other images."),
    ] = None,
    group: Annotated[
        str | None,
        Parameter(help='Regular expression: file names with the same match stay together, "(patient\\d+)_".'),
    ] = None,
    seed: Annotated[int, Parameter(help="The same seed gives the same splits.")] = 0,
    to: WrittenFormat = "coco",
    reading: Reading = Reading(),
) -> None:
    """Split a data set again: every class in every split, nearly identical images never in two."""
    from fasterrcnn.data.checks.classes import check_for_boxes
    from fasterrcnn.data.findings import count_of, raise_on_errors
    from fasterrcnn.data.split import complete_fractions, split_data
    from fasterrcnn.files import check_output

    fractions = complete_fractions({"train": train, "val": val, "test": test}, keep or ())
    annotated = reading.read(data)
    raise_on_errors([*annotated.findings, *check_for_boxes(annotated)], annotated.root)
    check_output(output)
    divided = split_data(annotated, fractions, keep=keep or (), seed=seed, pattern=group, progress=on_terminal())
    print(divided.data.summary())
    if divided.kept_together:
        print(f"{count_of(divided.kept_together, 'image')} kept with others, as duplicates or by their group")
    if divided.left_out:
        print(f"{count_of(divided.left_out, 'image')} left out: duplicates of images in {', '.join(keep or ())}")
    _write(divided.data, output, to)


def stats(
    data: DataSource,
    /,
    *,
    reading: Reading = Reading(),
    model: InputOf = "resnet50-fpn",
    output: Annotated[
        Path | None, Parameter(name=OUTPUT, help="Also write a page with charts (.html), or .json.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Count and measure the objects of a data set at the network's input size."""
    from fasterrcnn import presets
    from fasterrcnn.data.checks.classes import check_for_boxes
    from fasterrcnn.data.findings import raise_on_errors
    from fasterrcnn.data.statistics import compute_statistics

    annotated = reading.read(data)
    raise_on_errors(check_for_boxes(annotated), annotated.root)
    _log_errors(annotated)
    statistics = compute_statistics(annotated, presets.get(model).input)
    print(json.dumps(statistics.to_dict()) if as_json else statistics)
    if output is not None:
        statistics.save(output)
        print(f"wrote {output}", file=sys.stderr)
