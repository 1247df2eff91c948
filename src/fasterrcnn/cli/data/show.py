"""``fasterrcnn data show``: what the network will see."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from fasterrcnn.cli.options import DataSource, OnBadBox, Reading


def show(
    data: DataSource,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="Picture to write, .jpg or .png.")],
    model: Annotated[str, Parameter(help="Preset whose input is meant.")] = "resnet50-fpn",
    augmentation: Annotated[
        Literal["none", "light", "default", "strong"], Parameter(help="How much the pictures are varied.")
    ] = "default",
    split: Annotated[str | None, Parameter(help='Whose pictures; default is "train" where there is one.')] = None,
    count: Annotated[int, Parameter(help="Pictures to show.")] = 6,
    seed: Annotated[int, Parameter(help="Of the choice and the variations.")] = 0,
    on_bad_box: OnBadBox = "drop",
    reading: Reading = Reading(),
) -> None:
    """Draw what the network will see, before and after augmentation, with its boxes, into one picture."""
    from fasterrcnn import presets
    from fasterrcnn.data.doctor import admit
    from fasterrcnn.data.show import draw_views

    config = presets.get(model).input
    data_set = admit(reading.read(data), on_bad_box).data
    records = data_set.split(split or data_set.training_split)
    output.parent.mkdir(parents=True, exist_ok=True)
    draw_views(data_set, records, config, augmentation, count, seed).save(output)
    print(f"wrote {output}")
