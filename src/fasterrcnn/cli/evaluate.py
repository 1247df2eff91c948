"""``fasterrcnn evaluate``: COCO's numbers on a split of a data set."""

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fasterrcnn.cli.options import (
    BatchSize,
    DataSource,
    Device,
    Json,
    Names,
    OnBadBox,
    Preset,
    Reading,
    Style,
    Weights,
    on_terminal,
    tell,
)


def evaluate(
    weights: Weights,
    data: DataSource,
    /,
    *,
    split: Annotated[str, Parameter(help="Which pictures.")] = "test",
    output: Annotated[Path | None, Parameter(name=["--output", "-o"], help="Also write the numbers here.")] = None,
    on_bad_box: OnBadBox = "error",
    reading: Reading = Reading(),
    batch_size: BatchSize = 1,
    names: Names = None,
    preset: Preset = None,
    style: Style = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Measure a detector: the 12 COCO numbers, and AP of each class."""
    from fasterrcnn.inference.detector import load
    from fasterrcnn.inference.evaluate import evaluate as measure

    annotated = reading.read(data)
    detector = load(weights, classes=names, preset=preset, style=style, device=device, say=tell)
    report = measure(
        detector,
        annotated,
        split=split,
        batch_size=batch_size,
        on_bad_box=on_bad_box,
        progress=on_terminal() and not as_json,
    )
    print(json.dumps(report.to_dict()) if as_json else report)
    if output is not None:
        report.save(output)
