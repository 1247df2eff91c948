import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fasterrcnn.data.annotations import to_coco
from fasterrcnn.data.formats import write_data
from fasterrcnn.data.formats.base import ReadOptions
from fasterrcnn.data.formats.coco import Coco
from fasterrcnn.data.formats.coco_files import load_coco
from fasterrcnn.errors import DataError, UsageError

read, recognise = Coco().read, Coco().recognise

CAT = {"id": 1, "name": "cat"}


def image(number, name=None, **more):
    return {"id": number, "file_name": f"{number}.jpg" if name is None else name, "width": 40, "height": 30, **more}


def note(number, image_id=1, category_id=1, box=(1, 2, 10, 20), **more):
    return {"id": number, "image_id": image_id, "category_id": category_id, "bbox": box, **more}


PAIR = (image(1), image(2))


def content(images=(), annotations=(), categories=(CAT,)):
    return {"images": list(images), "annotations": list(annotations), "categories": list(categories)}


def put_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30)).save(path)


def put_json(path: Path, value) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


@pytest.fixture
def single(tmp_path):
    """One file beside its images 1.jpg and 2.jpg; makes it from annotations."""
    for number in (1, 2):
        put_image(tmp_path / f"{number}.jpg")

    def make(*annotations, images=PAIR, categories=(CAT,)):
        return put_json(tmp_path / "data.json", content(images, annotations, categories))

    return make


def messages(data) -> list[tuple[str, str]]:
    return [(finding.kind, finding.what) for finding in data.findings]


def test_read__annotated_image(single):
    categories = [{"id": 90, "name": " toothbrush "}, {"id": 0, "name": "cat"}, {"id": 7, "name": "owl"}]
    crowd = {"iscrowd": 1, "area": 5.5, "segmentation": {"counts": [1], "size": [1, 2]}}
    file = single(
        note(3, 2, 0, (1.5, 2, 10, 20.25)),
        note(9, 2, 90, (0, 0, 4, 5), **crowd),
        note(5, 1, 7, ignore=1),
        categories=categories,
    )
    data = read(file)
    assert data.format == "COCO"
    assert data.root == file.parent
    assert data.classes == ("toothbrush", "cat", "owl")
    assert data.category_ids == (90, 0, 7)
    assert data.findings == []
    first, second = data.split("all")
    assert (second.path, second.image_id, second.size_hw, second.source) == (file.parent / "2.jpg", 2, (30, 40), file)
    np.testing.assert_array_equal(second.boxes, np.array([[1.5, 2, 11.5, 22.25], [0, 0, 4, 5]], np.float32))
    np.testing.assert_array_equal(second.areas, np.array([202.5, 5.5], np.float32))
    assert second.labels.tolist() == [1, 0]
    assert second.difficult.tolist() == [False, True]
    assert second.numbers.tolist() == [3, 9]
    assert first.difficult.tolist() == [True]
    kinds = [column.dtype for column in (first.boxes, first.labels, first.difficult, first.numbers, first.areas)]
    assert kinds == [np.float32, np.int64, np.bool_, np.int64, np.float32]


def test_read__no_annotations(single):
    data = read(single())
    assert [annotated.boxes.shape for annotated in data.split("all")] == [(0, 4), (0, 4)]
    assert data.findings == []


def test_read__one_image_without_objects(single):
    first, second = read(single(note(1))).split("all")
    assert (len(first.boxes), len(second.boxes)) == (1, 0)


# Layouts


@pytest.mark.parametrize(
    ("file", "images"),
    [
        ("annotations/instances_train2017.json", "train2017"),
        ("annotations/instances_train2017.json", "images/train2017"),
        ("annotations/instances_train2017_first100.json", "train2017"),
        ("annotations/instances_train.json", "images/train"),
        ("annotations/instances_train.json", "images"),
        ("annotations/train.json", "training"),
        ("train.json", "train"),
        ("train.json", "data/train"),
        ("train/_annotations.coco.json", "train"),
        ("train/labels.json", "train/data"),
        ("train/train.json", "train/images"),
        ("annotations.json", "."),
        ("annotations.json", "images"),
        ("result.json", "images/a/b"),
        ("annotations.json", "JPEGImages"),
    ],
)
def test_read__layouts(tmp_path, file, images):
    put_image(tmp_path / images / "1.jpg")
    name = "a/b/1.jpg" if images.endswith("a/b") else "1.jpg"
    path = put_json(tmp_path / file, content([image(1, name)], [note(1)]))
    assert recognise(tmp_path) == [tmp_path]
    data = read(tmp_path)
    assert list(data.splits) == ["train" if "train" in file else "all"]
    assert data.images[0].path == tmp_path / images / "1.jpg"
    assert data.findings == []
    assert recognise(path) == [path]
    if images != "training":  # only the name of the split decides
        assert read(path).images[0].path == data.images[0].path


