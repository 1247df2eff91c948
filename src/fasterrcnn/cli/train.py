"""``fasterrcnn train``: fine-tune a detector on annotated pictures."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from fasterrcnn.cli.options import DataSource, Device, Json, OnBadBox, Reading, on_terminal


@Parameter(name="*")
@dataclass(frozen=True)
class Settings:
    """What a run may do otherwise than the recipe says; left out, the values of the recipe hold."""

    weights: Annotated[
        str | None, Parameter(help='Start: "imagenet", "coco", a checkpoint file, or "none" for random.')
    ] = None
    epochs: Annotated[int | None, Parameter(help="Passes over the training pictures.")] = None
    batch_size: Annotated[int | None, Parameter(help="Pictures per step.")] = None
    optimizer: Annotated[Literal["adamw", "sgd"] | None, Parameter(help="Optimiser.")] = None
    learning_rate: Annotated[float | None, Parameter(help="Highest learning rate.")] = None
    short_side: Annotated[int | None, Parameter(help="Pixels of the network input's short side.")] = None
    augmentation: Annotated[
        Literal["none", "light", "default", "strong"] | None, Parameter(help="How much training pictures are varied.")
    ] = None
    anchors: Annotated[
        str | None,
        Parameter(help='"auto" fits them to the objects, "preset" keeps the model\'s, or a YAML file has them.'),
    ] = None
    on_bad_box: OnBadBox = "error"
    workers: Annotated[int | None, Parameter(help="Processes that load pictures.")] = None
    split: Annotated[str | None, Parameter(help='Training split; default is "train".')] = None
    val_split: Annotated[str | None, Parameter(help='Validation split; default is "val".')] = None
    seed: Annotated[int | None, Parameter(help="Of everything random.")] = None
    device: Device = None

    def given(self) -> dict[str, Any]:
        """The settings that were said, as `fit` takes them."""
        said = {name: value for name, value in asdict(self).items() if value is not None}
        return {**said, "weights": None} if said.get("weights") == "none" else said


def train(
    data: DataSource,
    /,
    *,
    model: Annotated[str, Parameter(help="Preset, for example efficientnet-lite0-fpn or resnet50-fpn.")],
    output: Annotated[
        Path | None,
        Parameter(name=["--output", "-o"], help="New folder for the run; default is below runs/."),
    ] = None,
    settings: Settings = Settings(),
    reading: Reading = Reading(),
    as_json: Json = False,
) -> None:
    """Fine-tune a detector on annotated pictures.

    Writes last.safetensors, config.yaml, data.txt and metrics.csv into the run's folder. Options that are left out have
    the values of the recipe; the run's config.yaml shows them all.
    """
    annotated = reading.read(data)  # before torch is imported: mistakes in the data are told at once
    from fasterrcnn.training.fit import fit

    run = fit(
        annotated,
        model=model,
        output=output,
        progress=on_terminal() and not as_json,
        say=None if as_json else print,
        **settings.given(),
    )
    if as_json:
        print(json.dumps({"run": str(run.path), "last": str(run.last), "metrics": run.metrics}))
    else:
        print(f"wrote {run.last}")
        print(f"next: fasterrcnn predict {run.last} PICTURE.jpg -o seen")
