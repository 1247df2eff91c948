"""Where a data set's images, labels and names of classes are looked for."""

import pytest
import yaml

from fasterrcnn.data.formats.base import ReadOptions
from fasterrcnn.data.formats.yolo import Yolo
from fasterrcnn.errors import DataError

GOOD = "0 0.5 0.5 0.25 0.5"


def found(data):
    return [(finding.kind, finding.annotation) for finding in data.findings]


def names_of(data):
    return {split: [str(r.path.relative_to(data.root)) for r in records] for split, records in data.splits.items()}


@pytest.mark.parametrize(
    "pairs",
    [
        [("train/images/a.png", "train/labels/a.txt"), ("valid/images/b.png", "valid/labels/b.txt")],
        [("images/train/a.png", "labels/train/a.txt"), ("images/val/b.png", "labels/val/b.txt")],
        [("images/train/x/y/a.png", "labels/train/x/y/a.txt"), ("images/val/b.png", "labels/val/b.txt")],
        [("Train/a.png", "Train/a.txt"), ("validation/b.png", "validation/b.txt")],
    ],
)
@pytest.mark.parametrize("described", [True, False])
def test_read__splits_by_layout(write_files, pairs, described):
    files = {path: None for path, _ in pairs} | {labels: GOOD for _, labels in pairs}
    root = write_files(files | ({"data.yaml": "names: [cat]"} if described else {"obj.names": "cat\n"}))
    assert Yolo().recognise(root) == [root]
    data = Yolo().read(root)
    assert names_of(data) == {"train": [pairs[0][0]], "val": [pairs[1][0]]}
    assert [len(record.boxes) for record in data.images] == [1, 1]
    assert sorted(record.image_id for record in data.images) == [1, 2]
    assert data.findings == []


@pytest.mark.parametrize(
    "entries",
    [
        {"train": "images/train", "val": "images/val"},
        {"path": "images", "train": "train", "valid": ["val"]},
        {"train": "../images/train", "val": "..\\images\\val"},  # as Roboflow does
        {"path": "/content/elsewhere", "train": "images/train", "validation": "/content/elsewhere/images/val"},
        {"train": "train.txt", "val": "val.txt"},
    ],
)
def test_read__splits_by_yaml(write_files, entries):
    root = write_files(
        {"images/train/a.png": None, "images/train/sub/c.png": None, "images/val/b.png": None}
        | {"labels/train/a.txt": GOOD, "labels/train/sub/c.txt": "", "labels/val/b.txt": GOOD}
        | {"data.yaml": yaml.safe_dump({"names": {0: "cat", 1: "dog"}, "nc": 2, "test": None} | entries)}
        | {"train.txt": "./images/train/a.png\n\n/x/images/train/sub/c.png\n", "val.txt": "data/images/val/b.png"}
    )
    assert Yolo().recognise(root) == [root]
    for place in (root, root / "data.yaml"):
        data = Yolo().read(place)
        assert data.root == root
        assert data.classes == ("cat", "dog")
        assert names_of(data) == {
            "train": ["images/train/a.png", "images/train/sub/c.png"],
            "val": ["images/val/b.png"],
        }
        assert [record.image_id for record in data.split("train")] == [1, 2]
        assert data.findings == []


def test_read__a_image_in_two_splits_is_one_record(write_files):
    lists = {"train.txt": "images/a.png\nimages/b.png", "test.txt": "images/b.png\nimages/b.png\nimages/none.png"}
    root = write_files({"images/a.png": None, "images/b.png": None, "labels/a.txt": GOOD, "labels/b.txt": GOOD} | lists)
    data = Yolo().read(root, ReadOptions(classes=("cat",)))
    assert names_of(data) == {"train": ["images/a.png", "images/b.png"], "test": ["images/b.png"]}
    assert data.split("train")[1] is data.split("test")[0]
    assert [str(finding) for finding in data.findings] == [f"{root / 'test.txt'}: line 3: there is no images/none.png"]
    assert found(data) == [("missing-image", 3)]


def test_read__split_that_is_not_there(write_files):
    text = "names: [cat]\ntrain: ../train/images\ntest: ../test/images"
    root = write_files({"train/images/a.png": None, "train/labels/a.txt": GOOD, "data.yaml": text})
    data = Yolo().read(root)
    assert list(data.splits) == ["train"]
    (finding,) = data.findings
    assert (finding.kind, finding.what) == ("empty-split", "test: there is no ../test/images")
    write_files({"data.yaml": "names: [cat]\ntrain: x/y\npath: p"})
    with pytest.raises(DataError, match=r"data\.yaml: train: there is no x/y, from .*p, .*set; correct its paths"):
        Yolo().read(root)


def test_read__images_beside_labels(write_files):
    root = write_files(
        {"classes.txt": "cat\ndog\n\n", "a.png": None, "a.txt": GOOD, "sub/b.png": None, "sub/b.txt": ""}
    )
    assert Yolo().recognise(root) == [root]
    data = Yolo().read(root)
    assert names_of(data) == {"all": ["a.png", "sub/b.png"]}
    assert data.classes == ("cat", "dog")
    assert data.findings == []


def test_read__darknet_in_folders_of_splits(write_files):
    files = {
        "train/_darknet.labels": "cat\ndog",
        "train/a.png": None,
        "train/a.txt": "1 .5 .5 1 1",
        "train/._a.txt": "?",
    }
    root = write_files(files | {"test/b.png": None, "test/b.txt": GOOD, "test/_darknet.labels": "cat\ndog"})
    assert Yolo().recognise(root) == [root]
    data = Yolo().read(root)
    assert names_of(data) == {"train": ["train/a.png"], "test": ["test/b.png"]}
    assert data.findings == []