def test_read__coco_itself(tmp_path):
    for split, number in (("train2017", 9), ("val2017", 139)):
        name = f"{number:012}.jpg"
        put_image(tmp_path / split / name)
        whole = content([image(number, name)], [note(1, number)])
        put_json(tmp_path / "annotations" / f"instances_{split}.json", whole)
        put_json(tmp_path / "annotations" / f"captions_{split}.json", {**whole, "categories": []})
        put_json(tmp_path / "annotations" / f"person_keypoints_{split}.json", whole)
    put_json(tmp_path / "annotations" / "image_info_test2017.json", {"images": [], "categories": []})
    data = read(tmp_path)
    assert {name: [r.image_id for r in records] for name, records in data.splits.items()} == {
        "train": [9],
        "val": [139],
    }
    assert data.findings == []


def test_read__roboflow(tmp_path):
    # Every split counts from 0, and category 0 only carries the name of the project.
    categories = [
        {"id": 0, "name": "pets", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "pets"},
        {"id": 2, "name": "dog", "supercategory": "pets"},
    ]
    for split in ("train", "valid", "test"):
        put_image(tmp_path / split / "0.jpg")
        put_json(tmp_path / split / "_annotations.coco.json", content([image(0)], [note(0, 0, 2)], categories))
    data = read(tmp_path)
    assert {name: [r.path.parent.name for r in records] for name, records in data.splits.items()} == {
        "train": ["train"],
        "val": ["valid"],
        "test": ["test"],
    }
    assert data.classes == ("cat", "dog")
    assert data.category_ids == (1, 2)
    assert [annotated.labels.tolist() for annotated in data.images] == [[1], [1], [1]]
    assert [annotated.numbers.tolist() for annotated in data.images] == [[0], [0], [0]]
    assert data.findings == []


@pytest.mark.parametrize(
    ("first", "kept"),
    [
        ({"id": 0, "name": "cat", "supercategory": "none"}, ("cat",)),  # the only class, and unused
        ({"id": 0, "name": "cat", "supercategory": None}, ("cat",)),
    ],
)
def test_read__first_category_that_is_a_class(single, first, kept):
    assert read(single(categories=[first])).classes == kept


def test_read__first_category_that_is_used(single):
    categories = [{"id": 0, "name": "pets", "supercategory": "none"}, {"id": 1, "name": "cat", "supercategory": "pets"}]
    assert read(single(note(1, category_id=0), categories=categories)).classes == ("pets", "cat")


def test_read__images_of_the_right_split(tmp_path):
    for split in ("train", "val"):
        put_image(tmp_path / "images" / split / "1.jpg")
        put_json(tmp_path / "annotations" / f"{split}.json", content([image(1)]))
    data = read(tmp_path)
    assert [annotated.path.parent.name for annotated in data.images] == ["train", "val"]


def test_read__folder_with_most_of_the_images(tmp_path):
    for name in ("some/3.jpg", "data/1.jpg", "data/2.jpg", "data/3.jpg"):
        put_image(tmp_path / name)
    file = put_json(tmp_path / "x.json", content([image(1), image(2), image(3)]))
    assert [annotated.path.parent.name for annotated in read(file).images] == ["data"] * 3
    (tmp_path / "some").rename(tmp_path / "images")  # which may be the originals
    data = read(file)
    assert [annotated.path.parent.name for annotated in data.images] == ["data"] * 2
    assert [finding.kind for finding in data.findings if finding.severity == "error"] == ["ambiguous-image"]


