"""``fasterrcnn train``: fine-tune a detector on annotated images."""

import json
from dataclasses import asdict, make_dataclass
from pathlib import Path
from typing import Annotated, Any, cast

from cyclopts import Parameter

from fasterrcnn.cli.options import OUTPUT, Json, Reading, on_terminal
from fasterrcnn.config import TrainConfig

_OPTIONS = (
    *("weights", "recipe", "epochs", "batch_size", "optimizer", "learning_rate", "short_side", "augmentation"),
    *("pixel_range", "bands"),
    *("anchors", "freeze", "unfreeze_at", "cache_features", "class_balance", "patience", "on_bad_box", "workers"),
    *("split", "val_split", "precision", "devices", "logger", "deterministic", "seed", "device"),
)
"""Fields of `TrainConfig` with an option of their own; all others are set by ``--set``."""


def _option(name: str) -> tuple[str, Any, Any]:
    """Name, type and default of an option; an option that is left out has the value of the recipe."""
    field = TrainConfig.model_fields[name]
    assert field.description is not None
    text = field.description[0].upper() + field.description[1:] + "."
    return name, Annotated[cast(Any, field.annotation) | None, Parameter(help=text, negative="")], None


Settings = Parameter(name="*")(
    make_dataclass("Settings", map(_option, _OPTIONS), frozen=True, namespace={"__module__": __name__})
)
_NONE_GIVEN = Settings()


def train(
    data: Annotated[
        Path | None, Parameter(help="Folder or file of annotated images, in COCO, YOLO, CVAT... (not for --resume).")
    ] = None,
    /,
    *,
    model: Annotated[
        str | None, Parameter(help="Preset, for example efficientnet-lite0-fpn; default is resnet50-fpn.")
    ] = None,
    output: Annotated[
        Path | None, Parameter(name=OUTPUT, help="New folder for the run; default is below runs/.")
    ] = None,
    resume: Annotated[Path | None, Parameter(help="Folder of an interrupted run to continue.")] = None,
    config: Annotated[Path | None, Parameter(help="YAML file of settings, like the config.yaml of a run.")] = None,
    assignments: Annotated[
        list[str] | None, Parameter(name="--set", help="Any setting: epochs=3 model.regions.box_loss=giou ...")
    ] = None,
    settings: Settings = _NONE_GIVEN,  # type: ignore[valid-type]  # mypy does not know types that are made at run time
    reading: Reading = Reading(),
    as_json: Json = False,
) -> None:
    """Fine-tune a detector on annotated images.

    The run's folder gets best.safetensors, last.safetensors and a README.md that describes all files. Options that
    are left out have the values of the recipe; the run's config.yaml shows them all. With --json, one line an epoch.
    """
    annotated = None if data is None else reading.read(data)  # before torch is imported, so that errors come at once
    from fasterrcnn.training.fit import fit, is_main_process
    from fasterrcnn.training.progress import plain_numbers

    given = {name: value for name, value in asdict(settings).items() if value is not None}
    if given.get("weights") == "none":
        given["weights"] = None
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
