import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fasterrcnn
from fasterrcnn.evaluation.analysis import Other

pytestmark = pytest.mark.browser

HOSTILE = """</script><script>window.owned = 1</script><img src=x onerror="owned=1">'"&{{ 7 * 7 }}"""


def column(browser, table, number):
    rows = f"[...document.querySelectorAll('#{table} tbody tr')]"
    return browser.run(f"{rows}.filter(row => !row.hidden).map(row => row.cells[{number}].textContent)")


def press_head(browser, table, number):
    browser.run(f"document.querySelector('#{table}').tHead.rows[0].cells[{number}].firstElementChild.click()")


def choose(browser, place, field, value):
    chosen = f"document.querySelector('{place} [data-by={field}]')"
    browser.run(f"({chosen}.value = {json.dumps(value)}, {chosen}.dispatchEvent(new Event('input')))")


def cards(browser):
    return browser.run("[...document.querySelectorAll('.card:not([hidden])')].map(card => card.dataset.text)")


def test_page__opens_without_a_word_on_the_console(browser, five, tmp_path):
    five.save(tmp_path / "report.html")
    browser.open(tmp_path / "report.html")
    assert browser.problems == []
    assert browser.requested == [(tmp_path / "report.html").as_uri()]
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    shown = browser.run("document.querySelector('main').innerText")
    for number in (five.ap, five.ap50, five.ar100, five.analysis.costs.lost["missed"]):
        assert f"{number:.3f}" in shown
    assert five.analysis.origin.command in shown


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_page__fits_a_phone_and_a_screen(browser, five, tmp_path, width, dark):
    five.save(tmp_path / "report.html")
    browser.open(tmp_path / "report.html", width=width, dark=dark)
    assert browser.run("document.documentElement.scrollWidth") <= width
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper)[:3])) < 200) == dark


def test_page__tables_sort(browser, five, tmp_path):
    five.save(tmp_path / "report.html")
    browser.open(tmp_path / "report.html")
    lost = {name: five.analysis.costs.lost[name] for name in column(browser, "table-errors", 0)}
    press_head(browser, "table-errors", 1)
    assert column(browser, "table-errors", 0) == sorted(lost, key=lambda name: -lost[name])
    press_head(browser, "table-errors", 1)
    assert [lost[name] for name in column(browser, "table-errors", 0)] == sorted(lost.values())
    press_head(browser, "table-errors", 0)
    assert column(browser, "table-errors", 0) == sorted(lost)
    assert browser.run("document.querySelectorAll('#table-errors [aria-sort]').length") == 1


def test_page__cells_without_a_value_stay_last(browser, make_ground_truth, make_predictions, report_of, tmp_path):
    ground_truth = make_ground_truth((1, 2, 0, 0, 10, 10), classes=("ant", "bee", "cat"))
    report_of(ground_truth, make_predictions(ground_truth, (1, 2, 0.5, 0, 0, 10, 10))).save(tmp_path / "report.html")
    browser.open(tmp_path / "report.html")
    for _ in range(2):
        press_head(browser, "table-classes", 2)
        assert column(browser, "table-classes", 2) == ["1.000", "n/a", "n/a"]


def test_page__rows_are_found_by_name(browser, make_ground_truth, make_predictions, report_of, tmp_path):
    names = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibex", "antelope"]
    ground_truth = make_ground_truth((1, 2, 0, 0, 10, 10), classes=names)
    report_of(ground_truth, make_predictions(ground_truth)).save(tmp_path / "report.html")
    browser.open(tmp_path / "report.html")
    field = "document.querySelector('[data-filter-rows=table-classes]')"
    browser.run(f"({field}.value = 'ANT', {field}.dispatchEvent(new Event('input')))")
    assert column(browser, "table-classes", 0) == ["ant", "antelope"]


