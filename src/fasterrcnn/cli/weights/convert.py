"""``fasterrcnn weights convert``: a detector from one kind of file to another."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from fasterrcnn.cli.options import Names, Preset, Style, Weights


def convert(
    source: Weights,
    target: Annotated[Path, Parameter(help="File to write: .safetensors, .pth (torchvision) or .pkl (Detectron2).")],
    /,
    *,
    to: Annotated[
        Literal["fasterrcnn", "torchvision", "detectron2"] | None,
        Parameter(help="Kind of file, where the name does not tell: a .pth may be Detectron2's, too."),
    ] = None,
    names: Names = None,
    preset: Preset = None,
    style: Style = None,
    norm_eps: Annotated[
        float | None, Parameter(help="Eps of the batch norms; 0 for a file fine-tuned from torchvision's resnet50-fpn.")
    ] = None,
) -> None:
    """Write a detector of any family as ours, with everything that belongs to it, or back in another's layout."""
    from fasterrcnn.build import convert_weights

    notes = convert_weights(
        source, target, to=to, classes=names, preset=preset, norm_eps=norm_eps, style=style, say=print
    )
    for line in notes:
        print(f"note: {line}")
    print(f"wrote {target}")
