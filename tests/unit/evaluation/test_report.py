import csv
import json
from dataclasses import replace

import pytest

from fasterrcnn.errors import DataError, UsageError
from fasterrcnn.evaluation.ground_truth import load_results
from fasterrcnn.evaluation.report import score_detections

BOX, FAR = (10.0, 10.0, 20.0, 20.0), (60.0, 60.0, 20.0, 20.0)


@pytest.fixture(scope="module")
def report(make_ground_truth, make_predictions, report_of):
    ground_truth = make_ground_truth((1, 1, *BOX), (2, 2, *FAR), (2, 1, 0, 0, 9, 9, 1))
    predictions = make_predictions(
        ground_truth, (1, 1, 0.9, *BOX), (2, 1, 0.8, *FAR), (1, 2, 0.7, *FAR), (2, 1, 0.6, 0, 0, 5, 5)
    )
    return report_of(ground_truth, predictions, samples=5)


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_save__folder(report, tmp_path):
    folder = tmp_path / "new" / "report"
    report.save(folder)
    assert (folder / "report.html").is_file()
    assert json.loads((folder / "metrics.json").read_text()) == report.to_dict()
    detections = rows(folder / "detections.csv")
    assert [(r["file"], r["class"], r["kind"], r["true_class"]) for r in detections] == [
        ("1.jpg", "cat", "right", "cat"),
        ("2.jpg", "cat", "classification", "dog"),
        ("1.jpg", "dog", "background", ""),
        ("2.jpg", "cat", "ignored", "cat"),
    ]
    assert [float(detections[0][name]) for name in ("x1", "y1", "x2", "y2", "iou")] == [10, 10, 30, 30, 1]
    assert [r["kind"] for r in rows(folder / "objects.csv")] == ["right", "classification", "ignored"]
    assert [(r["class"], r["objects"]) for r in rows(folder / "per_class.csv")] == [("cat", "1"), ("dog", "1")]
    assert rows(folder / "confusion.csv")[0]["cat"] == "1"
    assert len(rows(folder / "curves.csv")) == 3 * 101
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    # What was written is measured again.
    again = load_results(folder, report.analysis.ground_truth)
    assert again.scores.tolist() == report.analysis.predictions.scores.tolist()
    assert load_results(folder / "metrics.json", report.analysis.ground_truth).xywh.tolist() == again.xywh.tolist()


def test_save__numbers_alone(tmp_path):
    ground_truth = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "cat"}], "annotations": []}
    report = score_detections(ground_truth, [])
    with pytest.raises(UsageError, match=r"only numbers; write it as \.json"):
        report.save(tmp_path / "folder")
    with pytest.raises(UsageError, match=r"written as .html, as .json, or into a folder"):
        report.save(tmp_path / "report.pdf")
    assert not list(tmp_path.iterdir())