def test_page__images_by_cost_and_filters(browser, five, tmp_path):
    """Threshold .70: 4 has two cats that are not found, 2 a dog, 5 a false positive of .95, 3 a duplicate of .75."""
    five.save(tmp_path / "report.html")
    browser.open(tmp_path / "report.html")
    assert cards(browser) == ["4.jpg", "2.jpg", "5.jpg", "3.jpg"]
    assert browser.run("[...document.querySelectorAll('.card')].map(card => card.dataset.cost)") == [
        "2.0",
        "1.0",
        "0.95",
        "0.75",
    ]
    choose(browser, "#images", "kind", "false positives")
    assert cards(browser) == ["5.jpg", "3.jpg"]
    choose(browser, "#images", "class", "1")
    assert cards(browser) == ["3.jpg"]
    choose(browser, "#images", "kind", "")
    assert cards(browser) == ["2.jpg", "3.jpg"]
    choose(browser, "#images", "class", "")
    choose(browser, "#images", "order", "file")
    assert cards(browser) == ["2.jpg", "3.jpg", "4.jpg", "5.jpg"]
    choose(browser, "#images", "text", "4.J")
    assert cards(browser) == ["4.jpg"]
    choose(browser, "#images", "kind", "confusions")
    assert cards(browser) == []
    assert browser.run("document.querySelector('#images .shown').textContent") == "0 of 0"
    assert browser.problems == []


def test_page__ground_truth_beside_detections(browser, five, tmp_path):
    five.save(tmp_path / "report.html")
    browser.open(tmp_path / "report.html")
    card = "document.querySelector('.card[data-text=\"3.jpg\"]')"
    styles = f"[...{card}.querySelectorAll('.pair > div')].map(one => [...one.querySelectorAll('g')]"
    assert browser.run(f"{styles}.map(g => g.className.baseVal))") == [["right", "right"], ["right", "right", "wrong"]]
    titles = browser.run(f"[...{card}.querySelectorAll('g.wrong title')].map(one => one.textContent)")
    assert titles == ["dog 0.750: duplicate, dog at IoU 1.00"]
    size = browser.run(f"(box => [box.x.baseVal.value, box.width.baseVal.value])({card}.querySelector('g.wrong rect'))")
    assert size == [10, 40]


def test_page__images_are_decoded_when_they_are_near(browser, five, tmp_path):
    five.save(tmp_path / "report.html")
    browser.open(tmp_path / "report.html", height=300)
    filled = "document.querySelectorAll('#gallery image[href]').length"
    browser.run("null")  # two frames
    assert browser.run(filled) == 0
    browser.run("document.querySelector('#gallery').scrollIntoView()")
    assert browser.run(filled) > 0
    assert browser.run("document.querySelector('#gallery image[href]').getAttribute('href')").startswith(
        "data:image/jpeg;base64,/9j/"
    )
    assert browser.problems == []


def test_page__a_gallery_for_each_error(browser, five, tmp_path):
    five.save(tmp_path / "report.html")
    browser.open(tmp_path / "report.html")
    lines = {}
    for kind in five.analysis.costs.counts:
        browser.run(f"document.querySelector('#gallery [data-kind=\"{kind}\"]').click()")
        text = "[...document.querySelectorAll('.crop:not([hidden]) figcaption')].map(one => one.innerText)"
        lines[kind] = [re.sub(r"\s+", " ", line) for line in browser.run(text)]
    assert lines == {
        "classification": ["dog 0.50 object: cat, IoU 1.00 4.jpg"],
        "localisation": ["cat 0.60 object: cat, IoU 0.40 4.jpg"],
        "both": [],
        "duplicate": ["dog 0.75 object: dog, IoU 1.00 3.jpg"],
        "background": ["cat 0.95 5.jpg"],
        "missed": ["dog 30 x 30 pixels 2.jpg"],
    }
    browser.run("document.querySelector('#table-errors [data-show-kind=\"missed\"]').click()")
    assert browser.run("document.querySelector('.crop:not([hidden])').dataset.kind") == "missed"


