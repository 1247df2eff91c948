"""The page about data: its table has a row for every format of the library, in the same order, with what it takes."""

import re
from pathlib import Path

import pytest

from fasterrcnn.data.formats import FORMATS
from fasterrcnn.images import EXTENSIONS

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
OPTIONS = {"classes": "--class-names", "columns": "--columns", "box_format": "--box-format"}
"""Options of the command line by fields of `ReadOptions`; every format takes ``images``."""

ROWS = re.findall(r"^\| ([^|]+) \| `(\w+)` \| ([^|]+) \|([^|]*)\|$", PAGE, flags=re.MULTILINE)


def test_formats__all_in_the_table_by_title_and_name():
    assert [(title, name) for title, name, *_ in ROWS] == [(form.title, name) for name, form in FORMATS.items()]


@pytest.mark.parametrize(("name", "about"), [(row[1], row[3]) for row in ROWS])
def test_formats__options_and_whether_they_are_written(name, about):
    form = FORMATS[name]
    assert set(re.findall(r"--[\w-]+", about)) == {OPTIONS[field] for field in form.options - {"images"}}
    assert ("written" in about) == form.can_write


def test_images__number_of_extensions():
    assert f"files\nwith one of {len(EXTENSIONS)} extensions" in PAGE
