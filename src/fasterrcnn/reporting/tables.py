"""Tables: as lines of text, and as cells of a page with the values that they are sorted by."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fasterrcnn.reporting.charts import Number


@dataclass(frozen=True)
class Cell:
    """A cell that rows can be sorted by."""

    shown: str | Markup  # text, or markup of our own
    order: Number | str | None  # what it is sorted by; None sorts last


@dataclass(frozen=True)
class Table:
    """A table of a page."""

    head: Sequence[str]  # names of the columns; the first is of words, the others of numbers
    rows: Sequence[Sequence[Cell | str]]  # a cell for each column; plain text cannot be sorted
    title: str = ""  # above it
    filtered: bool = False  # whether a field to search for rows stands above

    @property
    def is_sortable(self) -> bool:
        """Whether a click on the head can sort the rows."""
        return any(isinstance(cell, Cell) for row in self.rows for cell in row)


def align_columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table as lines of text: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in (head, *rows)
    ]


def three_decimals(value: float | None) -> str:
    """A number with three decimals, or "n/a"."""
    return "n/a" if value is None or not math.isfinite(value) else f"{value:.3f}"


def signed_decimals(value: float) -> str:
    """A difference with its sign and three decimals."""
    return f"{value:+.3f}" if abs(value) >= 0.0005 else "0.000"


def to_row(*values: Cell | str | Number | None) -> list[Cell]:
    """Cells: text, whole numbers with their thousands apart, others by `three_decimals`; cells stay as they are."""
    return [_to_cell(value) for value in values]


def _to_cell(value: Cell | str | Number | None) -> Cell:
    if isinstance(value, Cell):
        return value
    if isinstance(value, str):
        return Cell(value, value.casefold())
    if isinstance(value, int):
        return Cell(f"{value:,}", value)
    is_known = value is not None and math.isfinite(value)
    return Cell(three_decimals(value), value if is_known else None)


def bar_cell(value: float | None, largest: Number) -> Cell:
    """A number before a bar, whose full length stands for the largest value."""
    cell = _to_cell(value)
    if cell.order is None:
        return cell
    share = min(max(value or 0.0, 0.0) / largest, 1.0) if largest > 0 else 0.0
    bar = Markup('<span class="bar"><i style="width:{:.1f}%"></i></span>').format(100 * share)
    return Cell(Markup('<span class="barred">{} {}</span>').format(cell.shown, bar), cell.order)
