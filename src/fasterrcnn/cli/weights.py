"""``fasterrcnn weights convert`` and ``fasterrcnn quantize``: a detector as another kind of file."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from fasterrcnn.cli.options import OUTPUT, CheckpointOptions, Weights


def convert(
    source: Weights,
    target: Annotated[Path, Parameter(help="File to write: .safetensors, .pth (torchvision) or .pkl (Detectron2).")],
    /,
    *,
    to: Annotated[
        Literal["fasterrcnn", "torchvision", "detectron2"] | None,
        Parameter(help="Kind of file, if the suffix fits several: .pth may be Detectron2's, too."),
    ] = None,
    checkpoint: CheckpointOptions = CheckpointOptions(),
    norm_eps: Annotated[
        float | None, Parameter(help="Eps of the batch norms; 0 for a file fine-tuned from torchvision's resnet50-fpn.")
    ] = None,
) -> None:
    """Write a detector of any family as a file of this library, or in the layout of another one."""
    from fasterrcnn.build import convert_weights

    notes = convert_weights(source, target, to=to, norm_eps=norm_eps, log=print, **checkpoint.to_dict())
    for line in notes:
        print(f"note: {line}")
    print(f"wrote {target}")


def quantize(
    weights: Weights,
    images: Annotated[str, Parameter(help="Folder or glob of typical images, without annotations.")],
    /,
    *,
    output: Annotated[Path, Parameter(name=OUTPUT, help="The .safetensors file to write.")],
    max_images: Annotated[int, Parameter(help="Images to calibrate with.")] = 100,
    data: Annotated[Path | None, Parameter(help="Annotated data set, to print AP before and after.")] = None,
    split: Annotated[str, Parameter(help="Which of its images.")] = "val",
    threads: Annotated[int | None, Parameter(help="CPU threads.")] = None,
) -> None:
    """Write a checkpoint whose network also runs with 8-bit integers, in OpenVINO, calibrated on images.

    A detector that is loaded from it uses them, unless another runtime is chosen.
    """
    from fasterrcnn.evaluation.evaluate import evaluate
    from fasterrcnn.inference.detector import load
    from fasterrcnn.inference.quantization import quantize as write

    write(weights, images, output, max_images=max_images, threads=threads)
    print(f"wrote {output}")
    if data is not None:
        before = evaluate(load(output, device="cpu", runtime="torch"), data, split=split).ap
        after = evaluate(load(output, device="cpu"), data, split=split).ap
        change = "" if before is None or after is None else f", {100 * (after - before):+.2f} points"
        print(f"AP on {split}: {before:.4f} in float32, {after:.4f} with 8-bit integers{change}")