def test_read__images_named(tmp_path):
    put_image(tmp_path / "store" / "train" / "1.jpg")
    put_image(tmp_path / "store" / "val" / "1.jpg")
    for split in ("train", "val"):
        put_json(tmp_path / "set" / f"{split}.json", content([image(1)]))
    data = read(tmp_path / "set", ReadOptions(images=(tmp_path / "store",)))
    assert [annotated.path.parent.name for annotated in data.images] == ["train", "val"]
    with pytest.raises(UsageError, match=r"absent: no such folder of images"):
        read(tmp_path / "set", ReadOptions(images=(tmp_path / "absent",)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"its images \(1\.jpg\.\.\.\) are nowhere below .*/empty; name their folder"):
        read(tmp_path / "set", ReadOptions(images=(tmp_path / "empty",)))


@pytest.mark.parametrize(
    "name",
    [
        "./sub/a b.jpg",
        "sub/a b.jpg",
        "sub\\a b.jpg",
        ".\\sub\\a b.jpg",
    ],
)
def test_read__sub_folders(tmp_path, name):
    put_image(tmp_path / "images" / "sub" / "a b.jpg")
    data = read(put_json(tmp_path / "x.json", content([image(1, name)])))
    assert data.images[0].path == tmp_path / "images" / "sub" / "a b.jpg"
    assert data.findings == []


@pytest.mark.parametrize(
    "name",
    [
        "/home/me/a.jpg",
        "C:\\me\\a.jpg",
        "C:/me/a.jpg",
        "../images/a.jpg",
        "..\\a.jpg",
        "x/../../a.jpg",
        "https://x.org/a.jpg",
    ],
)
def test_read__paths_that_lead_out(tmp_path, name):
    put_image(tmp_path / "images" / "a.jpg")
    assert read(put_json(tmp_path / "x.json", content([image(1, name)]))).images[0].path.name == "a.jpg"


def test_read__two_images_are_one_file(single):
    data = read(single(note(1, 1), note(2, 2), images=[image(1, "/a/1.jpg"), image(2, "/a/1.jpg")]))
    (annotated,) = data.split("all")
    assert (annotated.image_id, annotated.numbers.tolist()) == (1, [1, 2])
    assert messages(data)[0] == ("same-image", "images 1 and 2 are one file; their boxes are put together")
    with pytest.raises(DataError, match=r"/a/1\.jpg and /b/1\.jpg could both be .*1\.jpg"):
        read(single(note(1, 1), note(2, 2), images=[image(1, "/a/1.jpg"), image(2, "/b/1.jpg")]))


def test_read__linked_images(tmp_path):
    put_image(tmp_path / "store" / "1.jpg")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "images").symlink_to(tmp_path / "store")
    assert len(read(put_json(tmp_path / "set" / "x.json", content([image(1)]))).images) == 1
    put_image(tmp_path / "set2" / "2.jpg")
    (tmp_path / "set2" / "1.jpg").symlink_to(tmp_path / "store" / "1.jpg")
    (tmp_path / "set2" / "broken.json").symlink_to(tmp_path / "absent.json")
    put_json(tmp_path / "set2" / "x.json", content([image(1), image(2)]))
    assert len(read(tmp_path / "set2").images) == 2


def test_read__unlisted_and_missing_images(single, tmp_path):
    put_image(tmp_path / "other" / "unrelated.jpg")
    images = [image(1), image(5), image(6, "x" * 300 + "/y.jpg"), image(7, "\ud800.jpg"), image(8, "a\0/b.jpg")]
    data = read(single(note(1, 1), note(2, 5), images=images))
    assert [annotated.image_id for annotated in data.images] == [1]
    assert messages(data) == [
        ("missing-image", f"image 5: there is no 5.jpg below {tmp_path}"),
        ("missing-image", f"image 6: there is no {'x' * 300}/y.jpg below {tmp_path}"),
        ("missing-image", f"image 7: there is no \ud800.jpg below {tmp_path}"),
        ("missing-image", f"image 8: there is no a\0/b.jpg below {tmp_path}"),
        ("unlisted-image", "no annotation file lists it"),
    ]
    assert data.findings[-1].file == tmp_path / "2.jpg"


def test_read__size_from_the_image_where_the_file_has_none(single, tmp_path):
    tags = Image.Exif()
    tags[274] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "2.jpg", exif=tags)
    (tmp_path / "3.jpg").write_text("no image")
    images = [
        image(1, width=None),
        {"id": 2, "file_name": "2.jpg"},
        image(3, height=0),
    ]
    data = read(single(note(1, 3), images=images))
    assert [annotated.size_hw for annotated in data.images] == [(30, 40), (40, 30)]
    assert messages(data) == [("unreadable-image", "not an image that can be decoded")]


@pytest.mark.parametrize("size", [("40", "30"), (40.0, 30.0), (float("nan"), 30), (-1, -1), ([40], {})])
def test_read__size_that_is_no_number(single, size):
    data = read(single(images=[image(1, width=size[0], height=size[1])]))
    assert data.images[0].size_hw == (30, 40)


# Values


def test_read__numbers_as_text(single):
    images = [image("1", "1.jpg"), image(2.0, "2.jpg")]
    file = single(
        note("7", "01", "3", ["1", "2", "10", "20"], iscrowd="0", area="9"),
        note(8.0, 2, 3.0, iscrowd="1"),
        images=images,
        categories=[{"id": "3", "name": 5}],
    )
    data = read(file)
    assert data.findings == []
    assert data.classes == ("5",)
    first, second = data.split("all")
    assert (first.image_id, first.numbers.tolist(), first.difficult.tolist()) == (1, [7], [False])
    np.testing.assert_array_equal(first.boxes, np.array([[1, 2, 11, 22]], np.float32))
    assert first.areas.tolist() == [200]
    assert (second.numbers.tolist(), second.difficult.tolist()) == ([8], [True])


