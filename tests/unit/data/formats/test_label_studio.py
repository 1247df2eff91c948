import copy
import json
import math
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage
from fasterrcnn.data.formats import read_data, write_data
from fasterrcnn.data.formats.label_studio import LabelStudio
from fasterrcnn.errors import DataError

read, recognise = LabelStudio().read, LabelStudio().recognise

CAT = [5, 6, 15, 26]


def result(label="cat", box=CAT, *, kind="rectanglelabels", region="r1", **value):
    """A result as Label Studio 1 exports it, of a box in an image of 40 x 30; more values replace those of the box."""
    x1, y1, x2, y2 = box
    shape = {"x": x1 / 0.4, "y": y1 / 0.3, "width": (x2 - x1) / 0.4, "height": (y2 - y1) / 0.3, "rotation": 0}
    shape = value or shape
    return {
        "original_width": 40,
        "original_height": 30,
        "image_rotation": 0,
        "value": shape if label is None else shape | {kind: [label]},
        "id": region,
        "from_name": "label",
        "to_name": "image",
        "type": kind,
        "origin": "manual",
    }


def annotation(*results, **more):
    return {
        "id": 11,
        "completed_by": 1,
        "result": list(results),
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": "2024-03-01T10:00:00.000000Z",
        "updated_at": "2024-03-01T10:00:00.000000Z",
        "lead_time": 4.2,
        "prediction": {},
        **more,
    }


def task(number=1, *annotations, image="/data/upload/1/9f3c1a2b-a.png", **more):
    """A task as Label Studio 1 exports it."""
    return {
        "id": number,
        "annotations": list(annotations),
        "file_upload": "9f3c1a2b-a.png",
        "drafts": [],
        "predictions": [],
        "data": {"image": image},
        "meta": {},
        "inner_id": number,
        "total_annotations": len(annotations),
        **more,
    }


def short(number=1, *values, image="/data/upload/1/9f3c1a2b-a.png", **more):
    """A row of JSON-MIN."""
    labels = {"label": list(values)} if values else {}
    made = {"annotator": 1, "annotation_id": number, "created_at": "2024-03-01T10:00:00Z", "lead_time": 4.2}
    return {"image": image, "id": number, **labels, **made, "updated_at": "2024-03-01T10:00:00Z", **more}


def short_value(*arguments, **more):
    values = result(*arguments, **more)
    return values["value"] | {"original_width": 40, "original_height": 30}


@pytest.fixture
def read_tasks(write_files):
    """Reads tasks whose image is a.png, of 40 x 30."""

    def read_them(*tasks, **files):
        return read(write_files({"a.png": None, "b.png": None, "export.json": json.dumps(tasks), **files}))

    return read_them


def objects(data) -> list[tuple[str, list[float]]]:
    """Class and box of every object."""
    return [
        (data.classes[label], box)
        for image in data.images
        for label, box in zip(image.labels, image.boxes.round(3).tolist(), strict=True)
    ]


def counted(data) -> str:
    """The notes in one line, for numbers in them as in "2 polygon"."""
    return "; ".join(data.notes).replace(" x ", " ")


def messages(data) -> list[tuple[str, str]]:
    return [(finding.kind, finding.what) for finding in data.findings]


def test_read__as_label_studio_exports_it(read_tasks):
    first = task(7, annotation(result("owl", [1, 3, 9, 12]), result("cat", region="r2")))
    data = read_tasks(first, task(8, annotation(), image="/data/upload/1/11223344-b.png"))
    assert data.summary() == "Label Studio, 2 images, 1 without boxes, 2 classes (cat, owl), no splits"
    assert objects(data) == [("owl", [1, 3, 9, 12]), ("cat", CAT)]
    assert data.images[0].size_hw == (30, 40)
    assert data.images[0].source == data.root / "export.json"
    assert data.describe_box(data.images[0], 1) == "task 7 (cat)"
    assert data.findings == []
    assert data.notes == ["images found in ."]


