import re

from fasterrcnn.evaluation.page import figures
from fasterrcnn.evaluation.page.figures import confusion_chart, curve_charts, make_class_pages


def test_confusion_chart__by_hand(five):
    """The matrix of the example in the docs, rows cat, dog, background; nothing is where nothing was found."""
    drawn = str(confusion_chart(five.analysis).drawing)
    assert re.findall(r"text-anchor=\"middle\">(\d+)</text>", drawn) == ["2", "0", "2", "0", "2", "1", "1", "1"]
    assert "cat detected as background: 2 (50.0%)" in drawn


def test_confusion_chart__of_many_classes_those_that_are_confused(
    make_ground_truth, make_predictions, report_of, monkeypatch
):
    """Shares are of all objects of a class, also of those whose column is not shown."""
    monkeypatch.setattr(figures, "MAX_MATRIX", 2)
    names = ["ant", "bee", "cat", "dog"]
    ground_truth = make_ground_truth(*[(image, 2, 0, 0, 50, 50) for image in (1, 2, 3, 4)], images=4, classes=names)
    labels = (4, 4, 2, 1)
    predictions = make_predictions(
        ground_truth, *[(n, label, 0.9, 0, 0, 50, 50) for n, label in enumerate(labels, start=1)]
    )
    chart = confusion_chart(report_of(ground_truth, predictions).analysis)
    assert "bee detected as dog: 2 (50.0%)" in chart.drawing
    assert "detected as ant" not in chart.drawing
    assert "2 classes that are confused most, of 4" in chart.note


def test_curve_charts__many_classes_have_no_legend(make_ground_truth, make_predictions, report_of, monkeypatch):
    names = [f"class {n}" for n in range(12)]
    ground_truth = make_ground_truth(*[(1, 1 + n, 0, 0, 50, 50) for n in range(12)], classes=names)
    analysis = report_of(ground_truth, make_predictions(ground_truth, (1, 1, 0.9, 0, 0, 50, 50))).analysis
    assert str(curve_charts(analysis)[1].drawing).count("line faint") == 12
    assert not curve_charts(analysis)[1].legend
    monkeypatch.setattr(figures, "MAX_LINES", 10)
    assert str(curve_charts(analysis)[1].drawing).count("line faint") == 10


def test_make_class_pages__those_with_most_objects(five, make_ground_truth, make_predictions, report_of, monkeypatch):
    assert [page.name for page in make_class_pages(five.analysis)] == ["cat", "dog"]
    ground_truth = make_ground_truth(*[(1, label, 0, 0, 50, 50) for label in (1, 2, 2)])
    analysis = report_of(ground_truth, make_predictions(ground_truth)).analysis
    monkeypatch.setattr(figures, "MAX_CLASSES", 1)
    assert [page.name for page in make_class_pages(analysis)] == ["dog"]
