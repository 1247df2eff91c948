"""The curves of a training run as one PNG: losses, average precision, learning rate."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fasterrcnn.errors import UsageError
from fasterrcnn.files import write_bytes
from fasterrcnn.reporting.charts import Number

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

CurveRow = Mapping[str, Number]  # the numbers of one epoch by name, as in metrics.csv

_COLOURS = ("#3b82f6", "#f97316", "#10b981", "#a855f7")

_LOSSES = {
    "objectness": "objectness (RPN)",
    "rpn_boxes": "boxes (RPN)",
    "classes": "classes (head)",
    "boxes": "boxes (head)",
}
_PRECISIONS = {"ap": "AP", "ap50": "AP50", "ap75": "AP75"}


def write_curves(rows: Sequence[CurveRow], path: Path) -> None:
    """Write the curves of a run as PNG, whole or not at all; values that are missing or not finite are left out."""
    if not rows:
        raise UsageError(f"{path}: no epochs to draw; run at least one")
    png = io.BytesIO()
    make_figure(rows).savefig(png, format="png")
    write_bytes(path, png.getbuffer())


def make_figure(rows: Sequence[CurveRow]) -> "matplotlib.figure.Figure":
    """The curves as a figure of matplotlib, made without pyplot and its global state."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - heavy, and needed once an epoch only
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    figure = Figure(figsize=(11, 8), dpi=100, layout="constrained")
    (total, parts), (precision, rate) = figure.subplots(2, 2)
    total.set_title("Total loss")
    _plot(total, rows, "total", _COLOURS[0], "training")
    _plot(total, rows, "val_total", _COLOURS[1], "validation", dashed=True)
    parts.set_title("Parts of the loss (dashed: validation)")
    for (name, label), colour in zip(_LOSSES.items(), _COLOURS, strict=True):
        _plot(parts, rows, name, colour, label)
        _plot(parts, rows, f"val_{name}", colour, "", dashed=True)
    _draw_precision(precision, rows)
    rate.set_title("Learning rate of the heads, at the end of the epoch")
    _plot(rate, rows, "learning_rate", _COLOURS[0], "")
    epochs = [row["epoch"] for row in rows]
    names = ("loss", "loss", "average precision", "learning rate")
    for axes, name in zip((total, parts, precision, rate), names, strict=True):
        axes.set_ylabel(name)
        axes.set_xlabel("epoch")
        axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[1]:
            axes.legend()
    return figure


def best_epoch(rows: Sequence[CurveRow]) -> CurveRow | None:
    """The row with the highest average precision, the first of equals; None where it was never measured."""
    measured = [row for row in rows if math.isfinite(row.get("ap", math.nan))]
    return max(measured, key=lambda row: row["ap"], default=None)


def _draw_precision(axes: "matplotlib.axes.Axes", rows: Sequence[CurveRow]) -> None:
    best = best_epoch(rows)
    if best is None:
        axes.set_title("Validation: AP")
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="center", color="grey")
        return
    axes.set_title(f"Validation: best AP {best['ap']:.3f}, in epoch {best['epoch']:.0f}")
    for (name, label), colour in zip(_PRECISIONS.items(), _COLOURS, strict=False):
        _plot(axes, rows, name, colour, label)
    axes.axvline(best["epoch"], color="grey", linestyle=":")
    axes.plot([best["epoch"]], [best["ap"]], "*", color=_COLOURS[0], markersize=14, label="best epoch")


def _plot(
    axes: "matplotlib.axes.Axes", rows: Sequence[CurveRow], name: str, colour: str, label: str, *, dashed: bool = False
) -> None:
    """One column against the epoch, where it has a value; without such values nothing, not even in the legend."""
    points = [(row["epoch"], row[name]) for row in rows if math.isfinite(row.get(name, math.nan))]
    if points:
        epochs, values = zip(*points, strict=True)
        style = "--" if dashed else "-"
        axes.plot(epochs, values, style, color=colour, label=label, marker=".", markersize=5, linewidth=1.6)
