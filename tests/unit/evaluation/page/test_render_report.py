import re
from dataclasses import replace

import pytest

from fasterrcnn.errors import UsageError
from fasterrcnn.evaluation.analysis import Other
from fasterrcnn.evaluation.page import render_report


def test_render_report__a_folder_gets_it_too(five, tmp_path):
    five.save(tmp_path / "reports")
    assert {"report.html", "metrics.json", "results.json", "per_class.csv"} <= {
        file.name for file in (tmp_path / "reports").iterdir()
    }


def test_render_report__without_analysis(five, tmp_path):
    with pytest.raises(UsageError, match="only numbers"):
        replace(five, analysis=None).save(tmp_path / "report.html")
    assert not any(tmp_path.iterdir())


def render(report):
    return render_report(report.analysis)


def test_render_report__the_same_twice(five):
    assert render(five) == render(five)


def test_render_report__no_other_file_is_named(five):
    """Nothing but the page's own parts, and no address on the network."""
    page = render(five)
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "https://" not in page
    assert "src=" not in page


def cells_of(page: str, table: str) -> list[list[str]]:
    """Text of the cells of a table, row by row."""
    body = re.search(rf'id="{table}">.*?<tbody>(.*?)</tbody>', page, flags=re.DOTALL)[1]
    rows = re.findall(r"<tr>(.*?)</tr>", body, flags=re.DOTALL)
    return [
        [" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in re.findall(r"<td.*?>(.*?)</td>", row)]
        for row in rows
    ]


def test_render_report__numbers_of_the_example(five):
    page = render(five)
    precision, recall = cells_of(page, "table-numbers-1"), cells_of(page, "table-numbers-2")
    assert precision[0] == ["AP (IoU .50 to .95)", "0.414"]
    assert ["Pascal VOC AP, 11 points", "0.455"] in precision
    assert ["Pascal VOC AP, area", "0.444"] in precision
    assert [row[0][:2] for row in recall] == ["AR"] * 6
    assert cells_of(page, "table-errors")[0][:3] == ["classification", "0.074", "1"]
    cat, dog = cells_of(page, "table-classes")
    assert (cat[0], cat[1], cat[2], dog[2]) == ("cat", "4", "0.274", "0.554")
    assert "Most is lost to missed objects: 0.140 of AP50, 1 case." in page


def test_render_report__every_further_number_is_in_text_json_and_page(five):
    page, text, numbers = render(five), str(five), five.to_dict()["further_numbers"]
    assert [number.name for number in five.analysis.further] == list(numbers)
    assert {"voc_ap11", "voc_ap"} <= set(numbers)
    for number in five.analysis.further:
        assert [number.label, f"{number.value:.3f}"] in cells_of(page, "table-numbers-1")
        assert f"{number.label} " in text
        assert numbers[number.name] == number.value


def test_render_report__comparisons(make_ground_truth, make_predictions, report_of):
    """One of two found: COCO's AP is 51/101, and the difference 50/101; without resamples there is no interval."""
    ground_truth = make_ground_truth((1, 1, 0, 0, 50, 50), (2, 1, 0, 0, 50, 50))
    good = make_predictions(ground_truth, (1, 1, 0.9, 0, 0, 50, 50), (2, 1, 0.9, 0, 0, 50, 50))
    bad = make_predictions(ground_truth, (1, 1, 0.9, 0, 0, 50, 50))
    others = (Other("bad.json", bad, is_variant=False), Other("flip", bad, is_variant=True))
    page = render(report_of(ground_truth, good, samples=20, others=others))
    against, variant = (cells_of(page, f"table-comparison-{number}")[0] for number in (1, 2))
    assert against[:4] == ["AP (IoU .50 to .95)", "1.000", "0.505", "+0.495"]
    assert variant[:4] == ["AP (IoU .50 to .95)", "1.000", "0.505", "-0.495"]
    assert " to " in against[4]
    assert variant[5] in ("behind", "may be chance")
    without = render(report_of(ground_truth, good, others=others))
    assert cells_of(without, "table-comparison-1")[0][3:] == ["+0.495", "", ""]
