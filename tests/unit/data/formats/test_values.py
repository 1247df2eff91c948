"""Values of annotation files that are numbers and names, and those that are none."""

import math

import pytest

from fasterrcnn.data.formats.values import (
    list_in,
    numbers_in,
    numbers_of,
    points_of,
    shortened,
    side_of_image,
    text_in,
    to_number,
    to_numbers,
    to_whole,
    whole_number,
)
from fasterrcnn.errors import DataError

NOTHING_USEFUL = ["null", "None", "nan", "[1, 2]", "{}", "1e400", "99999999999", "1_0", "x" * 9999, "\x00", "é"]
NO_NUMBERS = [None, True, "", "x", "1_0", [], {}, 10**400]


@pytest.mark.parametrize(
    ("value", "number"), [(1, 1), (-2.5, -2.5), (" 3e2 ", 300), ("-.5", -0.5), (math.inf, math.inf)]
)
def test_to_number__number_or_digits_in_quotes(value, number):
    assert to_number(value, "x") == number
    assert numbers_of([value, value], 2) == numbers_in({"a": value, "b": value}, ("a", "b")) == [number, number]


def test_to_number__nan_is_one_for_the_checks():
    assert math.isnan(to_number(math.nan, "x"))
    assert math.isnan(to_number("nan", "x"))


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_to_number__what_is_none(value):
    with pytest.raises(DataError, match=r"^x must be a number, not "):
        to_number(value, "x")
    with pytest.raises(DataError, match=r"^2 numbers are expected, not "):
        numbers_of([1, value], 2)
    with pytest.raises(DataError, match=r"^a, b must be numbers, not 1, "):
        numbers_in({"a": 1, "b": value}, ("a", "b"))


def test_numbers__neither_list_nor_object():
    for value in (None, 5, [1, 2], {"a": 1}):
        with pytest.raises(DataError, match="3 numbers are expected"):
            numbers_of(value, 3)
        with pytest.raises(DataError, match="a, b must be numbers"):
            numbers_in(value, ("a", "b"))


def test_points_of__pairs_or_flat():
    assert points_of([[1, 2], ["3", 4]]) == points_of([1, 2, "3", 4]) == [[1, 2], [3, 4]]
    for value in (None, [], "1,2", [1, 2, 3], [[1, 2], 3], [[1, 2, 3]]):
        with pytest.raises(DataError, match="numbers"):
            points_of(value)


@pytest.mark.parametrize(
    ("value", "number", "side"),
    [
        (640, 640, 640),
        ("640", 640, 640),
        (640.0, 640, 640),
        ("640.0", None, 640),
        (0, 0, 0),
        (-3, -3, 0),
        (2**62, 2**62, 0),
        (1.5, None, 0),
        (2**63, None, 0),
        *((value, None, 0) for value in (math.nan, math.inf, *NO_NUMBERS)),
    ],
)
def test_whole_number_and_side_of_image(value, number, side):
    assert (whole_number(value), side_of_image(value)) == (number, side)


def test_text_in_and_list_in():
    assert (text_in({"a": " x "}, "a"), text_in({"a": 7}, "a"), list_in({"a": [1]}, "a")) == ("x", "7", [1])
    for entry in (None, [], {}, {"a": " "}, {"a": True}, {"a": -1}, {"a": {}}, {"a": 1.5}):
        with pytest.raises(DataError, match="a must be a text, not "):
            text_in(entry, "a")
        with pytest.raises(DataError, match="a must be a list, not "):
            list_in(entry, "a")


def test_shortened__in_a_line():
    assert shortened("a\nb") == r"'a\nb'"
    assert len(shortened([["x" * 999] * 99] * 99)) <= 80


def test_to_numbers__what_is_none():
    assert to_numbers(["1", " -2.5", "3e2", ".5"]) == [1, -2.5, 300, 0.5]
    assert to_numbers([]) == []
    for text in NOTHING_USEFUL:
        with pytest.raises(DataError, match="is no "):
            to_numbers([text])


def test_to_whole__of_decimals():
    assert (to_whole("3"), to_whole("3.0"), to_whole("-1")) == (3, 3, -1)
    with pytest.raises(DataError, match=r"'3\.5' is no whole number"):
        to_whole("3.5")