def test_page__a_class_opens_and_leads_to_its_errors(browser, five, tmp_path):
    five.save(tmp_path / "report.html")
    browser.open(tmp_path / "report.html")
    browser.run("document.querySelector('#table-classes a[href=\"#class-1\"]').click()")
    assert browser.run("document.querySelector('#class-page h3').textContent") == "dog"
    assert browser.run("document.querySelectorAll('#class-page svg.curves').length") == 2
    assert f"{five.per_class['dog']['ap50']:.3f}" in browser.run("document.querySelector('#class-page').innerText")
    browser.run("document.querySelector('#class-page [data-go=images]').click()")
    assert cards(browser) == ["2.jpg", "3.jpg"]
    browser.run("document.querySelector('#class-page [data-go=gallery]').click()")
    assert browser.run("document.querySelectorAll('.crop:not([hidden])').length") > 0
    browser.run("document.querySelector('#class-page [data-close]').click()")
    assert browser.run("document.querySelector('#class-page').hidden")
    assert browser.problems == []


def test_page__an_image_is_enlarged(browser, five, tmp_path):
    five.save(tmp_path / "report.html")
    browser.open(tmp_path / "report.html")
    browser.run("document.querySelector('.crop:not([hidden]) rect').dispatchEvent(new Event('click', {bubbles: true}))")
    assert browser.run("document.querySelector('dialog').open")
    assert browser.run("document.querySelectorAll('dialog image[href]').length") == 1
    browser.run("document.querySelector('dialog [data-close]').click()")
    assert not browser.run("document.querySelector('dialog').open")


def test_page__names_from_files_are_text(browser, make_ground_truth, make_predictions, report_of, shown, tmp_path):
    name = HOSTILE.replace("/", "\N{FRACTION SLASH}")
    ground_truth = make_ground_truth((1, 1, 0, 0, 50, 50), (2, 2, 0, 0, 50, 50), classes=(HOSTILE, HOSTILE + "2"))
    ground_truth = shown(ground_truth, [name + ".jpg", "\udcff.jpg"])
    report = report_of(
        ground_truth, make_predictions(ground_truth, (1, 2, 0.9, 0, 0, 50, 50), (2, 2, 0.8, 50, 50, 9, 9))
    )
    origin = replace(
        report.analysis.origin, command=HOSTILE, data=HOSTILE, detections=HOSTILE, settings={HOSTILE: HOSTILE}
    )
    replace(report, analysis=replace(report.analysis, origin=origin)).save(tmp_path / "report.html")
    browser.open(tmp_path / "report.html")
    browser.run("document.querySelector('#table-classes a').click()")
    assert browser.run("typeof window.owned") == "undefined"
    assert browser.run("document.querySelector('#class-page h3').textContent") == HOSTILE
    assert name + ".jpg" in cards(browser)
    assert browser.run("document.images.length") == 0
    assert browser.problems == []
    assert len(browser.requested) == 1


def test_page__images_that_are_gone_are_named(browser, make_ground_truth, make_predictions, report_of, shown, tmp_path):
    ground_truth = shown(make_ground_truth((1, 1, 0, 0, 50, 50), (2, 1, 0, 0, 50, 50), (3, 1, 0, 0, 50, 50), images=3))
    ground_truth.images.files[0].unlink()
    ground_truth.images.files[1].write_bytes(b"no image")
    report_of(ground_truth, make_predictions(ground_truth)).save(tmp_path / "report.html")
    browser.open(tmp_path / "report.html")
    assert cards(browser) == ["3.jpg"]
    gone = browser.run("document.querySelector('#gone').textContent")
    assert gone == f"{ground_truth.images.files[0]}, {ground_truth.images.files[1]}"


