import base64
import io
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fasterrcnn.data.checks import DataReport, check_data
from fasterrcnn.data.findings import Finding
from fasterrcnn.reporting.drawing import colour_of

HOSTILE = "<script>alert('x')</script>\"&"


class Page(HTMLParser):
    """Tags, attributes and words of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words += data

    def images(self) -> list[Image.Image]:
        found = []
        for tag, attributes in self.tags:
            if tag == "img":
                head, _, content = attributes["src"].partition(",")
                assert head == "data:image/jpeg;base64"
                found.append(Image.open(io.BytesIO(base64.b64decode(content))))
        return found


@pytest.fixture
def grey_data(tmp_path, annotated_of, data_of):
    """A data set of one grey image of 720 x 480."""
    Image.new("RGB", (720, 480), (128, 128, 128)).save(tmp_path / "a.png")

    def make(boxes, **more):
        return data_of(replace(annotated_of(1, boxes, size_hw=(480, 720)), path=tmp_path / "a.png"), **more)

    return make


def test_report__nothing_found(grey_data, tmp_path):
    check_data(grey_data([[10, 10, 200, 200]], classes=("cat",))).save(tmp_path / "new" / "page.html")
    page = Page(tmp_path / "new" / "page.html")
    assert "Nothing found" in page.words
    assert page.images() == []


def test_report__findings_and_their_images(grey_data, tmp_path):
    diagnosis = check_data(grey_data([[100, 100, 300, 300], [500, 50, 500, 350]], classes=("cat",)))
    diagnosis.save(str(tmp_path / "page.html"))
    page = Page(tmp_path / "page.html")
    assert "object 2 (cat): box 500,50,500,350 has no area" in page.words
    assert "What to do: draw the box again, or delete it" in page.words
    assert "1 error " in page.words
    assert "0 warnings" in page.words
    (image,) = page.images()
    assert image.size == (360, 240)
    pixels = np.asarray(image).astype(int)
    coloured = np.abs(pixels - 128).sum(axis=2) > 150
    assert coloured[100, 45:55].any()  # left side of the first box, at half size
    assert coloured[100, 245:255].any()  # the flat one is a line
    assert not coloured[80:120, 60:140].any()  # nothing is written on the box that is not meant
    strongest = pixels[100, 45:55][np.abs(pixels[100, 45:55] - 128).sum(axis=1).argmax()]
    np.testing.assert_allclose(strongest, colour_of(0), atol=60)


def test_report__hostile_names_stay_words(grey_data, tmp_path):
    data = grey_data([[100, 100, 300, 300], [5, 5, 5, 9]], classes=(HOSTILE,))
    diagnosis = check_data(data)
    diagnosis.findings.append(Finding("leak", Path(f"{HOSTILE}\udce4.jpg"), "is twice"))
    diagnosis.save(tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    assert "script" not in {tag for tag, _ in page.tags}
    assert f"object 2 ({HOSTILE})" in page.words
    assert f"{HOSTILE}\\udce4.jpg" in page.words


def test_report__needs_no_network(grey_data, tmp_path):
    check_data(grey_data([[5, 5, 5, 9]])).save(tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    for _, attributes in page.tags:
        assert not attributes.keys() & {"href", "srcset"}
        assert attributes.get("src", "data:").startswith("data:")
    text = (tmp_path / "page.html").read_text()
    assert "@import" not in text
    assert "url(" not in text


def test_report__many_findings_show_some_images_and_all_words(grey_data, tmp_path):
    check_data(grey_data([[n, 5, n, 9] for n in range(1, 31)])).save(tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    assert len(page.images()) == 12
    assert all(f"object {n} (cat): box {n},5,{n},9 has no area" in page.words for n in range(1, 31))
    assert "18 more" in page.words


def test_report__boxes_that_cannot_be_drawn(grey_data, tmp_path):
    values = [np.nan, np.inf, -np.inf, 3e38, -3e38, 0, 50, 700]
    boxes = np.random.default_rng(0).choice(values, (200, 4))
    check_data(grey_data(boxes)).save(tmp_path / "page.html")
    assert Page(tmp_path / "page.html").images()


def test_report__images_that_cannot_be_shown(data_of, tmp_path):
    missing = Finding("unreadable-image", tmp_path / "b.png", "no such file", image=tmp_path / "b.png")
    DataReport(data_of([]), [missing]).save(tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    assert page.images() == []
    assert "no such file" in page.words