def test_read__json_min(read_tasks):
    first = short(7, short_value("owl", [1, 3, 9, 12]), short_value())
    data = read_tasks(first, short(8, image="/data/upload/1/11223344-b.png"), short(9, image="b.png", id="x"))
    assert [finding.kind for finding in data.findings] == ["ambiguous-image"]  # b.png is the other one
    assert objects(data) == [("owl", [1, 3, 9, 12]), ("cat", CAT)]
    data = read_tasks(first, short(8, image="/data/upload/1/11223344-b.png"))
    assert data.summary() == "Label Studio, 2 images, 1 without boxes, 2 classes (cat, owl), no splits"
    assert data.describe_box(data.images[0], 0) == "task 7 (owl)"
    assert data.findings == []


@pytest.mark.parametrize("column", ["bbox", "tag", "objects"])
def test_read__json_min_of_other_controls(read_tasks, column):
    row = {"id": 1, "photo": "a.png", column: [short_value()], "quality": "good", "tags": ["x", "y"], "n": [1, 2]}
    assert objects(read_tasks(row)) == [("cat", CAT)]


def test_read__json_min_of_separate_shapes_and_labels(read_tasks):
    """Both columns have all numbers of the shape."""
    shapes = [short_value(None, kind="rectangle"), short_value(None, [1, 3, 9, 12], kind="rectangle")]
    labels = [short_value("cat", kind="labels"), short_value("owl", [1, 3, 9, 12], kind="labels")]
    data = read_tasks(short(1, rectangle=shapes, label=labels))
    assert objects(data) == [("cat", CAT), ("owl", [1, 3, 9, 12])]
    assert data.findings == []


def test_read__json_min_of_several_annotators(read_tasks):
    older = short(1, short_value("old"), updated_at="2024-01-01T00:00:00Z")
    data = read_tasks(short(1, short_value("new")), older)
    assert objects(data) == [("new", CAT)]
    assert "1 x task with several annotations: that marked as ground truth counts, else the newest" in data.notes


def test_read__files_before_version_1(read_tasks):
    old = {"id": 1, "data": {"image": "a.png"}, "completions": [{"id": 1, "created_at": 1600000000, "result": []}]}
    old["completions"].append({"id": 2, "created_at": 1600000009, "result": [result()]})
    assert objects(read_tasks(old)) == [("cat", CAT)]


def test_read__an_annotation_of_a_target_storage(write_files):
    kept = annotation(result()) | {"task": {"id": 5, "data": {"image": "s3://bucket/a.png"}}}
    root = write_files({"a.png": None, "5.json": json.dumps(kept)})
    assert recognise(root) == [root]
    data = read(root)
    assert objects(data) == [("cat", CAT)]
    assert data.describe_box(data.images[0], 0) == "task 5 (cat)"


def test_read__rotated_rectangle(read_tasks):
    """A quarter around its top left corner (20, 5): 10 to the right become 10 down, 4 down become 4 to the left."""
    turned = result(x=50, y=5 / 0.3, width=25, height=4 / 0.3, rotation=90)
    data = read_tasks(task(1, annotation(turned)))
    assert objects(data) == [("cat", [16, 5, 20, 15])]
    assert "1 rotated rectangle" in counted(data)
    eighth = result(x=50, y=5 / 0.3, width=25, height=10 / 0.3, rotation=45)
    side = 10 * math.sqrt(0.5)
    ((_, box),) = objects(read_tasks(task(1, annotation(eighth))))
    assert box == pytest.approx([20 - side, 5, 20 + side, 5 + 2 * side], abs=1e-3)


def test_read__ellipse(read_tasks):
    flat = {"x": 50, "y": 50, "radiusX": 25, "radiusY": 10}  # 20, 15 and 10 x 3 pixels
    upright = result(kind="ellipselabels", **flat, rotation=0)
    turned = result(kind="ellipselabels", **flat, rotation=90, region="r2")
    data = read_tasks(task(1, annotation(upright, turned)))
    assert objects(data) == [("cat", [10, 12, 30, 18]), ("cat", [17, 5, 23, 25])]
    assert "2 ellipse" in counted(data)


