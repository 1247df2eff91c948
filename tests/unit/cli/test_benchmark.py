"""`fasterrcnn benchmark` with real runtimes on a tiny network."""

import json

import pytest


@pytest.mark.slow
def test_benchmark__a_row_for_each_and_what_to_use(run, checkpoint):
    options = ("--runtimes", "torch", "winograd", "--precisions", "float32", "bf16", "--threads", "1", "--rounds", "2")
    outcome = run("benchmark", checkpoint, *options)
    assert outcome.code == 0, outcome.err
    head, *rows, use = outcome.out.splitlines()
    assert head.split()[:4] == ["runtime", "precision", "threads", "median"]
    expected = [["torch", "float32", "1"], ["torch", "bf16", "1"], ["winograd", "float32", "1"]]
    assert [row.split()[:3] for row in rows] == expected
    ways = ('"torch", ', '"torch", precision="bf16", ', '"winograd", ')
    assert use in [f"use here: runtime={way}threads=1" for way in ways]
    assert "torch" in outcome.err  # progress is logged


def test_benchmark__json_with_average_precision(run, checkpoint, tmp_path, photo):
    data = tmp_path / "data"
    data.mkdir()
    photo((64, 96), 0).save(data / "0.png")
    ground_truth = {
        "images": [{"id": 1, "file_name": "0.png", "height": 64, "width": 96}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 2, "bbox": [10, 10, 30, 20]}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(("cat", "dog", "owl"), start=1)],
    }
    (data / "test.json").write_text(json.dumps(ground_truth))
    options = ("--runtimes", "torch", "--precisions", "float32", "--threads", "1", "--rounds", "1")
    options += ("--data", data, "--json")
    outcome = run("benchmark", checkpoint, *options)
    assert outcome.code == 0, outcome.err
    answer = json.loads(outcome.out)
    (row,) = answer["rows"]
    assert row["failure"] is None
    assert 0 <= row["ap"] <= 1
    assert (row["runtime"], row["box_deviation"], row["unmatched"]) == ("torch", 0.0, 0)
    assert row["median"] > 0
    assert (answer["use"], answer["precision"]) == ("torch", "float32")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--runtimes", "tensorflow"), "no runtime is called 'tensorflow'"),
        (("--rounds", "0"), "rounds must be"),
        (("--precisions", "auto"), "--precisions auto: name the precisions to measure: float32, bf16, fp16"),
        (("--precisions", "float32", "fp16"), "precision fp16 needs a GPU; on a CPU there are float32 and bf16"),
        (("--ap-loss", "2"), "ap-loss must lie between 0 and 1, not 2"),
        (("--device", "cuda:99"), "device 'cuda:99' cannot be used here"),
    ],
)
def test_benchmark__mistakes(run, checkpoint, options, reason):
    outcome = run("benchmark", checkpoint, *options)
    assert outcome.code == 2
    assert reason in outcome.err
    assert outcome.err.count("\n") == 1
