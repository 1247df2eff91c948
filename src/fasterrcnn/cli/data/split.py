"""``fasterrcnn data split``: train, val and test."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from fasterrcnn.cli.options import DataSource, Reading, on_terminal


def split(
    data: DataSource,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="New folder, for pictures and annotations.")],
    train: Annotated[float, Parameter(help="Share of the pictures to learn from.")] = 0.7,
    val: Annotated[float, Parameter(help="Share to watch the training with.")] = 0.15,
    test: Annotated[float, Parameter(help="Share to measure on at the end.")] = 0.15,
    group: Annotated[
        str | None,
        Parameter(help='Regular expression: file names with the same match stay together, "(patient\\d+)_".'),
    ] = None,
    seed: Annotated[int, Parameter(help="The same seed gives the same splits.")] = 0,
    to: Annotated[Literal["coco", "voc", "yolo"], Parameter(help="Format to write.")] = "coco",
    reading: Reading = Reading(),
) -> None:
    """Divide a data set anew: every class in every split, near-identical pictures never in two."""
    from fasterrcnn.data.convert import write_data
    from fasterrcnn.data.findings import refuse
    from fasterrcnn.data.folders import check_output
    from fasterrcnn.data.split import split_data

    annotated = reading.read(data)
    refuse(annotated.findings, annotated.root)
    fractions = {name: share for name, share in (("train", train), ("val", val), ("test", test)) if share}
    check_output(output)
    divided = split_data(annotated, fractions, seed=seed, pattern=group, progress=on_terminal())
    print(divided.data.summary())
    if divided.kept_together:
        print(f"{divided.kept_together} pictures were kept with others that show the same or belong to their group")
    for note in write_data(divided.data, output, to):
        print(f"note: {note}")
    print(f"wrote {output}")