@pytest.mark.parametrize("area", [None, "x", float("nan"), float("inf"), -3, 0, [], 10**400])
def test_read__area_missing_or_wrong_is_that_of_the_box(single, area):
    data = read(single(note(1, area=area), note(2)))
    assert data.images[0].areas.tolist() == [200, 200]
    assert data.findings == []


def test_read__annotations_without_usable_ids(single):
    rows = [note(2), note(None), note("b3a1"), note("b3a1"), note(10**40), note([1])]
    del rows[1]["id"]
    data = read(single(*rows))
    assert data.images[0].numbers.tolist() == [2, 2, 3, 4, 5, 6]  # their places in the list
    assert data.findings == []


def test_read__large_ids_keep_every_digit(single):
    number = 2**62 + 1
    assert read(single(note(number))).images[0].numbers.tolist() == [number]


def test_read__boxes_stay_as_they_are_written(single):
    boxes = [[5, 5, 0, 0], [5, 5, -3, 2], [float("nan"), 1, 2, 3], [float("inf"), 0, 1, 1], [1e300, 0, 1, 1]]
    data = read(single(*(note(n, box=box) for n, box in enumerate(boxes))))
    expected = [[5, 5, 5, 5], [5, 5, 2, 7], [np.nan, 1, np.nan, 4], [np.inf, 0, np.inf, 1], [np.inf, 0, np.inf, 1]]
    np.testing.assert_array_equal(data.images[0].boxes, np.array(expected, np.float32))
    assert data.findings == []


@pytest.mark.parametrize(
    ("change", "kind", "what"),
    [
        (
            {"bbox": [1, 2, 3]},
            "unreadable-annotations",
            "bbox must be four numbers (left, top, width, height), not [1, 2, 3]",
        ),
        ({"bbox": [1, 2, 3, 4, 5]}, "unreadable-annotations", "not [1, 2, 3, 4, 5]"),
        ({"bbox": []}, "unreadable-annotations", "not []"),
        ({"bbox": None}, "unreadable-annotations", "not None"),
        ({"bbox": 5}, "unreadable-annotations", "not 5"),
        ({"bbox": [1, 2, None, 4]}, "unreadable-annotations", "not [1, 2, None, 4]"),
        ({"bbox": [1, 2, "x", 4]}, "unreadable-annotations", "not [1, 2, 'x', 4]"),
        ({"bbox": [10**400, 2, 3, 4]}, "unreadable-annotations", "not [1000"),
        ({"bbox": {"x": 1, "y": 2, "width": 3, "height": 4}}, "unreadable-annotations", "not {'height': 4,"),
        ({"category_id": 4}, "unknown-class", "no category has the id 4"),
        ({"category_id": None}, "unknown-class", "no category has the id None"),
        ({"category_id": [1]}, "unknown-class", "no category has the id [1]"),
        ({"image_id": 99}, "unknown-image", "no image has the id 99"),
        ({"image_id": "x"}, "unknown-image", "no image has the id 'x'"),
        ({"image_id": {}}, "unknown-image", "no image has the id {}"),
    ],
)
def test_read__annotation_that_cannot_be_used(single, change, kind, what):
    data = read(single(note(4), {**note(17), **change}))
    assert data.images[0].numbers.tolist() == [4]
    ((kind_of_finding, message),) = messages(data)
    assert kind_of_finding == kind
    assert message.startswith("annotation 17: ")
    assert what in message
    assert data.findings[0].annotation == 17
    assert data.findings[0].file.name == "data.json"


@pytest.mark.parametrize("key", ["bbox", "category_id", "image_id"])
def test_read__annotation_without(single, key):
    broken = note(17)
    del broken[key]
    data = read(single(note(4), broken))
    assert messages(data) == [("unreadable-annotations", f"annotation 17: it has no {key}")]


def test_read__long_values_are_cut_in_messages(single):
    data = read(single(note(4), note(5, box=list(range(100_000)))))
    assert len(data.findings[0].what) < 200


def test_read__colliding_ids(single):
    file = single(
        note(1, 1),
        note(1, 1),
        note(2, 3),
        images=[image(1), image(2), image(3, "2.jpg"), image(3, "x.jpg")],
        categories=[CAT, {"id": 1, "name": "dog"}, {"id": 2, "name": "owl"}, {"id": 3, "name": "owl"}],
    )
    data = read(file)
    assert messages(data) == [
        ("colliding-id", "two categories have the id 1; the first counts"),
        ("colliding-id", "categories 2, 3 are all called 'owl'; they count as one class"),
        ("colliding-id", "2 images have the id 3, one is 2.jpg"),
        ("colliding-id", "2 images have the id 3, one is x.jpg"),
        ("colliding-id", "2 annotations have the id 1"),
    ]
    assert data.classes == ("cat", "owl")
    assert data.category_ids == (1, 2)
    assert [annotated.image_id for annotated in data.images] == [1, 2]
    assert len(data.images[0].boxes) == 2


