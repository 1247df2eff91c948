"""``fasterrcnn data anchors``: anchors fitted to the objects."""

import json
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fasterrcnn.cli.options import DataSource, Json, OnBadBox, Reading


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
    from fasterrcnn.data.anchor_fit import fit_anchors, input_boxes, input_labels
    from fasterrcnn.data.doctor import admit

    config = presets.get(model)
    data_set = admit(reading.read(data), on_bad_box).data
    records = data_set.split(split or data_set.training_split)
    boxes, labels = input_boxes(records, config.input), input_labels(records)
    fit = fit_anchors(boxes, config.anchors, build.anchor_strides(config), labels=labels, seed=seed)
    print(json.dumps(fit.to_dict()) if as_json else f"{fit}\n\n{fit.to_yaml()}")
    for path in output or ():
        fit.save(path)
        print(f"wrote {path}", file=sys.stderr)
