"""``fasterrcnn explain``: a page that shows what a detector does with an image, and why it misses objects."""

import json
from pathlib import Path
from typing import Annotated, Unpack

from cyclopts import Parameter

from fasterrcnn.cli.options import OUTPUT, Json, LoadOptions, OnBadBox, Weights
from fasterrcnn.inference.options import PostprocessOptions


def explain(
    weights: Weights,
    image: Annotated[Path, Parameter(help="The image.")],
    /,
    *,
    output: Annotated[Path | None, Parameter(name=OUTPUT, help="New folder; default is runs/explain-N.")] = None,
    ground_truth: Annotated[
        Path | None,
        Parameter(help='The annotated objects: JSON [{"box": [x1, y1, x2, y2], "name": "cat"}, ...], or a data set.'),
    ] = None,
    score: Annotated[float, Parameter(help="Lowest score, 0 to 1.")] = 0.5,
    min_iou: Annotated[float, Parameter(help="From which overlap on a box has found an object.")] = 0.5,
    on_bad_box: OnBadBox = "error",
    loading: LoadOptions = LoadOptions(),
    as_json: Json = False,
    **selection: Unpack[PostprocessOptions],
) -> None:
    """Show every step of a detector on one image, and with --ground-truth the step at which it lost each object.

    Writes index.html, which needs nothing beside it, each figure as PNG, and explain.json with the numbers.
    """
    from fasterrcnn.explanation.explain import explain as explain_image
    from fasterrcnn.files import check_output, make_folder

    check_output(output)
    detector = loading.load(weights)
    explanation = explain_image(
        detector, image, ground_truth=ground_truth, score=score, min_iou=min_iou, on_bad_box=on_bad_box, **selection
    )
    folder = explanation.save(make_folder(output, "explain"))
    if as_json:
        print(json.dumps({"folder": str(folder), **explanation.to_dict()}))
        return
    print(explanation)
    print(f"wrote {folder / 'index.html'}, {len(explanation.figures)} figures and explain.json")