def test_read__polygon(read_tasks):
    points = [[10, 10], [50, 20], [30, 90]]
    data = read_tasks(task(1, annotation(result(kind="polygonlabels", points=points, closed=True))))
    assert objects(data) == [("cat", [4, 3, 20, 27])]


def test_read__what_has_no_box_is_counted(read_tasks):
    others = [
        result(kind="keypointlabels", region="k", x=10, y=10, width=0.5),
        result(kind="brushlabels", region="b", format="rle", rle=[1, 2]),
        result(None, kind="choices", region="c") | {"value": {"choices": ["good"]}},
        {"type": "relation", "from_id": "r1", "to_id": "k", "direction": "right"},
    ]
    data = read_tasks(task(1, annotation(*others, result())))
    assert objects(data) == [("cat", CAT)]
    assert all(f"1 {what}" in counted(data) for what in ("brush mask", "choices", "key point"))
    assert data.findings == []


@pytest.mark.parametrize("kind", ["labels", "choices"])
def test_read__shape_and_label_are_two_results(read_tasks, kind):
    shapes = [result(None, kind="rectangle"), result(None, [1, 3, 9, 12], kind="rectangle", region="r2")]
    labels = [result("owl", [1, 3, 9, 12], kind=kind, region="r2"), result("cat", kind=kind)]
    data = read_tasks(task(1, annotation(*shapes, *labels)))
    assert objects(data) == [("cat", CAT), ("owl", [1, 3, 9, 12])]
    assert data.findings == []


def test_read__choice_for_a_region_that_has_a_label(read_tasks):
    occluded = result("occluded", kind="choices")
    bare = result(None, kind="choices") | {"value": {"choices": ["dark"]}}  # old versions repeat no shape
    data = read_tasks(task(1, annotation(result(), occluded, bare)))
    assert objects(data) == [("cat", CAT)]
    assert data.notes == ["images found in ."]


def test_read__regions_with_one_id_by_mistake(read_tasks):
    data = read_tasks(task(1, annotation(result(), result("owl", [1, 3, 9, 12]))))
    assert objects(data) == [("cat", CAT), ("owl", [1, 3, 9, 12])]


def test_read__several_labels_on_a_region(read_tasks):
    both = result()
    both["value"]["rectanglelabels"] = ["cat", "young"]
    data = read_tasks(task(1, annotation(both)))
    assert objects(data) == [("cat", CAT), ("young", CAT)]
    assert data.notes[1:] == ["1 x region with several labels: one box for each label"]


@pytest.mark.parametrize(
    ("annotations", "label"),
    [
        ([{}, {"updated_at": "2024-04-01T00:00:00.000000Z"}, {}], 1),
        ([{"ground_truth": True}, {"updated_at": "2024-04-01T00:00:00.000000Z"}], 0),
        ([{}, {"was_cancelled": True, "updated_at": "2024-04-01T00:00:00.000000Z"}], 0),
        ([{"updated_at": None}, {"updated_at": None}], 1),
    ],
)
def test_read__several_annotations(read_tasks, annotations, label):
    made = [annotation(result(str(number)), **more) for number, more in enumerate(annotations)]
    data = read_tasks(task(1, *made))
    assert objects(data) == [(str(label), CAT)]
    cancelled = any(more.get("was_cancelled") for more in annotations)
    several = "1 x task with several annotations: that marked as ground truth counts, else the newest"
    assert data.notes[1:] == ["1 x cancelled annotation: left out" if cancelled else several]


def test_read__tasks_without_annotation_are_no_images_without_objects(read_tasks):
    predicted = task(2, image="b.png", predictions=[{"result": [result()]}, {"result": []}])
    skipped = task(3, annotation(was_cancelled=True), image="c.png")
    data = read_tasks(task(1, annotation(result())), predicted, skipped)
    assert [image.path.name for image in data.images] == ["a.png"]
    assert data.findings == []
    assert data.notes[1:] == [
        "2 x prediction of a model: ignored, only annotations count",
        "2 x task without annotation: left out, it is no image without objects",
        "1 x cancelled annotation: left out",
    ]


def test_read__predictions_alone(read_tasks):
    with pytest.raises(
        DataError, match=r"no annotated image; 1 x prediction of a model: .*; 1 x task without annotation: left out"
    ):
        read_tasks(task(1, predictions=[{"result": [result()]}]))


