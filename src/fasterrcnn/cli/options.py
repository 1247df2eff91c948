"""Types of options that several commands share."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

Weights = Annotated[
    Path, Parameter(help="Checkpoint: .safetensors of this library, or a torchvision Faster R-CNN .pth.")
]
Device = Annotated[str | None, Parameter(help="cpu, cuda or mps; default is the best there is.")]
Names = Annotated[
    list[str] | None,
    Parameter(help="Class names, for a checkpoint that has none.", consume_multiple=True, negative=""),
]
Preset = Annotated[str | None, Parameter(help="Architecture of a torchvision file whose keys do not tell.")]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON instead of text.")]
BatchSize = Annotated[int, Parameter(help="Pictures that pass the network together.")]


def on_terminal() -> bool:
    """Whether a person watches, so that a progress bar makes sense."""
    return sys.stderr.isatty() and sys.stdout.isatty()
