import math

import pytest

from fasterrcnn.reporting.tables import (
    Table,
    align_columns,
    bar_cell,
    signed_decimals,
    three_decimals,
    to_row,
)


def test_align_columns__first_column_to_the_left():
    assert align_columns(["split", "boxes"], [["a", "1"], ["longer", "1,000"]]) == [
        "split   boxes",
        "a           1",
        "longer  1,000",
    ]
    assert align_columns(["split", "boxes"], []) == ["split  boxes"]


@pytest.mark.parametrize(("value", "text"), [(0.5, "0.500"), (None, "n/a"), (math.nan, "n/a"), (math.inf, "n/a")])
def test_to_row__unknown_ones_sort_last(value, text):
    assert three_decimals(value) == text
    (cell,) = to_row(value)
    assert (cell.shown, cell.order) == (text, value if text != "n/a" else None)


@pytest.mark.parametrize(("value", "text"), [(0.1234, "+0.123"), (-0.1, "-0.100"), (-0.0001, "0.000"), (0.0, "0.000")])
def test_signed_decimals(value, text):
    assert signed_decimals(value) == text


@pytest.mark.parametrize(("value", "largest", "width"), [(0.5, 1.0, 50), (2.0, 1.0, 100), (-1.0, 1.0, 0), (0.5, 0, 0)])
def test_bar_cell__its_length_is_a_share(value, largest, width):
    assert f'style="width:{width:.1f}%"' in bar_cell(value, largest).shown
    assert bar_cell(None, largest).shown == "n/a"


def test_table__plain_text_cannot_be_sorted():
    assert Table(["a"], [to_row(1000), to_row("B")]).is_sortable
    assert not Table(["a"], [["b"]]).is_sortable
    assert not Table(["a"], []).is_sortable


def test_to_row__each_kind_of_value():
    cells = to_row(1000, "B", bar_cell(0.5, 1.0), 0.25)
    assert [(cell.shown, cell.order) for cell in (*cells[:2], cells[3])] == [
        ("1,000", 1000),
        ("B", "b"),
        ("0.250", 0.25),
    ]
    assert cells[2] == bar_cell(0.5, 1.0)
