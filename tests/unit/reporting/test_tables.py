import math

import pytest

from fasterrcnn.reporting.tables import (
    Table,
    align_columns,
    bar_cell,
    count_cell,
    number_cell,
    signed_decimals,
    text_cell,
    three_decimals,
)


def test_align_columns__first_column_to_the_left():
    assert align_columns(["split", "boxes"], [["a", "1"], ["longer", "1,000"]]) == [
        "split   boxes",
        "a           1",
        "longer  1,000",
    ]
    assert align_columns(["split", "boxes"], []) == ["split  boxes"]


@pytest.mark.parametrize(("value", "text"), [(0.5, "0.500"), (None, "n/a"), (math.nan, "n/a"), (math.inf, "n/a")])
def test_number_cell__unknown_ones_sort_last(value, text):
    assert three_decimals(value) == text
    cell = number_cell(value)
    assert (cell.shown, cell.order) == (text, value if text != "n/a" else None)


@pytest.mark.parametrize(("value", "text"), [(0.1234, "+0.123"), (-0.1, "-0.100"), (-0.0001, "0.000"), (0.0, "0.000")])
def test_signed_decimals(value, text):
    assert signed_decimals(value) == text


@pytest.mark.parametrize(("value", "largest", "width"), [(0.5, 1.0, 50), (2.0, 1.0, 100), (-1.0, 1.0, 0), (0.5, 0, 0)])
def test_bar_cell__its_length_is_a_share(value, largest, width):
    assert f'style="width:{width:.1f}%"' in bar_cell(value, largest).shown
    assert bar_cell(None, largest).shown == "n/a"


def test_table__plain_text_cannot_be_sorted():
    assert Table(["a"], [[count_cell(1000)], [text_cell("B")]]).is_sortable
    assert not Table(["a"], [["b"]]).is_sortable
    assert not Table(["a"], []).is_sortable
    assert (count_cell(1000).shown, text_cell("B").order) == ("1,000", "b")
