"""``fasterrcnn evaluate``: how good a detector is on a split of a data set, and where it goes wrong."""

import json
import sys
from pathlib import Path
from typing import Annotated, Unpack

from cyclopts import Parameter

from fasterrcnn.cli.options import OUTPUT, Json, LoadOptions, OnBadBox, Reading, Weights, on_terminal
from fasterrcnn.errors import UsageError
from fasterrcnn.evaluation.options import EvaluateOptions


def evaluate(
    weights: Weights,
    data: Annotated[
        Path | None,
        Parameter(help="Folder or file of annotated images; with --results, DATA alone is enough."),
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
            name=OUTPUT,
            help="Also write a report here: a page (.html), numbers (.json), or a folder with both and tables.",
        ),
    ] = None,
    on_bad_box: OnBadBox = "error",
    reading: Reading = Reading(),
    batch_size: Annotated[
        int | None, Parameter(help="Images in a batch. Default: 1, on a CUDA GPU 8.", show_default=False)
    ] = None,
    loading: LoadOptions = LoadOptions(),
    as_json: Json = False,
    **options: Unpack[EvaluateOptions],
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
        None if results is not None else loading.load(weights),
        annotated,
        split=split,
        results=results,
        against=against,
        batch_size=batch_size,
        on_bad_box=on_bad_box,
        progress=on_terminal() and not as_json,
        name=None if results is not None else weights,
        **options,
    )
    print(json.dumps(report.to_dict()) if as_json else report)
    if output is not None:
        report.save(output)


def _data(weights: str, data: Path | None, results: Path | None) -> Path:
    """The data set: with results, it may be the only thing that is named."""
    if data is None:
        if results is None:
            raise UsageError("give weights and a data set: fasterrcnn evaluate WEIGHTS DATA")
        return Path(weights)
    if results is not None:
        print(f"note: the detections of {results} are measured; {weights} is not used", file=sys.stderr)
    return data
