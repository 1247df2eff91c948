"""``fasterrcnn data stats``: numbers and sizes of objects."""

import json
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fasterrcnn.cli.options import DataSource, Json, Reading


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