@pytest.mark.parametrize(
    "name",
    [
        "/data/upload/1/9f3c1a2b-a.png",
        "/data/local-files/?d=photos/a.png",
        "s3://bucket/2024/a.png",
        "https://example.com/photos/a.png?X-Amz-Signature=00",
        "C:\\photos\\a.png",
        "https://example.com/photos/a",
    ],
)
def test_read__names_of_images(read_tasks, name):
    for data in (
        read_tasks(task(1, annotation(result()), image=name)),
        read_tasks(short(1, short_value(), image=name)),
    ):
        assert [image.path.name for image in data.images] == ["a.png"]
        assert objects(data) == [("cat", CAT)]
        assert data.findings == []


def test_read__the_image_is_what_the_control_shows(read_tasks):
    named = result() | {"to_name": "photo"}
    data = read_tasks(task(1, annotation(named), data={"text": "a cat", "photo": "a.png", "thumbnail": "b.png"}))
    assert [image.path.name for image in data.images] == ["a.png"]
    stated = result() | {"source": "$photo"}
    data = read_tasks(task(1, annotation(stated), data={"image": "b.png", "photo": "a.png"}))
    assert [image.path.name for image in data.images] == ["a.png"]
    only = result() | {"to_name": "img-1"}
    data = read_tasks(task(1, annotation(only), data={"text": "a cat", "photo": "a.png"}))
    assert [image.path.name for image in data.images] == ["a.png"]


def test_read__choice_about_a_text_beside_the_image(read_tasks):
    about_text = result(None, kind="choices", region="c") | {"value": {"choices": ["x"]}, "to_name": "text"}
    data = read_tasks(task(1, annotation(about_text, result()), data={"text": "a cat", "image": "a.png"}))
    assert objects(data) == [("cat", CAT)]
    assert data.findings == []
    images = [result() | {"to_name": "left"}, about_text]
    data = read_tasks(task(1, annotation(*images), data={"left": "a.png", "right": "b.png", "text": "a cat"}))
    assert objects(data) == [("cat", CAT)]
    assert data.findings == []
    assert data.notes[1:] == ["1 x choice or text that is about no image: left out"]


def test_read__json_min_with_another_image_beside(read_tasks):
    data = read_tasks(short(1, short_value(), thumbnail="b.png"))
    assert [image.path.name for image in data.images] == ["a.png"]


def test_read__which_image_is_not_stated(read_tasks):
    unclear = result() | {"to_name": "img-1"}
    two = {"left": "a.png", "right": "b.png"}
    with pytest.raises(DataError, match=r"task 1: region 1: its image could be any of left, right \(to_name 'img-1'\)"):
        read_tasks(task(1, annotation(unclear), data=two))
    good = task(2, annotation(result()))
    data = read_tasks(task(1, annotation(), data=two), good)
    ((kind, what),) = messages(data)
    assert kind == "unreadable-annotations"
    assert what.startswith("task 1: its image could be any of left, right (it has no regions)")
    data = read_tasks(task(1, annotation(result()), data={"image": "data:image/png;base64,AAAA"}), good)
    ((_, what),) = messages(data)
    assert what == "task 1: region 1: its image is inside the file; save it beside the file, and put its name there"


def test_read__several_images_in_a_task(read_tasks):
    left, right = result() | {"to_name": "left"}, result("owl") | {"to_name": "right"}
    data = read_tasks(task(1, annotation(left, right), data={"left": "a.png", "right": "b.png"}))
    assert [(image.path.name, len(image.boxes)) for image in data.images] == [("a.png", 1), ("b.png", 1)]
    pages = {"pages": ["a.png", "b.png"]}
    second = result() | {"to_name": "pages", "item_index": 1}
    data = read_tasks(task(1, annotation(second), data=pages))
    assert [(image.path.name, len(image.boxes)) for image in data.images] == [("b.png", 1), ("a.png", 0)]
    assert data.findings == []
    broken = result() | {"to_name": "pages", "item_index": 2}
    data = read_tasks(task(1, annotation(second, broken), data=pages))
    assert [(image.path.name, len(image.boxes)) for image in data.images] == [("b.png", 1)]
    ((_, what),) = messages(data)
    assert what == "task 1: region 2: its item_index must be a number of one of 2 images, not 2"