@pytest.mark.parametrize("crowd", [(), (1,)], ids=["one image", "only a crowd"])
@pytest.mark.parametrize("detections", [0, 1])
def test_page__little_to_show(browser, make_ground_truth, make_predictions, report_of, tmp_path, crowd, detections):
    ground_truth = make_ground_truth((1, 1, 0, 0, 50, 50, *crowd), images=1)
    predictions = make_predictions(ground_truth, *[(1, 1, 0.5, 0, 0, 50, 50)] * detections)
    report_of(ground_truth, predictions, samples=2).save(tmp_path / "report.html")
    browser.open(tmp_path / "report.html")
    assert browser.problems == []
    assert "n/a" in browser.run("document.body.innerText")
    assert "NaN" not in browser.run("document.body.innerText")


def test_page__nothing_at_all(browser, make_ground_truth, make_predictions, report_of, tmp_path):
    ground_truth = make_ground_truth(images=0)
    report_of(ground_truth, make_predictions(ground_truth)).save(tmp_path / "report.html")
    browser.open(tmp_path / "report.html")
    assert browser.problems == []


def test_page__diagnoses_stand_on_top(browser, make_ground_truth, make_predictions, report_of, tmp_path):
    ground_truth = make_ground_truth((1, 1, 0, 0, 50, 50))
    report_of(ground_truth, make_predictions(ground_truth)).save(tmp_path / "report.html")
    browser.open(tmp_path / "report.html")
    first = browser.run("document.querySelector('#summary h2').nextElementSibling.innerText")
    assert first.startswith("no-detections")


def test_page__comparisons(browser, make_ground_truth, make_predictions, report_of, tmp_path):
    ground_truth = make_ground_truth((1, 1, 0, 0, 50, 50), (2, 1, 0, 0, 50, 50))
    good = make_predictions(ground_truth, (1, 1, 0.9, 0, 0, 50, 50), (2, 1, 0.9, 0, 0, 50, 50))
    bad = make_predictions(ground_truth, (1, 1, 0.9, 0, 0, 50, 50))
    others = (Other("bad.json", bad, is_variant=False), Other("flip", bad, is_variant=True))
    report_of(ground_truth, good, samples=20, others=others).save(tmp_path / "report.html")
    browser.open(tmp_path / "report.html")
    titles = browser.run("[...document.querySelectorAll('#comparisons h3')].map(one => one.textContent)")
    assert titles == ["Against bad.json", "With flip"]
    # One of two found: COCO's AP is 51/101, and the difference 50/101.
    assert column(browser, "table-comparison-1", 3)[0] == "+0.495"
    assert column(browser, "table-comparison-2", 3)[0] == "-0.495"


def test_page__of_a_whole_data_set(browser, shared_data, tmp_path):
    """Detections made of the ground truth of BCCD's test split, with mistakes planted in them."""
    data = fasterrcnn.read_data(shared_data / "bccd" / "BCCD")
    records = data.split("test")
    rows, generator = [], np.random.default_rng(0)
    for number, record in enumerate(records, start=1):
        for box, label in zip(record.boxes.tolist(), record.labels.tolist(), strict=True):
            x1, y1, x2, y2 = (np.array(box) + generator.normal(0, 4, 4)).tolist()
            row = {
                "file_name": record.path.name,
                "image_id": number,
                "category_id": (label + (len(rows) % 9 == 0)) % 3 + 1,
            }
            rows.append({**row, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": float(generator.random())})
    (tmp_path / "results.json").write_text(json.dumps(rows))
    report = fasterrcnn.evaluate(
        None, shared_data / "bccd" / "BCCD", split="test", results=tmp_path / "results.json", bootstrap=20
    )
    report.save(tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 10e6
    browser.open(tmp_path / "report.html", width=390)
    assert browser.problems == []
    assert browser.run("document.documentElement.scrollWidth") == 390
    assert browser.run("document.querySelectorAll('.card').length") > 20
    assert Path(cards(browser)[0]).suffix == ".jpg"