@pytest.mark.parametrize("change", [{"id": None}, {"id": []}, {"id": 1.5}, {"file_name": ""}, {"file_name": None}])
def test_read__image_without_id_or_name(single, change):
    data = read(single(images=[image(1), {**image(2), **change}]))
    assert [annotated.image_id for annotated in data.images] == [1]
    assert messages(data)[0][0] == "unreadable-annotations"
    assert "needs an id, and a file_name" in messages(data)[0][1]


def test_read__no_image_is_named(single):
    with pytest.raises(DataError, match=r"no image that could be used; first: .*image 1 \(''\) needs an id"):
        read(single(images=[{"id": 1}]))


# Splits


def make_splits(root: Path, **categories) -> Path:
    for split, rows in categories.items():
        put_image(root / split / "1.jpg")
        put_json(root / split / "_annotations.coco.json", content([image(1)], [], rows))
    return root


def test_read__classes_of_all_splits(tmp_path):
    dog, owl = {"id": 5, "name": "dog"}, {"id": 2, "name": "owl"}
    data = read(make_splits(tmp_path, train=[CAT, dog], valid=[dog], test=[owl, CAT]))
    assert data.classes == ("cat", "dog", "owl")
    assert data.category_ids == (1, 5, 2)
    assert data.findings == []


def test_read__splits_that_number_their_classes_differently(tmp_path):
    dog, owl = {"id": 2, "name": "dog"}, {"id": 3, "name": "owl"}
    root = make_splits(tmp_path, train=[CAT, dog, owl], valid=[{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}])
    file = root / "valid" / "_annotations.coco.json"
    both = {**json.loads(file.read_text()), "annotations": [note(1, category_id=1), note(2, category_id=2)]}
    put_json(file, both)
    data = read(root)
    assert (data.classes, data.category_ids) == (("cat", "dog", "owl"), (1, 2, 3))
    assert data.split("val")[0].labels.tolist() == [1, 0]
    assert "the files number the categories differently: classes are matched by name" in data.notes
    assert data.findings == []


def test_read__split_whose_class_has_the_id_of_another(tmp_path):
    data = read(make_splits(tmp_path, train=[CAT], valid=[{"id": 1, "name": "dog"}]))
    assert (data.classes, data.category_ids) == (("cat", "dog"), (1, 2))
    assert "ids of categories clash" in data.notes[-1]


def test_read__empty_split(tmp_path):
    make_splits(tmp_path, train=[CAT])
    put_json(tmp_path / "test" / "_annotations.coco.json", content())
    data = read(tmp_path)
    assert list(data.splits) == ["train"]
    assert messages(data) == [("empty-split", "lists no image")]


def test_read__files_whose_names_do_not_state_the_splits(tmp_path):
    put_image(tmp_path / "1.jpg")
    for name in ("one", "two"):
        put_json(tmp_path / f"{name}.json", content([image(1)]))
    with pytest.raises(DataError, match=r"2 annotation files may be of the same split; name one: .*one\.json"):
        read(tmp_path)


def test_read__file_of_no_split_beside_those_of_splits(tmp_path):
    for split in ("Train", "Validation", "default"):
        put_image(tmp_path / "images" / split / "1.jpg")
        put_json(tmp_path / "annotations" / f"instances_{split}.json", content([image(1)], [note(1)]))
    data = read(tmp_path)
    assert list(data.splits) == ["train", "val"]
    assert [f.file.name for f in data.findings if f.kind == "unlisted-annotations"] == ["instances_default.json"]


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ('{"images": [1], "annotations": []}', ("unreadable-annotations", "not a COCO data set: 'images' must be a l")),
        ('{"images": [], "annotations": [', ("unreadable-annotations", "broken JSON")),
        (json.dumps(content([image(9)])), ("missing-image", "its images (9.jpg...) are nowhere below")),
    ],
)
def test_read__broken_split_beside_a_good_one(tmp_path, text, finding):
    make_splits(tmp_path, train=[CAT])
    (tmp_path / "val.json").write_text(text)
    data = read(tmp_path)
    assert list(data.splits) == ["train"]
    ((kind, what),) = messages(data)
    assert (kind, what[: len(finding[1])]) == finding


# Segmentations without a box

RUNS = {"size": [30, 40], "counts": [65, 3, 1132]}  # column 2, rows 5 to 7