def test_read__two_tasks_of_one_image(read_tasks):
    data = read_tasks(task(1, annotation(result())), task(2, annotation(result("owl"))))
    assert objects(data) == [("cat", CAT)]
    assert messages(data) == [("same-image", "task 2: a.png is the image of task 1 already; left out")]


def test_read__two_uploads_that_could_be_one_image(read_tasks):
    tasks = [task(n, annotation(result()), image=f"/data/upload/1/{n}f3c1a2b-a.png") for n in (1, 2)]
    data = read_tasks(*tasks, task(3, annotation(), image="b.png"))
    assert objects(data) == []
    assert [kind for kind, _ in messages(data)] == ["ambiguous-image"] * 2


def test_read__drawn_on_the_rotated_image(read_tasks):
    data = read_tasks(task(1, annotation(result(), result("owl", region="r2") | {"image_rotation": 90})))
    assert objects(data) == [("cat", CAT)]
    ((kind, what),) = messages(data)
    assert kind == "unreadable-annotations"
    assert what.startswith("task 1: region 2: it was drawn on the rotated image (image_rotation)")


def test_read__sizes(read_tasks):
    unknown = {"original_width": None, "original_height": None}
    data = read_tasks(task(1, annotation(result() | unknown)))
    assert objects(data) == [("cat", CAT)]
    assert data.findings == []
    data = read_tasks(task(1, annotation(result() | {"original_width": 80, "original_height": 60})))
    assert [kind for kind, _ in messages(data)] == ["size-mismatch"]
    assert objects(data) == [("cat", [10, 12, 30, 52])]
    several = [result(str(n), region=str(n)) for n in range(3)]
    several[1]["original_width"] = 400
    data = read_tasks(task(1, annotation(*several)))
    assert [name for name, _ in objects(data)] == ["0", "2"]
    assert messages(data)[0][1] == "task 1: region 2: it is of an image of another size than the other regions"


def test_read__a_file_for_each_split(write_files):
    files = {f"images/{stem}.png": None for stem in "ab"}
    root = write_files({**files, "train.json": json.dumps([task(1, annotation(result()))])})
    write_files({"val.json": json.dumps([task(1, annotation(result("owl")), image="b.png")])})
    data = read(root)
    assert {split: [image.path.name for image in images] for split, images in data.splits.items()} == {
        "train": ["a.png"],
        "val": ["b.png"],
    }
    assert list(read(root / "val.json").splits) == ["all"]
    (root / "val.json").write_text('[{"data": {}, "annotations": []')
    data = read(root)
    assert list(data.splits) == ["train"]
    assert [kind for kind, _ in messages(data)] == ["unreadable-annotations"]


def test_read__two_exports_of_a_project(write_files):
    text = json.dumps([task(1, annotation(result()))])
    root = write_files({"a.png": None, "project-1-at-2024.json": text, "project-1-at-2025.json": text})
    with pytest.raises(DataError, match=r"2 annotation files .* name one: .*at-2024\.json, .*at-2025\.json"):
        read(root)


def test_read__images_named_by_the_user(tmp_path, write_files):
    root = write_files({"export.json": json.dumps([task(1, annotation(result()))])})
    store = write_files({"a.png": None}, tmp_path / "store")
    assert [image.path for image in read_data(root, images=store).images] == [store / "a.png"]
    (store / "a.png").unlink()
    with pytest.raises(
        DataError, match=r"its images \(/data/upload/1/9f3c1a2b-a\.png\.\.\.\) are nowhere below .*--images"
    ):
        read_data(root, images=store)