def test_text__has_everything(report):
    text = str(report)
    assert "95% intervals" in text
    assert "best threshold 0.90: precision 1.000, recall 0.500" in text
    assert "AP50 lost to" in text
    assert "note (no-ground-truth-of-size)" in text


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def row(**change):
    return {"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.5, **change}


def test_results__images_by_file_name(make_ground_truth, tmp_path):
    path = write(tmp_path / "r.json", [row(image_id=77, file_name="photos/2.jpg"), row(image_id=78, file_name="1.jpg")])
    assert load_results(path, make_ground_truth()).owners.tolist() == [0, 1]


@pytest.mark.parametrize("ids", [("2", "1"), ("2.jpg", "1.jpg"), ("0002", 1), ("2", "1.jpg")])
def test_results__text_that_stands_for_ids(make_ground_truth, tmp_path, ids):
    path = write(tmp_path / "r.json", [row(image_id=i, category_id="2") for i in ids] + [row(category_id="dog")])
    predictions = load_results(path, make_ground_truth())
    assert sorted(predictions.owners.tolist()) == [0, 0, 1]
    assert predictions.labels.tolist() == [1, 1, 1]


@pytest.mark.parametrize("ids", [("b7", "a9"), (2**63 + 5, 7), ("02", "1")])
def test_results__ids_as_the_data_set_writes_them(make_ground_truth, tmp_path, ids):
    ground_truth = make_ground_truth()
    ground_truth = replace(ground_truth, images=replace(ground_truth.images, original_ids=ids))
    rows = [row(image_id=i, score=score) for i, score in zip(ids, (0.5, 0.25), strict=True)]
    predictions = load_results(write(tmp_path / "r.json", rows), ground_truth)
    assert predictions.owners.tolist() == [0, 1]
    named = [row(image_id=5, file_name="2.jpg")]
    assert load_results(write(tmp_path / "n.json", named), ground_truth).owners.tolist() == [1]


def test_results__number_of_an_image_whose_id_is_another(make_ground_truth, tmp_path):
    ground_truth = make_ground_truth()
    ground_truth = replace(ground_truth, images=replace(ground_truth.images, original_ids=("b7", "a9")))
    with pytest.raises(DataError, match="result 0: image_id 1 is neither an id nor the name of any image"):
        load_results(write(tmp_path / "r.json", [row(image_id=1)]), ground_truth)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{", "r.json: not JSON"),
        ({"annotations": []}, "r.json: COCO results are a list"),
        ([1], "r.json: COCO results are a list"),
        ([row(image_id=9)], "r.json: result 0: image_id 9 is not in the data set"),
        ([row(image_id="one")], "result 0: image_id 'one' is neither an id nor the name of any image"),
        ([row(image_id=None)], "result 0: image_id must be a whole number, not None"),
        ([row(), row(bbox=[1, 2, 3])], r"result 1: bbox must be four numbers .* not \[1, 2, 3\]"),
        ([row(bbox="left")], "result 0: bbox must be four numbers"),
        ([row(score="high")], "a result has no score, or one that is not a number"),
        ([{"image_id": 1, "category_id": 1, "score": 1}], "result 0: bbox must be four numbers .* not missing"),
        ([row(score=float("nan"))], "result 0 of image 1 is not finite"),
        ([row(bbox=[0, 0, 1e300, 1e300])], "result 0 of image 1 is not finite, or beyond any image"),
        ([row(file_name="absent.jpg")], "result 0: no image is called absent.jpg"),
    ],
)
def test_results__files_that_cannot_be(make_ground_truth, tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        load_results(write(tmp_path / "r.json", content), make_ground_truth())


def test_results__no_such_file(make_ground_truth, tmp_path):
    with pytest.raises(DataError, match=r"absent.json: no such file; COCO results are wanted"):
        load_results(tmp_path / "absent.json", make_ground_truth())


def test_results__strongest_of_a_image_and_class(make_ground_truth, make_predictions):
    ground_truth = make_ground_truth()
    predictions = make_predictions(ground_truth, *[(1, 1 + i % 2, i / 10, *BOX) for i in range(8)], max_dets=2)
    assert predictions.scores.tolist() == [0.7, 0.6, 0.5, 0.4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": [{"id": 1}, {"id": 1}]}, "two entries of the data set have the image id 1"),
        ({"categories": [{"id": 1, "name": "a"}] * 2}, "two entries of the data set have the category id 1"),
        ({"annotations": [row(image_id=5)]}, "annotation 0: image_id 5 is not in the data set"),
        ({"annotations": [row(category_id=5)]}, "annotation 0: category_id 5 is not in the data set"),
        ({"annotations": [row(id=3, bbox=[0, 0, float("inf"), 1])]}, "annotation 3: its box is not finite"),
    ],
)
def test_ground_truth__that_cannot_be(change, message):
    ground_truth = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "cat"}], "annotations": []}
    with pytest.raises(DataError, match=message):
        score_detections({**ground_truth, **change}, [])


def test_max_dets__beyond_a_hundred():
    ground_truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [row(id=i, bbox=[10 * i, 0, 5, 5]) for i in range(150)],
    }
    predictions = [row(bbox=[10 * i, 0, 5, 5], score=1 - i / 200) for i in range(150)]
    assert score_detections(ground_truth, predictions).ar100 == pytest.approx(100 / 150)
    assert score_detections(ground_truth, predictions, max_dets=200).ar100 == pytest.approx(1.0)
    assert score_detections(ground_truth, predictions, max_dets=200).ar10 == pytest.approx(10 / 150)
    with pytest.raises(UsageError, match="max_dets must be at least 1, not 0"):
        score_detections(ground_truth, predictions, max_dets=0)


def test_report__with_other_scores_only_the_order_counts(make_ground_truth, make_predictions, report_of):
    ground_truth = make_ground_truth((1, 1, *BOX), (2, 2, *FAR))
    predictions = make_predictions(ground_truth, (1, 1, 5.0, *BOX), (2, 2, 3.0, *BOX))
    report = report_of(ground_truth, predictions)
    same = report_of(ground_truth, replace(predictions, scores=predictions.scores / 10))
    assert report.numbers == same.numbers
