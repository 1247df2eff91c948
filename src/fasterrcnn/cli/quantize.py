"""``fasterrcnn quantize``: a checkpoint that also runs with 8-bit integers."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fasterrcnn.cli.options import Weights


def quantize(
    weights: Weights,
    pictures: Annotated[str, Parameter(help="Folder or glob of pictures like those to come, without annotations.")],
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="The .safetensors file to write.")],
    most: Annotated[int, Parameter(help="Pictures to calibrate with.")] = 100,
    data: Annotated[Path | None, Parameter(help="Annotated data set, to print what becomes of AP.")] = None,
    split: Annotated[str, Parameter(help="Which of its pictures.")] = "val",
    threads: Annotated[int | None, Parameter(help="CPU threads.")] = None,
) -> None:
    """Write a checkpoint whose network also runs with 8-bit integers, in OpenVINO, calibrated on pictures.

    Whatever loads it then uses them, unless told another runtime.
    """
    from fasterrcnn.inference.evaluate import evaluate
    from fasterrcnn.inference.loading import load
    from fasterrcnn.inference.quantization import quantize as write

    write(weights, pictures, output, most=most, threads=threads)
    print(f"wrote {output}")
    if data is not None:
        before = evaluate(load(output, device="cpu", runtime="torch"), data, split=split).ap
        after = evaluate(load(output, device="cpu"), data, split=split).ap
        change = "" if before is None or after is None else f", {100 * (after - before):+.2f} points"
        print(f"AP on {split}: {before:.4f} in float32, {after:.4f} with 8-bit integers{change}")
