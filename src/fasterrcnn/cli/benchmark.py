"""``fasterrcnn benchmark``: which runtime and precision are fastest on this machine, and how much memory they take."""

import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fasterrcnn.cli.options import CheckpointOptions, Json, Weights, configure_process
from fasterrcnn.config import Precision
from fasterrcnn.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import torch

    from fasterrcnn.inference.benchmark import BenchmarkRow
    from fasterrcnn.inference.detector import Detector
    from fasterrcnn.inference.runtimes import RuntimeName


def benchmark(
    weights: Weights,
    /,
    *,
    runtimes: Annotated[list[str] | None, Parameter(help="Which to measure; default: all that are installed.")] = None,
    precisions: Annotated[
        list[Precision] | None,
        Parameter(help="In which to measure them; default: float32, and 16-bit numbers that the device is fast in."),
    ] = None,
    device: Annotated[str, Parameter(help="cpu, or for the runtime torch cuda or mps.")] = "cpu",
    threads: Annotated[list[int] | None, Parameter(help="Numbers of threads; default: 1 and all.")] = None,
    image: Annotated[Path | None, Parameter(help="The image to predict; default: a drawn one of 480x640.")] = None,
    data: Annotated[Path | None, Parameter(help="Annotated data set, to measure AP too.")] = None,
    split: Annotated[str, Parameter(help="Which of its images.")] = "test",
    ap_loss: Annotated[float, Parameter(help="Largest loss of AP, 0 to 1, of what is named in the end.")] = 0.003,
    rounds: Annotated[int, Parameter(help="Images that each runtime predicts.")] = 10,
    checkpoint: CheckpointOptions = CheckpointOptions(),
    as_json: Json = False,
) -> None:
    """Measure all runtimes, in turn and each in its own process, and name the one to use on this machine.

    The times are of one image in memory, from pixels to boxes. Deviations are from the runtime torch in float32. What
    is named loses at most --ap-loss with --data; without data, it has the same detections (in 16 bits and 8-bit
    integers those with a score of 0.5 and more).
    """
    from fasterrcnn.inference.benchmark import benchmark as measure
    from fasterrcnn.inference.benchmark import fastest_row
    from fasterrcnn.inference.devices import choose_device, processors

    if rounds < 1:
        raise UsageError(f"rounds must be at least 1, not {rounds}")
    if not 0 <= ap_loss <= 1:
        raise UsageError(f"ap-loss must lie between 0 and 1, not {ap_loss}")
    place = choose_device(device)
    chosen = _chosen(weights, runtimes, place)
    rows = measure(
        weights,
        _read_image(image),
        chosen,
        precisions=_chosen_precisions(precisions, chosen, place),
        device=device,
        threads=sorted(set(threads or (1, processors()))),
        rounds=rounds,
        options=checkpoint.to_dict(),
        average_precision=None if data is None else partial(_average_precision, data, split),
        prepare=configure_process,
        log=None if as_json else lambda text: print(text, file=sys.stderr, flush=True),
    )
    best = fastest_row(rows, ap_loss)
    if as_json:
        use = {"use": best and best.runtime, "precision": best and best.precision}
        print(json.dumps({"rows": [asdict(row) for row in rows], **use}))
        return
    print(_table(rows))
    if best is not None:
        precision = "" if best.precision == "float32" else f'precision="{best.precision}", '
        print(f'use here: runtime="{best.runtime}", {precision}threads={best.threads}')


def _read_image(path: Path | None) -> "np.ndarray":
    """RGB of the file, or of a drawn scene."""
    import numpy as np

    from fasterrcnn.demo.scenes import draw_scene
    from fasterrcnn.images import read_stretched

    return np.array(draw_scene(seed=0, index=0, size_hw=(480, 640)).image if path is None else read_stretched(path)[0])


def _average_precision(data: Path, split: str, detector: "Detector") -> float | None:
    """AP of a detector; called in the process that measures it."""
    from fasterrcnn.evaluation.evaluate import evaluate

    return evaluate(detector, data, split=split).ap


def _chosen(weights: str, runtimes: list[Any] | None, device: "torch.device") -> "list[RuntimeName]":
    from fasterrcnn.inference.runtimes import check_runtime, runtime_names

    for name in runtimes or ():
        check_runtime(name, device)
    if device.type != "cpu":
        return ["torch"]
    return runtimes or [name for name in runtime_names() if _is_available(name, weights)]


def _chosen_precisions(
    precisions: "list[Precision] | None", runtimes: "list[RuntimeName]", device: "torch.device"
) -> "list[Precision]":
    """Those that were asked for, or float32 and what the device is fast in."""
    from fasterrcnn.inference.devices import has_fast_bf16, has_fast_fp16
    from fasterrcnn.inference.runtimes import check_precision, has_precision

    if precisions is not None:
        if "auto" in precisions:
            raise UsageError("--precisions auto: name the precisions to measure: float32, bf16, fp16")
        for precision in precisions:
            if not any(has_precision(name, precision, device) for name in runtimes):
                check_precision(precision, runtimes[0], device)  # raises, with the reason
        return list(dict.fromkeys(precisions))
    fast: list[tuple[Precision, bool]] = [("bf16", has_fast_bf16(device)), ("fp16", has_fast_fp16(device))]
    return ["float32", *(precision for precision, is_fast in fast if is_fast)]


def _is_available(name: str, weights: str) -> bool:
    from importlib.util import find_spec

    from fasterrcnn.inference.quantization import quantized_parts
    from fasterrcnn.weights.catalog import locate

    library = name.removesuffix("-int8")
    if library in ("onnxruntime", "openvino") and find_spec(library) is None:
        return False
    return name != "openvino-int8" or quantized_parts(locate(weights).path) is not None


_COLUMNS = (
    ("median s", "median", ".3f"),
    ("p95 s", "p95", ".3f"),
    ("images/s", "images_per_second", ".2f"),
    ("cpu s", "processor", ".3f"),
    ("ready s", "ready", ".1f"),
    ("peak MiB", "peak_mib", ".0f"),
    ("found", "detections", "d"),
    ("boxes px", "box_deviation", ".4f"),
    ("scores", "score_deviation", ".6f"),
    ("other", "unmatched", "d"),
    ("AP", "ap", ".3f"),
)
"""Head, field of a `BenchmarkRow`, and format of each number."""


def _table(rows: "Sequence[BenchmarkRow]") -> str:
    from fasterrcnn.reporting.tables import align_columns

    lines = []
    for row in rows:
        if row.failure is None:
            numbers = ((getattr(row, field), form) for _, field, form in _COLUMNS)
            shown = ("-" if number is None else format(number, form) for number, form in numbers)
            lines.append((row.runtime, row.precision, str(row.threads), *shown))
    failures = [f"{row.runtime} {row.precision}: {row.failure}" for row in rows if row.failure is not None]
    return "\n".join(
        [*align_columns(("runtime", "precision", "threads", *(head for head, *_ in _COLUMNS)), lines), *failures]
    )
