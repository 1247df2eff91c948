import json

import pytest

from fasterrcnn.inference.detector import load


@pytest.fixture
def image(tmp_path, photo):
    photo((64, 96)).save(tmp_path / "p.png")
    return tmp_path / "p.png"


def test_explain__page_and_diagnoses(run, checkpoint, image, tmp_path):
    best = load(checkpoint).predict(image, score=0.2).to_records()[0]
    (tmp_path / "boxes.json").write_text(json.dumps([best, {"box": [1, 1, 3, 3], "name": "owl"}]))
    outcome = run(
        "explain", checkpoint, image, "-o", "seen", "--score", "0.2", "--ground-truth", tmp_path / "boxes.json"
    )
    assert (outcome.code, outcome.err) == (0, "")
    assert f"1 {best['name']}: found. Detection 1 is a {best['name']}" in outcome.out
    assert "2 owl: no anchor. The anchor that fits best" in outcome.out
    assert "wrote seen/index.html" in outcome.out
    numbers = json.loads((tmp_path / "here" / "seen" / "explain.json").read_text())
    assert [diagnosis["kind"] for diagnosis in numbers["diagnoses"]] == ["found", "no anchor"]


def test_explain__json_and_the_next_free_folder(run, checkpoint, image, tmp_path):
    outcome = run("explain", checkpoint, image, "--json", "--score", "0.2", "--nms", "agnostic")
    numbers = json.loads(outcome.out)
    assert numbers["folder"] == "runs/explain-1"
    assert numbers["postprocess"]["nms"] == "agnostic"
    written = json.loads((tmp_path / "here" / numbers.pop("folder") / "explain.json").read_text())
    assert written.keys() == numbers.keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.png", "-o", "seen"], "none.png"),
        (["IMAGE", "-o", "seen", "--ground-truth", "none"], "none: no such file or folder"),
        (["IMAGE", "-o", "seen", "--score", "3"], "score_threshold must lie in"),
        (["IMAGE", "-o", "..", "--score", "0.2"], "exists and is not empty"),
    ],
)
def test_explain__one_line_errors_and_nothing_written(arguments, message, run, checkpoint, image, tmp_path):
    outcome = run("explain", checkpoint, *[image if a == "IMAGE" else a for a in arguments])
    assert outcome.code == 2
    assert outcome.is_one_line
    assert message in outcome.err
    assert list((tmp_path / "here").iterdir()) == []