@pytest.mark.parametrize(
    ("segmentation", "box"),
    [
        ([[10, 11, 20, 11, 20.5, 25, 10, 25]], [10, 11, 20.5, 25]),
        ([[10, 10, 12, 10, 12, 12], [30, 20, 32, 20, 32, 22]], [10, 10, 32, 22]),
        ([10, 10, 12, 10, 12, 12], [10, 10, 12, 12]),
        (RUNS, [2, 5, 3, 8]),
        ({"size": [30, 40], "counts": "Q23\\S1"}, [2, 5, 3, 8]),
    ],
)
@pytest.mark.parametrize("missing", [{}, {"bbox": None}, {"bbox": []}])
def test_read__box_around_a_segmentation(single, segmentation, box, missing):
    row = {"id": 4, "image_id": 1, "category_id": 1, "segmentation": segmentation, "iscrowd": 1, "area": 7, **missing}
    data = read(single(row, note(5)))
    np.testing.assert_array_equal(data.images[0].boxes[0], np.array(box, np.float32))
    assert (data.images[0].difficult.tolist(), data.images[0].areas.tolist()) == ([True, False], [7, 200])
    assert "taken as the box around: 1 x segmentation" in data.notes
    assert data.findings == []


@pytest.mark.parametrize(
    ("rotation", "box", "count"),
    [
        (90.0, [30, 10, 50, 70], 1),  # around the centre (40, 40)
        (-90, [30, 10, 50, 70], 1),
        (180.0, [10, 30, 70, 50], 1),
        (360.0, [10, 30, 70, 50], 0),
        (0.0, [10, 30, 70, 50], 0),
        ("left", [10, 30, 70, 50], 0),  # an attribute of the user
        (True, [10, 30, 70, 50], 0),
        (None, [10, 30, 70, 50], 0),
    ],
)
def test_read__box_that_cvat_rotated(single, rotation, box, count):
    data = read(single(note(1, box=(10, 30, 60, 20), attributes={"rotation": rotation}), note(2, attributes=[])))
    np.testing.assert_allclose(data.images[0].boxes[0], box, atol=1e-5)
    assert data.images[0].areas.tolist() == [1200, 200]
    assert data.notes[1:] == [f"taken as the box around: {count} x rotated box"] * count


def test_read__rotation_that_is_too_large(single):
    data = read(single(note(1, attributes={"rotation": 10**400}), note(2)))
    assert messages(data)[0][1].startswith("annotation 1: rotation must be a number, not 1000")
    assert data.images[0].numbers.tolist() == [2]


@pytest.mark.parametrize("value", [5, "x", {"counts": "1"}, {"size": [3, 3], "counts": [9]}, [[1, 2, 3]], [["a", "b"]]])
def test_read__segmentation_that_is_none(single, value):
    broken = {"id": 4, "image_id": 1, "category_id": 1, "segmentation": value}
    data = read(single(broken, note(5)))
    ((kind, what),) = messages(data)
    assert kind == "unreadable-annotations"
    assert what.startswith("annotation 4: segmentation must be polygons or an RLE, not ")
    assert data.images[0].numbers.tolist() == [5]


# Ids that are no whole numbers


@pytest.mark.parametrize(
    ("ids", "numbers", "stated"),
    [
        (["6f1e3a", "6f1e3b"], [1, 2], ["6f1e3a", "6f1e3b"]),
        (["000123", "000124"], [123, 124], ["000123", "000124"]),
        ([12345678901234567890, 7], [1, 2], [12345678901234567890, 7]),
        (["20230412093015123", "a"], [1, 2], ["20230412093015123", "a"]),
        ([5, 7.0], [5, 7], [5, 7]),
    ],
)
def test_read__ids_of_images(single, ids, numbers, stated):
    first, second = ids
    images = [image(first, "1.jpg"), image(second, "2.jpg")]
    data = read(single(note(1, second), images=images))
    assert [annotated.image_id for annotated in data.images] == numbers
    assert [annotated.stated_id for annotated in data.images] == stated
    assert [len(annotated.boxes) for annotated in data.images] == [0, 1]
    assert data.findings == []


def test_write__ids_as_they_were(single, tmp_path):
    file = single(note(1, "b"), images=[image("a", "1.jpg"), image("b", "2.jpg")])
    write_data(read(file), tmp_path / "out", "coco")
    written = json.loads((tmp_path / "out" / "annotations" / "instances_all.json").read_text())
    assert [row["id"] for row in written["images"]] == ["a", "b"]
    assert [row["image_id"] for row in written["annotations"]] == ["b"]