@pytest.mark.parametrize(
    ("damaged", "what"),
    [
        (None, "region 2: an object is expected, not None"),
        (result(None), "region 2: this rectangle has no label"),
        (result(None) | {"value": None}, "region 2: this rectangle has no label"),
        (result() | {"value": {"rectanglelabels": ["x"]}}, "region 2: x, y, width, height must be numbers, not None"),
        (
            result() | {"value": {**result()["value"], "rectanglelabels": [None]}},
            "region 2: its rectanglelabels must be",
        ),
        (result() | {"value": {**result()["value"], "width": "x"}}, "region 2: x, y, width, height must be n"),
        (result(kind="polygonlabels", points=[[1, 2], [3]]), "region 2: 2 numbers are expected, not [3]"),
        (result(kind="polygonlabels", points=[[1, 2]]), "region 2: a polygon of 1 points has no area"),
    ],
)
def test_read__damaged_region_among_good_ones(read_tasks, damaged, what):
    data = read_tasks(task(4, annotation(result("owl", region="a"), damaged, result("ant", region="c"))))
    assert objects(data) == [("owl", CAT), ("ant", CAT)]
    ((kind, text),) = messages(data)
    assert kind == "unreadable-annotations"
    assert text.startswith(f"task 4: {what}")
    assert data.findings[0].annotation == 4


@pytest.mark.parametrize(
    ("damaged", "what"),
    [
        (None, "task 2: an object is expected, not None"),
        (task(2, annotation(), data=None), "task 2: its data must be an object, not None"),
        (task(2, annotations={}), "task 2: its annotations must be a list, not {}"),
        (task(2, None), "task 2: annotation 1 must have a list of results, not None"),
        (task(2, annotation(result=None)), "task 2: annotation 1 must have a list of results, not None"),
        (task(2, annotation(), data={}), "task 2: its image is none of its data (it has no regions)"),
    ],
)
def test_read__damaged_task_among_good_ones(read_tasks, damaged, what):
    data = read_tasks(task(1, annotation(result())), damaged)
    assert objects(data) == [("cat", CAT)]
    ((kind, text),) = messages(data)
    assert kind == "unreadable-annotations"
    assert text.startswith(what)


@pytest.mark.parametrize(
    "content",
    [
        '{"images": [], "annotations": [], "categories": [], "data": {"result": 1}}',
        '[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 1}]',
        '{"_via_img_metadata": {"a.png1": {"filename": "a.png", "regions": []}}}',
        '[{"image": "a.png", "annotations": [{"label": "cat", "coordinates": {"x": 1, "width": 2}}]}]',
        '{"asset": {"path": "a.png"}, "regions": [{"points": []}]}',
        '{"info": {}, "items": [{"id": "a", "annotations": [{"type": "bbox"}]}]}',
        '{"shapes": [], "imagePath": "a.png", "imageData": null}',
        "",
    ],
)
def test_recognise__other_json(write_files, content):
    root = write_files({"a.png": None, "a.json": content})
    assert recognise(root) == recognise(root / "a.json") == []
    with pytest.raises(DataError, match=r"no Label Studio file, that is \.json with tasks"):
        read(root)


def test_recognise__by_no_other_format(write_files):
    pages = task(1, annotation(result() | {"to_name": "images", "item_index": 0}), data={"images": ["a.png", "b.png"]})
    for number, rows in enumerate(([pages], [task(1)], [short(1, short_value(), images=["a.png"])])):
        root = write_files({"export.json": json.dumps(rows)})
        assert recognise(root / "export.json") == [root / "export.json"]
        write_files({"a.png": None, "b.png": None})
        if number == 0:
            assert read_data(root).format == read_data(root / "export.json").format == "Label Studio"


