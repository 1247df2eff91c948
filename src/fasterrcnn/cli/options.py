"""Types of options that several commands share."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

Weights = Annotated[
    Path, Parameter(help="Checkpoint: .safetensors of this library, or a torchvision Faster R-CNN .pth.")
]
Device = Annotated[str | None, Parameter(help="cpu, cuda or mps; default is the best there is.")]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON instead of text.")]
BatchSize = Annotated[int, Parameter(help="Pictures that pass the network together.")]


def on_terminal() -> bool:
    """Whether a person watches, so that a progress bar makes sense."""
    return sys.stderr.isatty() and sys.stdout.isatty()