def test_read__folder_called_images_above(tmp_path, write_files):
    root = write_files({"obj.names": "cat", "a.png": None, "a.txt": GOOD}, tmp_path / "images" / "mine")
    assert len(Yolo().read(root).images[0].boxes) == 1


def test_read__given_classes_count_before_a_list(write_files):
    root = write_files({"images/a.png": None, "labels/a.txt": "1 .5 .5 1 1", "classes.txt": "cat"})
    assert Yolo().read(root, ReadOptions(classes=("owl", "fox"))).classes == ("owl", "fox")
    assert found(Yolo().read(root)) == [("unknown-class", 1)]


def test_read__no_names(write_files):
    root = write_files({"images/a.png": None, "labels/a.txt": GOOD})
    with pytest.raises(DataError, match=r"set: the classes have no names; give them .*data\.yaml .* or classes\.txt"):
        Yolo().read(root)


def test_read__count_that_disagrees(write_files):
    root = write_files({"images/a.png": None, "labels/a.txt": GOOD, "data.yaml": "names: [cat, dog]\nnc: 3"})
    data = Yolo().read(root)
    assert data.classes == ("cat", "dog")
    (finding,) = data.findings
    assert finding.kind == "unknown-class"
    assert str(finding) == f"{root / 'data.yaml'}: nc is 3, but names has 2: cat, dog"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [cat", r"broken YAML \(while parsing a flow sequence .*"),
        ("names: [!!python/object:os.system x]", r"broken YAML \(could not determine a constructor"),
        ("names: [2020-99-99]", r"broken YAML \(month must be in 1\.\.12"),
        ("- names", "not the description of a YOLO data set, which has names, train and val"),
        ("nc: 2", r"names must list the classes, as in names: \[cat, dog\]"),
        ("names: []", "names must list the classes"),
        ("names: cat", "names must list the classes"),
        ("names: {0: cat, 2: dog}", "names must be numbered from 0 without a gap; 1 is missing"),
        ("names: [cat, no]", "the name of class 1 is False; write a text, in quotes"),
        ("names: [cat, '']", "the name of class 1 is ''"),
        ("names: [cat, [dog]]", r"the name of class 1 is \['dog'\]"),
        ("names: [cat, dog, cat]", "two classes are called 'cat'"),
        ("names: [cat]\ntrain: [images]\nval: {a: b}", None),
    ],
)
def test_read__yaml(write_files, text, message):
    root = write_files({"images/a.png": None, "labels/a.txt": GOOD, "data.yaml": text})
    if message is None:
        assert found(Yolo().read(root / "data.yaml")) == [("empty-split", None)]
        return
    with pytest.raises(DataError, match=rf"data\.yaml: {message}") as caught:
        Yolo().read(root / "data.yaml")
    assert "\n" not in str(caught.value)


def test_read__yaml_and_lists_in_another_encoding(write_files):
    latin = "names: [grün]".encode("latin-1")
    root = write_files({"images/a.png": None, "labels/a.txt": GOOD, "data.yaml": latin})
    with pytest.raises(DataError, match=r"data\.yaml: broken YAML \('utf-8' codec"):
        Yolo().read(root)
    (root / "data.yaml").unlink()
    write_files({"classes.txt": latin})
    with pytest.raises(DataError, match=r"classes\.txt: not UTF-8 text \(invalid .* at byte"):
        Yolo().read(root)
    write_files({"classes.txt": "cat\n\ndog"})
    with pytest.raises(DataError, match=r"classes\.txt: the name of class 1 is ''"):
        Yolo().read(root)


def test_read__numbers_as_names(write_files):
    assert Yolo().read(write_files({"a.png": None, "data.yaml": "names: {0: 7, '1': 8.5}"})).classes == ("7", "8.5")


def test_read__no_image(write_files):
    root = write_files({"labels/a.txt": GOOD, "images/a.png": b"none", "classes.txt": "cat"})
    with pytest.raises(DataError, match=r"no image that could be used; first: .*a\.png: not an image"):
        Yolo().read(root)
    (root / "images/a.png").unlink()
    with pytest.raises(DataError, match=r"no image that could be used; first: .*a\.txt: there is no image"):
        Yolo().read(root)
    (root / "labels/a.txt").unlink()
    with pytest.raises(DataError, match=r"set: no image that could be used$"):
        Yolo().read(root)


def test_find__below(tmp_path, write_files):
    write_files({"images/a.png": None, "labels/a.txt": GOOD}, tmp_path / "b")
    write_files({"dataset.yml": "names:\n- cat", "images/train/a.png": None}, tmp_path / "x/a")
    write_files({"images/a.png": None, "labels/a.txt": GOOD}, tmp_path / "x/y/too-deep")
    assert Yolo().recognise(tmp_path) == [tmp_path / "b", tmp_path / "x/a"]


def test_find__several_descriptions(write_files):
    root = write_files({"coco.yaml": "names: [cat]", "other.yaml": "{names: [dog]}", "run.yaml": "lr: 1"})
    assert Yolo().recognise(root) == [root / "coco.yaml", root / "other.yaml"]
    write_files({"data.yaml": "names: [cat]"})
    assert Yolo().recognise(root) == [root]
    assert Yolo().recognise(root / "other.yaml") == [root / "other.yaml"]


@pytest.mark.parametrize(
    "files",
    [
        {"images/a.png": None},
        {"images/a.png": None, "labels/a.png": None},  # masks
        {"a.png": None, "classes.txt": "cat"},
        {"a.png": None, "a.txt": GOOD},
        {"config.yaml": "classes: [cat]\nclass_names: 1"},
    ],
)
def test_find__other_folders(write_files, files):
    assert Yolo().recognise(write_files(files)) == []
    assert Yolo().recognise(write_files({"a.json": "{}"}) / "a.json") == []
