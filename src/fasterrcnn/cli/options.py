"""Options that several commands share."""

import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from fasterrcnn.config import Precision
from fasterrcnn.errors import UsageError
from fasterrcnn.inference.runtimes import RuntimeChoice

if TYPE_CHECKING:
    from fasterrcnn.data.annotations import AnnotatedData
    from fasterrcnn.inference.detector import Detector

OUTPUT = ["--output", "-o"]
"""Names of the option for what is written."""

Weights = Annotated[
    str,
    Parameter(
        help="Checkpoint of this library, torchvision, Detectron2 or MMDetection; the folder of a run; or a name: "
        "resnet50-fpn, detectron2/faster_rcnn_R_50_FPN_3x, hf://user/repository."
    ),
]
Device = Annotated[str | None, Parameter(help="cpu, cuda or mps; default is the best there is.")]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON instead of text.")]
OnBadBox = Annotated[
    Literal["error", "fix", "drop"], Parameter(help="Errors in the data: refuse them, fix them, or leave them out.")
]
DataSource = Annotated[Path, Parameter(help="Folder or file of annotated images, in COCO, Pascal VOC, YOLO, CSV...")]


@Parameter(name="*")
@dataclass(frozen=True)
class CheckpointOptions:
    """How to read a checkpoint that does not state everything."""

    names: Annotated[list[str] | None, Parameter(help="Class names, for a checkpoint that has none.")] = None
    preset: Annotated[str | None, Parameter(help="Architecture of a torchvision file, if its keys fit several.")] = None
    style: Annotated[
        Literal["caffe", "pytorch"] | None,
        Parameter(help="Colours and strides of a Detectron2 or MMDetection file that does not state them."),
    ] = None

    anchors: Annotated[
        Path | None,
        Parameter(help="YAML file of anchors, for a checkpoint that was trained with own ones but has none."),
    ] = None
    short_side: Annotated[
        int | None, Parameter(help="Pixels of the input's short side, if the checkpoint does not state them.")
    ] = None
    long_side: Annotated[int | None, Parameter(help="Largest long side of the input, likewise.")] = None

    def to_dict(self) -> dict[str, Any]:
        """The arguments of `fasterrcnn.load` and `fasterrcnn.build.load_model`."""
        from fasterrcnn.data.anchors import read_anchors

        return {
            "classes": self.names,
            "preset": self.preset,
            "style": self.style,
            "anchors": None if self.anchors is None else read_anchors(self.anchors),
            "short_side": self.short_side,
            "long_side": self.long_side,
        }


@Parameter(name="*")
@dataclass(frozen=True)
class LoadOptions(CheckpointOptions):
    """How to read a checkpoint, and where the network runs."""

    device: Device = None
    runtime: Annotated[
        RuntimeChoice | None,
        Parameter(
            help="What runs the network; auto measures, once, which is fastest on this machine; `fasterrcnn benchmark` "
            "shows all. Default: torch."
        ),
    ] = None
    precision: Annotated[
        Precision,
        Parameter(
            help="Number format of the network; auto is the fastest on this machine whose numbers stay near float32."
        ),
    ] = "float32"

    pixel_range: Annotated[
        tuple[float, float] | None,
        Parameter(
            help="Values that become black and white in images of more than 8 bits; default is the checkpoint's range, "
            "else all of 16 bits."
        ),
    ] = None
    bands: Annotated[
        tuple[int, int, int] | None,
        Parameter(help="Bands of TIFF files that are red, green and blue; default is the checkpoint's."),
    ] = None

    def load(self, weights: str, *, threads: int | None = None) -> "Detector":
        """The detector of a checkpoint."""
        from fasterrcnn.inference.detector import load

        return load(
            weights, **self.to_dict(), device=self.device, runtime=self.runtime, threads=threads,
            precision=self.precision, pixel_range=self.pixel_range, bands=self.bands, log=log,
        )  # fmt: skip


@Parameter(name="*")
@dataclass(frozen=True)
class Reading:
    """How to read a data set whose files do not state everything."""

    format: Annotated[
        str | None, Parameter(help="Format, such as coco or yolo, if the files fit several; a wrong name lists all.")
    ] = None
    images: Annotated[
        list[Path] | None, Parameter(help="Folders of the images, if they are not below the data set.")
    ] = None
    class_names: Annotated[
        list[str] | None,
        Parameter(help="Classes in the order of their labels (YOLO, CSV, MOT Challenge, TFRecord)."),
    ] = None
    columns: Annotated[
        list[str] | None,
        Parameter(
            help="Columns of a table, as meaning=name: image=photo label=kind x1=left...; of VIA, label=attribute."
        ),
    ] = None
    box_format: Annotated[
        Literal["xyxy", "xywh", "cxcywh"] | None,
        Parameter(
            help="Format of the boxes in a table, if its columns leave it open; default xyxy, in one column xywh."
        ),
    ] = None

    def to_dict(self) -> dict[str, Any]:
        """The fields of `fasterrcnn.config.ReadingConfig`."""
        columns = None if self.columns is None else dict(pair.split("=", 1) for pair in self.columns)
        images = None if self.images is None else [str(folder) for folder in self.images]
        unchanged = {"format": self.format, "classes": self.class_names, "box_format": self.box_format}
        return {**unchanged, "images": images, "columns": columns}

    def read(self, data: Path) -> "AnnotatedData":
        """The data set, its problems included as findings."""
        from fasterrcnn.data.formats import read_data

        for pair in self.columns or ():
            if "=" not in pair:
                raise UsageError(f"--columns {pair}: give meaning=name, for example image=photo")
        return read_data(data, **self.to_dict())


def log(line: str) -> None:
    """Print a message to the standard error stream, beside the results."""
    print(line, file=sys.stderr)


def on_terminal() -> bool:
    """Whether the output goes to a terminal, so that a progress bar makes sense."""
    return sys.stderr.isatty() and sys.stdout.isatty()


_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1  # numbers of glibc's mallopt


def configure_process() -> None:
    """Make waiting threads sleep, and keep freed memory for the next tensor. Call it before torch is imported.

    OpenMP's threads wait in a busy loop by default, which makes all programs on a busy machine many times slower. glibc
    gives the memory of large tensors back to the system when they are freed, and the next tensor pays for every page
    again. Settings that are already in the environment stay, and the memory of other C libraries.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # macOS, Windows, musl
        return
    mallopt(_M_MMAP_THRESHOLD, 2**30)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
