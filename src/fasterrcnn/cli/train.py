"""``fasterrcnn train``: fine-tune a detector on annotated pictures."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from fasterrcnn.cli.options import Device, Json, on_terminal


def train(
    data: Annotated[Path, Parameter(help="Folder with a Pascal VOC data set.")],
    /,
    *,
    model: Annotated[str, Parameter(help="Preset, for example efficientnet-lite0-fpn or resnet50-fpn.")],
    output: Annotated[
        Path | None,
        Parameter(name=["--output", "-o"], help="New folder for the run; default is below runs/."),
    ] = None,
    weights: Annotated[
        str | None, Parameter(help='Start: "imagenet", "coco", a checkpoint file, or "none" for random.')
    ] = None,
    epochs: Annotated[int | None, Parameter(help="Passes over the training pictures.")] = None,
    batch_size: Annotated[int | None, Parameter(help="Pictures per step.")] = None,
    optimizer: Annotated[Literal["adamw", "sgd"] | None, Parameter(help="Optimiser.")] = None,
    learning_rate: Annotated[float | None, Parameter(help="Highest learning rate.")] = None,
    short_side: Annotated[int | None, Parameter(help="Pixels of the network input's short side.")] = None,
    split: Annotated[str | None, Parameter(help='Training split; default is "train".')] = None,
    val_split: Annotated[str | None, Parameter(help='Validation split; default is "val".')] = None,
    seed: Annotated[int | None, Parameter(help="Of everything random.")] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Fine-tune a detector on annotated pictures.

    Writes last.safetensors, config.yaml and metrics.csv into the run's folder. Options that are left out have
    the values of the recipe; the run's config.yaml shows them all.
    """
    from fasterrcnn.training.fit import fit

    given: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": batch_size,
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "short_side": short_side,
        "split": split,
        "val_split": val_split,
        "seed": seed,
        "device": device,
    }
    options = {name: value for name, value in given.items() if value is not None}
    if weights is not None:
        options["weights"] = None if weights == "none" else weights
    run = fit(
        data,
        model=model,
        output=output,
        progress=on_terminal() and not as_json,
        say=None if as_json else print,
        **options,
    )
    if as_json:
        print(json.dumps({"run": str(run.path), "last": str(run.last), "metrics": run.metrics}))
    else:
        print(f"wrote {run.last}")
        print(f"next: fasterrcnn predict {run.last} PICTURE.jpg -o seen")
