"""``fasterrcnn evaluate``: how good a detector is on a split of a data set, and where it goes wrong."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fasterrcnn.cli.options import (
    BatchSize,
    Device,
    Json,
    Names,
    OnBadBox,
    Preset,
    Reading,
    Runtime,
    Style,
    Weights,
    log,
    on_terminal,
)
from fasterrcnn.errors import UsageError

if TYPE_CHECKING:
    from fasterrcnn.inference.detector import Detector


@Parameter(name="*")
@dataclass(frozen=True)
class Measures:
    """What to measure besides the plain numbers."""

    flip: Annotated[bool, Parameter(help="Measure also with each image's mirror image.", negative="")] = False
    scales: Annotated[
        list[float] | None,
        Parameter(help="Measure also with other sizes: 0.75 1.25 ...", consume_multiple=True, negative=""),
    ] = None
    soft_nms: Annotated[bool, Parameter(help="Measure also with soft-NMS.", negative="")] = False
    max_dets: Annotated[
        int | None, Parameter(help="Most detections of an image and class that count; default is COCO's 100.")
    ] = None
    proposals: Annotated[bool, Parameter(help="Measure also what the first stage reaches.")] = True
    bootstrap: Annotated[
        int | None, Parameter(help="Drawings of the images for the intervals; 0 for none, default is 500.")
    ] = None
    seed: Annotated[int, Parameter(help="Of the drawings.")] = 0
    voc_pixels: Annotated[
        bool, Parameter(help="Pascal VOC's numbers with corners that count as pixels.", negative="")
    ] = False

    def given(self) -> dict[str, Any]:
        """As `fasterrcnn.evaluate` takes them."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def evaluate(
    weights: Weights,
    data: Annotated[
        Path | None,
        Parameter(help="Folder or file in COCO, Pascal VOC, YOLO or CSV layout; with --results, DATA alone is enough."),
    ] = None,
    /,
    *,
    split: Annotated[str, Parameter(help="Which images.")] = "test",
    results: Annotated[
        Path | None, Parameter(help="Measure these detections of any model (COCO results) instead of weights.")
    ] = None,
    against: Annotated[
        Path | None, Parameter(help="Compare with these detections (COCO results, or the folder of another report).")
    ] = None,
    output: Annotated[
        Path | None,
        Parameter(
            name=["--output", "-o"],
            help="Also write a report here: a page (.html), numbers (.json), or a folder with both and tables.",
        ),
    ] = None,
    measures: Measures = Measures(),
    on_bad_box: OnBadBox = "error",
    reading: Reading = Reading(),
    batch_size: BatchSize = 1,
    names: Names = None,
    preset: Preset = None,
    style: Style = None,
    device: Device = None,
    runtime: Runtime = None,
    as_json: Json = False,
) -> None:
    """Measure a detector: the 12 COCO numbers with intervals, AP of each class, what the errors cost, and diagnoses.

    With --results, torch is not needed, and detections of any model can be measured.
    """
    from fasterrcnn.evaluation.evaluate import evaluate as measure
    from fasterrcnn.evaluation.report import check_target

    data = _data(weights, data, results)
    if output is not None:
        check_target(output)
    annotated = reading.read(data)
    report = measure(
        None if results is not None else _load(weights, names, preset, style, device, runtime),
        annotated,
        split=split,
        results=results,
        against=against,
        batch_size=batch_size,
        on_bad_box=on_bad_box,
        progress=on_terminal() and not as_json,
        name=None if results is not None else weights,
        **measures.given(),
    )
    print(json.dumps(report.to_dict()) if as_json else report)
    if output is not None:
        report.save(output)


def _load(weights: str, names: Names, preset: Preset, style: Style, device: Device, runtime: Runtime) -> "Detector":
    from fasterrcnn.inference.loading import load

    return load(weights, classes=names, preset=preset, style=style, device=device, runtime=runtime, log=log)


def _data(weights: str, data: Path | None, results: Path | None) -> Path:
    """The data set: with results, it may be the only thing that is named."""
    if data is None:
        if results is None:
            raise UsageError("give weights and a data set: fasterrcnn evaluate WEIGHTS DATA")
        return Path(weights)
    if results is not None:
        print(f"note: the detections of {results} are measured; {weights} is not used", file=sys.stderr)
    return data
