"""``fasterrcnn train``: fine-tune a detector on annotated images."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from fasterrcnn.cli.options import Device, Json, OnBadBox, Reading, on_terminal

Assignments = Annotated[
    list[str] | None,
    Parameter(name="--set", help="Any setting: epochs=3 model.regions.box_loss=giou ..."),
]


@Parameter(name="*")
@dataclass(frozen=True)
class Settings:
    """What a run may do otherwise than the recipe says; left out, the values of the recipe hold."""

    weights: Annotated[
        str | None, Parameter(help='Start: "imagenet", "coco", a file of any family or its name, or "none" for random.')
    ] = None
    recipe: Annotated[
        Literal["quick", "standard", "best"] | None, Parameter(help="How much time there is: minutes, more, most.")
    ] = None
    epochs: Annotated[int | None, Parameter(help="Passes over the training images.")] = None
    batch_size: Annotated[int | None, Parameter(help="Images per step and process.")] = None
    optimizer: Annotated[Literal["adamw", "sgd"] | None, Parameter(help="Optimiser.")] = None
    learning_rate: Annotated[float | None, Parameter(help="Highest learning rate.")] = None
    short_side: Annotated[int | None, Parameter(help="Pixels of the network input's short side.")] = None
    augmentation: Annotated[
        Literal["none", "light", "default", "strong"] | None, Parameter(help="How much training images are varied.")
    ] = None
    anchors: Annotated[
        str | None,
        Parameter(help='"auto" fits them to the objects, "preset" keeps the model\'s, or a YAML file has them.'),
    ] = None
    freeze: Annotated[
        str | None, Parameter(help='Parts of the backbone that do not learn: a number, or "backbone".')
    ] = None
    unfreeze_at: Annotated[int | None, Parameter(help="Epoch from which everything learns.")] = None
    cache_features: Annotated[
        bool | None,
        Parameter(help="With --freeze backbone: run the backbone once, keep its maps on disk.", negative=""),
    ] = None
    class_balance: Annotated[
        Literal["none", "repeat", "weights", "focal"] | None, Parameter(help="What to do for rare classes.")
    ] = None
    patience: Annotated[int | None, Parameter(help="Epochs without a better AP before the run ends.")] = None
    on_bad_box: OnBadBox | None = None
    workers: Annotated[int | None, Parameter(help="Processes that load images.")] = None
    split: Annotated[str | None, Parameter(help='Training split; default is "train".')] = None
    val_split: Annotated[str | None, Parameter(help='Validation split; default is "val".')] = None
    precision: Annotated[Literal["float32", "bf16", "fp16"] | None, Parameter(help="Numbers of the network.")] = None
    devices: Annotated[int | None, Parameter(help="Processes that train together on this machine.")] = None
    logger: Annotated[str | None, Parameter(help='"tensorboard", "none", or any logger of Lightning.')] = None
    deterministic: Annotated[bool | None, Parameter(help="Equal bits from equal runs, on a GPU too.", negative="")] = (
        None
    )
    seed: Annotated[int | None, Parameter(help="Of everything random.")] = None
    device: Device = None

    def given(self) -> dict[str, Any]:
        """The settings that were said, as `fit` takes them."""
        said = {name: value for name, value in asdict(self).items() if value is not None}
        if said.get("freeze", "").isdigit():
            said["freeze"] = int(said["freeze"])
        return {**said, "weights": None} if said.get("weights") == "none" else said


def train(
    data: Annotated[
        Path | None, Parameter(help="Folder or file in COCO, Pascal VOC, YOLO or CSV layout (not for --resume).")
    ] = None,
    /,
    *,
    model: Annotated[
        str | None, Parameter(help="Preset, for example efficientnet-lite0-fpn; default is resnet50-fpn.")
    ] = None,
    output: Annotated[
        Path | None,
        Parameter(name=["--output", "-o"], help="New folder for the run; default is below runs/."),
    ] = None,
    resume: Annotated[Path | None, Parameter(help="Folder of an interrupted run to continue.")] = None,
    config: Annotated[Path | None, Parameter(help="YAML file of settings, like the config.yaml of a run.")] = None,
    assignments: Assignments = None,
    settings: Settings = Settings(),
    reading: Reading = Reading(),
    as_json: Json = False,
) -> None:
    """Fine-tune a detector on annotated images.

    The run's folder gets best.safetensors, last.safetensors and a README.md that says what else is in it. Options that
    are left out have the values of the recipe; the run's config.yaml shows them all. With --json, one line an epoch.
    """
    annotated = None if data is None else reading.read(data)  # before torch is imported: mistakes are told at once
    from fasterrcnn.training.fit import fit
    from fasterrcnn.training.progress import plain_numbers
    from fasterrcnn.training.trainer import is_main_process

    given = settings.given()
    if reading != Reading():
        given["reading"] = reading.to_dict()
    run = fit(
        annotated,
        model=model,
        output=output,
        resume=resume,
        config=config,
        assignments=assignments or (),
        progress=on_terminal() and not as_json,
        log=None if as_json else lambda line: print(line, flush=True),
        on_epoch=(lambda row: _print_event("epoch", **plain_numbers(row))) if as_json else None,
        **given,
    )
    if not is_main_process():
        return
    if as_json:
        files = {"run": str(run.path), "best": str(run.best), "last": str(run.last)}
        _print_event("end", **files, metrics=plain_numbers(run.metrics))
    else:
        print(f"wrote {run.best}")
        print(f"next: fasterrcnn predict {run.best} IMAGE.jpg -o seen")


def _print_event(event: str, **values: Any) -> None:
    print(json.dumps({"event": event, **values}), flush=True)
