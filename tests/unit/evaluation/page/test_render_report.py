from dataclasses import replace

import pytest

from fasterrcnn.errors import UsageError
from fasterrcnn.evaluation.page import render_report


def test_write_page__a_folder_gets_it_too(five, tmp_path):
    five.save(tmp_path / "reports")
    assert {"report.html", "metrics.json", "results.json", "per_class.csv"} <= {
        file.name for file in (tmp_path / "reports").iterdir()
    }


def test_write_page__without_analysis(five, tmp_path):
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
