"""Every number of the example in docs/evaluation.md."""

import itertools
import re
from fractions import Fraction
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text(encoding="utf-8")
EXAMPLE = TEXT.split("## An example by hand", 1)[1].split("\n## ", 1)[0]


def table(first: str) -> list[list[str]]:
    """Rows of the table whose heading begins with that word."""
    lines = EXAMPLE.split(f"| {first} |", 1)[1].splitlines()[2:]
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


CLASSES = {"cat": 1, "dog": 2}
NUMBERS = table("number")
DETECTION_KINDS = table("detection")


@pytest.fixture(scope="module")
def report(make_ground_truth, make_predictions, report_of):
    objects = [(int(p), CLASSES[c], *map(float, box.split())) for _, p, c, box in table("object")]
    ground_truth = make_ground_truth(*objects, images=5)
    rows = [(int(p), CLASSES[c], float(score), *map(float, box.split())) for _, p, c, score, box, _ in DETECTION_KINDS]
    return report_of(ground_truth, make_predictions(ground_truth, *rows))


def by_hand(text: str) -> Fraction:
    """An expression of whole numbers, + - * / and brackets."""
    assert re.fullmatch(r"[\d+\-*/() ]+", text), text
    return eval(re.sub(r"\d+", r"Fraction(\g<0>)", text), {"Fraction": Fraction})


@pytest.mark.parametrize(("name", "expression", "shown"), NUMBERS, ids=[row[0] for row in NUMBERS])
def test_example__numbers(report, name, expression, shown):
    value = report.to_dict()
    for key in name.strip("`").split("."):
        value = value[key]
    if expression == "n/a":
        assert value is None
        assert shown == "n/a"
    else:
        assert value == pytest.approx(float(by_hand(expression)), abs=1e-12)
        assert f"{value:.3f}" == shown


def test_example__has_all_twelve_numbers_and_all_errors(report):
    named = {name.strip("`") for name, _, _ in NUMBERS}
    assert set(report.numbers) <= named
    assert {f"errors.ap50_lost.{kind}" for kind in report.to_dict()["errors"]["ap50_lost"]} <= named


def test_example__error_kinds(report):
    from fasterrcnn.evaluation.metrics.error_kinds import ERROR_KINDS

    expected = [row[-1].split(":")[0] for row in DETECTION_KINDS]
    error_kinds = report.analysis.error_kinds
    assert [ERROR_KINDS[kind] for kind in error_kinds.kinds] == expected
    names = [row[0] for row in table("object")]
    kinds = {name: ERROR_KINDS[kind] for name, kind in zip(names, error_kinds.object_kinds, strict=True)}
    predictions = {"A": "right", "B": "right", "D": "right", "G": "right"}
    assert kinds == {**predictions, "C": "missed", "E": "localisation", "F": "classification"}


def test_example__confusion_matrix(report):
    matrix = [[int(cell) for cell in row[1:]] for row in table("object \\ detected as")]
    assert report.analysis.confusion.matrix.tolist() == matrix
    assert report.analysis.confusion.score == 0.7
