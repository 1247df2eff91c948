import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasterrcnn.reporting import charts

SVG = "{http://www.w3.org/2000/svg}"


def parts(chart, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(chart.drawing).iter(SVG + tag))


def texts(chart) -> list[str]:
    return [element.text for element in parts(chart, "text") if element.text]


def test_bars__lengths_are_in_proportion():
    chart = charts.bars("Classes", ["cat", "dog", "owl"], [10, 5, 0])
    lengths = [float(bar.get("width")) for bar in parts(chart, "rect")]
    assert lengths[0] == pytest.approx(2 * lengths[1], abs=0.1)
    assert lengths[2] == 0
    assert (chart.title, texts(chart)) == ("Classes", ["cat", "10", "dog", "5", "owl", "0"])


def test_bars__every_bar_lies_inside_the_image():
    chart = charts.bars("Classes", [f"a rather long name of class {n}" for n in range(80)], range(80))
    height = float(ElementTree.fromstring(chart.drawing).get("viewBox").split()[3])
    assert max(float(bar.get("y")) + 16 for bar in parts(chart, "rect")) < height
    assert max(float(bar.get("x")) + float(bar.get("width")) for bar in parts(chart, "rect")) < 640


def test_bars__long_names_are_cut_and_kept_as_tips():
    chart = charts.bars("Classes", ["x" * 40], [1])
    assert texts(chart)[0] == "x" * 23 + "…"
    assert "x" * 40 in [tip.text for tip in parts(chart, "title")]


@pytest.mark.parametrize("name", ["<b>&\"'", "</svg><script>alert(1)</script>"])
def test_charts__names_are_escaped(name):
    for chart in (
        charts.bars(name, [name], [1]),
        charts.histogram(name, [1, 2], x=name),
        charts.scatter(name, [(1, 2)], {name: [(3, 4)]}, x=name, y=name),
    ):
        assert ElementTree.fromstring(chart.drawing).get("aria-label") == name
        assert name in "".join([*texts(chart), *(tip.text for tip in parts(chart, "title"))])
        assert not parts(chart, "script")


@pytest.mark.parametrize(
    "chart",
    [
        charts.bars("none", [], []),
        charts.histogram("none", []),
        charts.histogram("none", [np.nan, np.inf]),
        charts.histogram("none", [0, -1], log=True),
        charts.scatter("none", np.zeros((0, 2)), {"anchors": np.zeros((0, 2))}),
    ],
)
def test_charts__nothing_to_show(chart):
    assert (chart.title, texts(chart)) == ("none", ["nothing to show"])


def test_histogram__counts_every_value_once(monkeypatch):
    monkeypatch.setattr(charts, "_BINS", 2)
    chart = charts.histogram("Sizes", [1, 10, 10, 100, np.nan], log=True)
    tips = [tip.text for tip in parts(chart, "title")]
    assert tips == ["1 to 10: 1", "10 to 100: 3"]
    heights = [float(bar.get("height")) for bar in parts(chart, "rect")]
    assert heights[1] == pytest.approx(3 * heights[0], abs=0.2)


def test_histogram__whole_numbers_get_a_bar_each():
    chart = charts.histogram("Boxes", [1, 1, 2, 4])
    assert [tip.text.split(": ")[1] for tip in parts(chart, "title")] == ["2", "1", "0", "1"]


@pytest.mark.parametrize(
    ("values", "log"),
    [([400], False), ([400, 400], False), ([0], False), ([0.5], False), ([-3.25], False), ([400], True), ([0.5], True)],
)
def test_histogram__one_value(values, log):
    chart = charts.histogram("Sides", values, log=log)
    counts = [int(tip.text.split(": ")[1]) for tip in parts(chart, "title")]
    assert sum(counts) == len(values)
    places = [(text.get("x"), text.get("y")) for text in parts(chart, "text")]
    assert len(set(places)) == len(places)


def test_histogram__ticks_of_whole_numbers_are_whole():
    assert [text for text in texts(charts.histogram("Sides", [400])) if text.startswith("4")] == ["400"]


def test_scatter__larger_is_further_right_and_further_up():
    chart = charts.scatter("Boxes", [(10, 100), (20, 50)], {"anchors": [(40, 40)]})
    (ax, ay), (bx, by) = [(float(c.get("cx")), float(c.get("cy"))) for c in parts(chart, "circle") if c.get("r") == "2"]
    assert ax < bx
    assert ay < by
    rings = [c for c in parts(chart, "circle") if c.get("r") == "6"]
    assert len(rings) == 2  # one anchor, one in the legend
    assert [tip.text for tip in parts(chart, "title")] == ["anchors: 40 x 40", "anchors"]


def test_scatter__groups_have_their_own_shapes_and_colours():
    one = [(10.0, 10.0)]
    chart = charts.scatter("Boxes", one, {"before": one, "after": one, "third": one})
    assert len([mark for mark in parts(chart, "path") if mark.get("class")]) == 2
    assert len({c.get("class") for c in parts(chart, "circle") if c.get("r") == "6"}) == 2


def test_ticks__hand_computed():
    assert charts.ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert charts.ticks(3, 7.2) == [3, 4, 5, 6, 7]
    assert charts.ticks(0, 1, whole=True) == [0, 1]
    assert charts.ticks(10, 500, log=True) == [10, 20, 50, 100, 200, 500]
    assert charts.ticks(1, 1e6, log=True) == [1, 10, 100, 1000, 10_000, 100_000, 1_000_000]
    assert charts.ticks(30, 45, log=True) == [30, 35, 40, 45]
    assert charts.ticks(5, 5) == [5]


@given(st.floats(1e-3, 1e6), st.floats(1.01, 1e6), st.booleans())
def test_ticks__few_ascending_and_inside(low, factor, log):
    ticks = charts.ticks(low, low * factor, log=log)
    assert 1 <= len(ticks) <= 14
    assert ticks == sorted(set(ticks))
    assert all(low * (1 - 1e-6) <= tick <= low * factor * (1 + 1e-6) for tick in ticks)


@pytest.mark.parametrize(
    ("value", "expected"), [(12345, "12,345"), (3.14159, "3.14"), (0.05, "0.05"), (250.7, "251"), (0, "0"), (-2, "-2")]
)
def test_format_number__for_people(value, expected):
    assert charts.format_number(value) == expected


def test_curves__gaps():
    nan = float("nan")
    line = charts.Line("", [0, 0.25, 0.5, 0.75, 1], [1, 1, nan, 0, 0], "s0")
    path = re.search(r'd="([^"]*)"><title>', charts.curves("", "", "", [line]).drawing).group(1)
    assert re.findall("[ML]", path) == ["M", "L", "M", "L"]


@pytest.mark.parametrize("numbers", [(None, 0.0, 1.0), (0.5, float("nan"), 1.0)])
def test_whisker__unknown(numbers):
    assert charts.whisker(*numbers) == ""


def test_whisker__inside_its_line():
    drawing = str(charts.whisker(0.5, -9.0, 9.0, reach=(-1.0, 1.0)))
    assert 'd="M4.0 8H116.0"' in drawing
    assert 'class="zero" d="M60.0 1v14"' in drawing
