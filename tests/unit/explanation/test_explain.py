import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from fasterrcnn.errors import UsageError
from fasterrcnn.explanation.explain import explain
from fasterrcnn.inference.detector import load

T = (32.0, 32.0, 64.0, 64.0)
VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Every tag is closed, in order; collects what is referred to."""

    def __init__(self, text):
        super().__init__()
        self.open, self.sources, self.ids, self.links = [], [], set(), []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.ids.add(values.get("id"))
        if tag == "img":
            self.sources.append(values["src"])
            assert values["alt"]
        if tag == "a":
            self.links.append(values["href"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def planted(plant):
    far = (80.0, 80.0, 112.0, 112.0)
    return plant([(6, 6, 0.9, far), (3, 3, 0.8, T)], [(far, 0.9, 0.05, {0: far}), (T, 0.3, 0.1, {0: T})])


@pytest.fixture(scope="module")
def ground_truth():
    return [{"box": [80, 80, 112, 112], "name": "cat"}, {"box": list(T), "name": "cat"}]


@pytest.fixture
def written(planted, ground_truth, photo, tmp_path):
    file = tmp_path / "<script>alert(1)</script>".replace("/", "") / "<b>&.png"
    file.parent.mkdir()
    photo((128, 128)).save(file)
    explanation = explain(planted, file, tmp_path / "out", ground_truth=ground_truth)
    return explanation, tmp_path / "out"


def test_explain__the_folder_holds_all(written):
    explanation, folder = written
    images = {f"{name}.png" for name in explanation.figures}
    assert {path.name for path in folder.iterdir()} == images | {"index.html", "explain.json"}
    assert {"01-input.png", "06-matched.png", "08-proposals.png", "14-funnel.png", "17-lost.png"} <= images
    for name in images:
        with Image.open(folder / name) as image:
            image.load()
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".")] == []


def test_explain__the_page_needs_nothing_beside_it(written):
    explanation, folder = written
    text = (folder / "index.html").read_text(encoding="utf-8")
    page = Page(text)
    shown = [panel for figure in explanation.figures.values() for panel in figure.panels]
    skipped = len(explanation.figures["03-features"].panels)  # there is no neck: they are the backbone's own
    assert len(page.sources) == len(shown) - skipped
    assert all(source.startswith("data:image/") for source in page.sources)
    assert "http" not in re.sub(r"data:image/\S+", "", text)
    assert "url(" not in text
    assert {link.removeprefix("#") for link in page.links} <= page.ids


def test_explain__names_are_escaped(written):
    text = (written[1] / "index.html").read_text(encoding="utf-8")
    assert "<b>&" not in text
    assert "&lt;b&gt;&amp;.png" in text


def test_explain__numbers(written):
    explanation, folder = written
    numbers = json.loads((folder / "explain.json").read_text())
    assert numbers["funnel"] == {
        "anchors": 64,
        "best of each level": 2,
        "large and likely enough": 2,
        "left by NMS": 2,
        "proposals": 2,
        "boxes, one a class": 4,
        "score above 0.5": 1,
        "detections": 1,
    }
    assert [diagnosis["kind"] for diagnosis in numbers["diagnoses"]] == ["found", "low score"]
    assert numbers["diagnoses"][1]["evidence"]["class_score"] == pytest.approx(0.3)
    assert numbers["ground_truth"] == {"objects": 2, "left_out": 0, "min_iou": 0.5}
    assert numbers["shapes"]["pooled maps"] == [2, 3, 7, 7]
    assert numbers["detections"] == explanation.trace.detections.to_records()
    assert str(explanation).splitlines()[-1] == "1 found, 1 low score"


def test_explain__without_ground_truth_writes_nothing_unless_asked(planted, image, tmp_path):
    explanation = explain(planted, image)
    assert (explanation.diagnoses, explanation.ground_truth) == ((), None)
    assert not [name for name in explanation.figures if name.startswith(("06", "16", "17"))]
    assert explanation.to_dict()["ground_truth"] is None
    text = (explanation.save(tmp_path / "later") / "index.html").read_text(encoding="utf-8")
    assert "Why was it missed?" not in text
    Page(text)


def test_explain__a_checkpoint(checkpoint, photo, tmp_path):
    explanation = explain(checkpoint, photo((64, 96)), tmp_path / "out", score=0.2)
    assert explanation.trace.preset == "timm:test_efficientnet"
    assert (tmp_path / "out" / "index.html").stat().st_size > 10_000


OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in ("openvino", "onnxruntime")]  # they are compiled first


@pytest.mark.parametrize("runtime", ["torch", *OTHERS])
def test_explain__follows_the_runtime(runtime, checkpoint, photo, tmp_path):
    pytest.importorskip(runtime)
    image = photo((64, 96))
    explanation = explain(checkpoint, image, tmp_path / "out", score=0.2, runtime=runtime)
    detections = load(checkpoint, runtime=runtime).predict(image, score=0.2)
    assert explanation.trace.detections.names == detections.names
    np.testing.assert_allclose(explanation.trace.detections.boxes, detections.boxes, atol=1e-3)
    assert json.loads((tmp_path / "out" / "explain.json").read_text())["runtime"] == runtime
    assert ("02-body" in explanation.figures) == (runtime == "torch")
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    Page(page)
    assert f"runtime {runtime}" in page


def test_explain__into_an_empty_folder_that_is_there(planted, image, tmp_path):
    (tmp_path / "out").mkdir()
    explain(planted, image, tmp_path / "out")
    assert (tmp_path / "out" / "index.html").is_file()


def test_explain__refuses_before_any_work(planted, image, ground_truth, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="exists and is not empty"):
        explain(planted, image, tmp_path)
    with pytest.raises(UsageError, match="min_iou must lie above 0"):
        explain(planted, image, ground_truth=ground_truth, min_iou=0.0)
    with pytest.raises(UsageError, match="the detector runs on torch, not on openvino"):
        explain(planted, image, runtime="openvino")
    with pytest.raises(UsageError, match=r"^the detector computes in float32, not bf16; load it with that precision$"):
        explain(planted, image, precision="bf16")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_explain__a_failure_leaves_nothing(planted, ground_truth, image, tmp_path, monkeypatch):
    explanation = explain(planted, image, ground_truth=ground_truth)
    monkeypatch.setattr("fasterrcnn.explanation.explain.render_explanation", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        explanation.save(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_explain__half_precision(checkpoint, photo, tmp_path):
    image = photo((64, 96), 3)
    explanation = explain(checkpoint, image, tmp_path / "out", score=0.2, precision="bf16")
    detections = load(checkpoint, device="cpu", precision="bf16").predict(image, score=0.2)
    assert explanation.trace.detections.boxes.tolist() == detections.boxes.tolist()
    assert json.loads((tmp_path / "out" / "explain.json").read_text())["precision"] == "bf16"
    assert "runtime torch, precision bf16." in (tmp_path / "out" / "index.html").read_text()