def test_read__ids_of_categories_that_are_text(single):
    data = read(single(note(1, 1, "person"), categories=[{"id": "person", "name": "Person"}, CAT]))
    assert (data.classes, data.category_ids) == (("Person", "cat"), (1, 2))
    assert data.images[0].labels.tolist() == [0]
    assert "ids count from 1" in data.notes[-1]


def test_read__name_of_the_file_without_underscore(single):
    images = [{"id": 1, "filename": "1.jpg", "width": 40, "height": 30}]
    assert read(single(images=images)).images[0].path.name == "1.jpg"


# Files


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"data\.json: broken JSON \(Expecting value: .*\); is the file complete\?"),
        ('{"images": [{"id": 1, "file_na', r"data\.json: broken JSON \(Unterminated string .*is the file complete\?"),
        (b'{"images": "\xff"}', r"data\.json: not UTF-8 text \(.* at byte 12\); save it as UTF-8$"),
        ("[" * 200_000, r"data\.json: cannot be read \(maximum recursion depth"),
        ('{"images": ' + "9" * 5000 + "}", r"data\.json: cannot be read \(Exceeds the limit"),
        ("[]", r"data\.json: a list, as of COCO results; a data set has images, annotations, categories"),
        ('{"images": [], "annotation": []}', r"no 'annotations', but 'annotation': rename the key"),
        ("5", r"data\.json: not a COCO data set: 'images' must be a list of objects"),
        ('{"images": {}}', r"not a COCO data set: 'images' must be a list of objects"),
        ('{"images": [], "annotations": [5]}', r"not a COCO data set: 'annotations' must be a list of objects"),
        ('{"images": [], "annotations": []}', r"not a COCO data set: 'categories' must be a list of objects"),
        ('{"images": [], "annotations": [], "categories": []}', r"data\.json: no categories"),
        (json.dumps(content()), r"COCO \(.*data\.json\): no image that could be used; first: .*lists no image$"),
        (json.dumps(content(categories=[{"id": 1}])), r"category \{'id': 1\} needs an id, and a name"),
        (json.dumps(content(categories=[{"id": 1, "name": None}])), "needs an id, and a name"),
        (json.dumps(content(categories=[{"id": [1], "name": "cat"}])), "needs an id, and a name"),
    ],
)
def test_read__damaged_file(tmp_path, text, message):
    (tmp_path / "data.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path / "data.json")
    assert "\n" not in str(caught.value)


def test_read__byte_order_mark(single):
    file = single(note(1))
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(read(file).images) == 2


def test_read__no_such_file_or_a_folder(tmp_path):
    (tmp_path / "x.json").mkdir()
    assert recognise(tmp_path) == []
    with pytest.raises(DataError, match=r"x\.json: no COCO file, that is \.json with images and annotations"):
        read(tmp_path / "x.json")
    with pytest.raises(DataError, match="absent"):
        read(tmp_path / "absent.json")


def test_find__only_annotation_files(tmp_path):
    assert recognise(tmp_path) == []
    (tmp_path / "empty.json").touch()
    put_json(tmp_path / "package.json", {"name": "x"})
    put_json(tmp_path / "results.json", [{"image_id": 1, "bbox": [1, 2, 3, 4], "score": 1}])
    put_json(tmp_path / "createml.json", [{"image": "1.jpg", "annotations": []}])
    put_json(tmp_path / "no_list.json", {"images": "annotations", "annotations": []})
    put_json(tmp_path / ".hidden.json", content())
    assert recognise(tmp_path) == []
    assert recognise(tmp_path / "package.json") == []  # also where it is named
    assert recognise(tmp_path / "image.jpg") == []
    put_json(tmp_path / "a" / "b" / "c" / "d" / "data.json", content())
    assert recognise(tmp_path) == []
    put_json(tmp_path / "a" / "b" / "c" / "data.json", content())
    assert recognise(tmp_path) == [tmp_path]  # images may lie beside a/
    put_image(tmp_path / "a" / "b" / "c" / "1.jpg")
    assert recognise(tmp_path) == [tmp_path / "a" / "b" / "c"]
    put_json(tmp_path / "annotation" / "any name.JSON", content())
    assert recognise(tmp_path) == [tmp_path]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [], "annotation": []}', "has 'images' and no 'annotations', but 'annotation': rename the key"),
        (
            '{"images": [{"id": 1, "file_na',
            "has 'images' and no 'annotations', which COCO needs; is the file complete?",
        ),
        ('[{"image_id": 1, "bbox": [1, 2, 3, 4], "score": 1}]', "a list, as of COCO results; a data set has images"),
        ('{"images": []}'.encode("utf-16"), "UTF-16 text; save it as UTF-8"),
        ('{"name": "x"}', ""),
        (b"", ""),
    ],
)
def test_near_miss(tmp_path, text, message):
    file = tmp_path / "x" / "data.json"
    file.parent.mkdir()
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    for place in (tmp_path, file):
        assert Coco().near_miss(place).startswith(f"{file}: {message}" if message else "")
        assert bool(Coco().near_miss(place)) == bool(message)