def test_write__as_label_studio_imports_it(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "a b.png")
    boxes, labels = np.array([[5.25, 6, 15, 26.1], [1, 2, 3, 4]], np.float32), np.array([1, 0])
    image = AnnotatedImage(tmp_path / "a b.png", 1, (30, 40), boxes, labels, np.array([False, True]))
    data = AnnotatedData(tmp_path, "test", ("cat", "<owl>"), {"train": [image]})
    notes = write_data(data, tmp_path / "out", "label_studio")
    assert notes == [
        "Label Studio has no flag for difficult objects: 1 box becomes an ordinary one",
        "Label Studio has no list of classes: their order is lost, most tools sort the names",
    ]
    (row,) = json.loads((tmp_path / "out" / "train.json").read_text())
    assert row["data"] == {"image": "/data/local-files/?d=train/a%20b.png"}
    first, second = row["annotations"][0]["result"]
    value = first.pop("value")
    assert first == {
        "id": "box-1",
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": 40,
        "original_height": 30,
        "image_rotation": 0,
    }
    assert value.pop("rectanglelabels") == ["<owl>"]
    assert value == pytest.approx({"x": 13.125, "y": 20, "width": 24.375, "height": 67, "rotation": 0})
    assert (second["id"], second["value"]["rectanglelabels"]) == ("box-2", ["cat"])
    view = ElementTree.parse(tmp_path / "out" / "label-config.xml").getroot()
    assert [(element.tag, element.attrib) for element in view] == [
        ("Image", {"name": "image", "value": "$image"}),
        ("RectangleLabels", {"name": "label", "toName": "image"}),
    ]
    assert [element.get("value") for element in view.iter("Label")] == ["cat", "<owl>"]
    again = read_data(tmp_path / "out")
    np.testing.assert_allclose(again.images[0].boxes, boxes, rtol=0, atol=1e-4)


BOXES = {"cat": (5, 6, 15, 26), "owl": (1, 3, 9, 12), "ant": (2, 3, 4, 9), "bee": (20, 3, 24, 9)}
FIRST, SECOND = (
    [result(label, BOXES[label], region=label) for label in labels] for labels in (("cat", "owl"), ("ant", "bee"))
)
SOUND = [task(1, annotation(*FIRST)), task(2, annotation(*SECOND), image="b.png")]
SOUND_MIN = [short(1, *[short_value(label, BOXES[label]) for label in ("cat", "owl")])]
SOUND_MIN.append(short(2, *[short_value(label, BOXES[label]) for label in ("ant", "bee")], image="b.png"))
FAULTS = st.sampled_from([None, "x", [], {}, [None], float("nan"), float("inf"), 10**400, True])


def places(value, path=()):
    """The paths to all values of a JSON document, but the lists that may be empty."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if path and key not in ("annotations", "result", "label"):
            yield (*path, key)
        yield from places(item, (*path, key))


@settings(max_examples=15, derandomize=True, deadline=None, database=None)
@given(st.sampled_from([SOUND, SOUND_MIN]), st.data(), FAULTS, st.booleans())
def test_read__faults(tmp_path_factory, sound, data, fault, delete):
    content = copy.deepcopy(sound)
    *path, last = data.draw(st.sampled_from(list(places(content))))
    parent = content
    for key in path:
        parent = parent[key]
    parent[last] = fault
    if delete and isinstance(parent, dict):
        del parent[last]
    check(tmp_path_factory.mktemp("faults"), json.dumps(content).encode())


@settings(max_examples=15, derandomize=True, deadline=None, database=None)
@given(st.sampled_from([SOUND, SOUND_MIN]), st.integers(0, 600), st.booleans())
def test_read__broken_files(tmp_path_factory, sound, place, cut):
    text = json.dumps(sound).encode()
    text = text[:place] if cut else text[:place] + b"\xff\0" + text[place:]
    folder = tmp_path_factory.mktemp("broken")
    (folder / "export.json").write_bytes(text)
    with pytest.raises(DataError) as error:
        read(folder)
    assert "\n" not in str(error.value)


def check(folder, text: bytes) -> None:
    """Boxes are as they were, and what is lost is a finding or counted in a note."""
    for name in ("a", "b"):
        Image.new("1", (40, 30)).save(folder / f"{name}.png")
    (folder / "export.json").write_bytes(text)
    data = read(folder)
    assert len(data.images) >= 1
    boxes = [tuple(box) for _, box in objects(data)]
    if not any(finding.kind == "size-mismatch" for finding in data.findings):
        assert set(boxes) <= set(BOXES.values())
    assert len(boxes) == len(set(boxes))
    if len(boxes) < len(BOXES):
        assert data.findings or len(data.notes) > 1
    assert all("\n" not in str(finding) for finding in data.findings)
