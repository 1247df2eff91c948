"""``fasterrcnn data convert``: one format into another."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from fasterrcnn.cli.options import DataSource, Reading


def convert(
    data: DataSource,
    /,
    *,
    to: Annotated[Literal["coco", "voc", "yolo"], Parameter(help="Format to write.")],
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="New folder, for pictures and annotations.")],
    reading: Reading = Reading(),
) -> None:
    """Write a data set in another format, pictures included; boxes stay exactly as they are, good or bad."""
    from fasterrcnn.data.convert import write_data
    from fasterrcnn.data.doctor.boxes import check_values
    from fasterrcnn.data.findings import errors_of, refuse

    annotated = reading.read(data)
    refuse(annotated.findings, annotated.root)
    print(annotated.summary())
    wrong = errors_of(check_values(annotated))
    if wrong:
        print(f"note: {len(wrong)} errors in the boxes are converted as they are (see data check), first: {wrong[0]}")
    for note in write_data(annotated, output, to):
        print(f"note: {note}")
    print(f"wrote {output}")