# Properties and real data

VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(row=st.fixed_dictionaries({}, optional=dict.fromkeys(note(1, area=1, iscrowd=0, ignore=0), VALUE)))
def test_read__whatever_an_annotation_holds(single, row):
    good = note(4)
    data = read(single(good, {**good, **row}))
    taken = sum(len(annotated.boxes) for annotated in data.images)
    lost = [kind for kind, _ in messages(data) if kind != "colliding-id"]
    assert taken + len(lost) == 2


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(row=st.fixed_dictionaries({}, optional=dict.fromkeys(image(1), VALUE)))
def test_read__whatever_an_image_holds(single, row):
    data = read(single(note(1, 2), images=[{**image(1), **row}, image(2)]))
    assert 2 in [annotated.image_id for annotated in data.images] or data.findings


def test_to_coco__gives_back_what_was_read(single):
    categories = [{"id": 90, "name": "cat"}, {"id": 3, "name": "dog"}]
    written = content(
        [image(1), image(2)],
        [
            note(1, 1, 3, [1.0, 2.0, 10.0, 20.0], area=7.5, iscrowd=0),
            note(2, 2, 90, [0.0, 0.0, 4.0, 5.0], area=20.0, iscrowd=1),
        ],
        categories,
    )
    data = read(single(*written["annotations"], categories=categories))
    assert to_coco(data, data.images) == written


def test_read__images_are_not_there(shared_data):
    with pytest.raises(
        DataError, match=r"instances_val2014_100\.json: its images \(COCO_val2014_\d+\.jpg\.\.\.\) are nowhere"
    ):
        read(shared_data / "coco_eval")
    with pytest.raises(DataError, match=r"results\.json: a list, as of COCO results"):
        read(shared_data / "coco_eval" / "instances_val2014_fakebbox100_results.json")


def test_read__coco_val2014_against_pycocotools(shared_data, tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    file = shared_data / "coco_eval" / "instances_val2014_100.json"
    oracle = coco.COCO(str(file))
    for row in oracle.imgs.values():
        (tmp_path / row["file_name"]).touch()
    data = read(file, ReadOptions(images=(tmp_path,)))
    assert data.findings == []
    assert len(data.classes) == 80
    assert len(data.images) == 100
    for annotated in data.images:
        rows = oracle.loadAnns(oracle.getAnnIds(imgIds=annotated.image_id))
        assert annotated.numbers.tolist() == [row["id"] for row in rows]
        assert [data.category_ids[label] for label in annotated.labels] == [row["category_id"] for row in rows]
        assert [data.classes[n] for n in annotated.labels] == [oracle.cats[row["category_id"]]["name"] for row in rows]
        assert annotated.difficult.tolist() == [bool(row["iscrowd"]) for row in rows]
        boxes = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_array_equal(annotated.boxes, boxes.astype(np.float32))
        np.testing.assert_array_equal(annotated.areas, np.array([row["area"] for row in rows], np.float32))


@pytest.mark.parametrize("unusual", [{}, {"ignore": 1}, {"area": None}, {"bbox": [1, 2, "3", 4]}, {"id": "7"}])
def test_read__many_boxes_one_unusual(single, unusual):
    notes = [note(n, image_id=1, box=(n % 7, 1, 10, 20), area=n, iscrowd=n % 2) for n in range(1, 1300)]
    alike = read(single(*notes)).images[0]
    notes[700] |= unusual
    changed = read(single(*notes)).images[0]
    others = np.arange(1299) != 700
    assert alike.numbers.tolist() == list(range(1, 1300))
    for name in ("boxes", "labels", "difficult", "numbers", "areas"):
        np.testing.assert_array_equal(getattr(alike, name)[others], getattr(changed, name)[others])


def test_read__segmentations_that_are_no_outlines(single):
    kept = [{"counts": [1, 2], "size": [3, 4]}, [1, "]"], [[1, 2], {}], [[[1]]], "[1]", None]
    cut = [[[1, 2.5, -3e-7]], [[1, 2], [3, 4]], [], [1, 2]]
    notes = [note(n, segmentation=value) for n, value in enumerate([*cut, *kept], start=1)]
    file = single(*notes)
    for indent in (None, 1):
        file.write_text(json.dumps(content([image(1)], notes), indent=indent))
        rows = load_coco(file)["annotations"]
        assert [row.pop("segmentation") for row in rows] == [*[None] * len(cut), *kept]
        assert rows == [note(n, box=[1, 2, 10, 20]) for n in range(1, len(notes) + 1)]
