import numpy as np
import pytest
import yaml
from PIL import Image

from fasterrcnn.data.formats.base import ReadOptions
from fasterrcnn.data.formats.yolo import Yolo
from fasterrcnn.errors import DataError

GOOD = "0 0.5 0.5 0.25 0.5"  # in an image of 40 x 30
GOOD_BOX = [15, 7.5, 25, 22.5]


@pytest.fixture
def one(write_files):
    """Reads a data set of one image with this label file."""

    def make(text, names=("cat", "dog")):
        return Yolo().read(write_files({"images/a.png": None, "labels/a.txt": text}), ReadOptions(classes=names))

    return make


def found(data):
    return [(finding.kind, finding.annotation) for finding in data.findings]


def test_read__record_by_hand(one):
    data = one(f"{GOOD}\n\n1 0.25 0.2 0.5 0.4\n")
    (annotated,) = data.images
    np.testing.assert_array_equal(annotated.boxes, np.array([GOOD_BOX, [0, 0, 20, 12]], np.float32))
    assert (annotated.boxes.dtype, annotated.labels.dtype, annotated.difficult.dtype) == (
        np.float32,
        np.int64,
        np.bool_,
    )
    assert annotated.labels.tolist() == [0, 1]
    assert annotated.difficult.tolist() == [False, False]
    assert annotated.numbers.tolist() == [1, 3]
    assert (annotated.image_id, annotated.size_hw) == (1, (30, 40))
    assert annotated.source == data.root / "labels/a.txt"
    assert data.category_ids == (1, 2)
    assert data.describe_box(annotated, 1) == "line 3 (dog)"
    assert data.summary() == "YOLO, 1 image, 2 classes (cat, dog), no splits"
    assert data.findings == []


def test_read__upright_image(tmp_path, write_files):
    root = write_files({"labels/a.txt": GOOD})
    tags = Image.Exif()
    tags[274] = 6
    (root / "images").mkdir()
    Image.new("RGB", (40, 30)).save(root / "images/a.png", exif=tags)
    (annotated,) = Yolo().read(root, ReadOptions(classes=("cat",))).images
    assert annotated.size_hw == (40, 30)
    np.testing.assert_array_equal(annotated.boxes, np.array([[11.25, 10, 18.75, 30]], np.float32))


@pytest.mark.parametrize(
    ("line", "box"),
    [
        ("0 0.25 0.2 0.75 0.2 0.5 0.6", [10, 6, 30, 18]),  # triangle
        ("0 0.1 0.9 0.9 0.1 0.1 0.1 0.5 1.0", [4, 3, 36, 30]),
        ("0\t0.5  0.5 0.25 0.5 ", GOOD_BOX),
        ("0.0 5e-1 .5 0.25 0.5", GOOD_BOX),
        ("0 0.5 0.5 1.5 1.0", [-10, 0, 50, 30]),  # over the border, which a later check reports
        ("0 0.5 0.5 -0.25 0.5", [25, 7.5, 15, 22.5]),
        ("0 nan 0.5 0.25 0.5", [np.nan, 7.5, np.nan, 22.5]),
        ("0 0.5 0.5 0.25 inf", [15, -np.inf, 25, np.inf]),
        ("0 0.5 nan 0.75 0.2 0.5 0.6", [20, np.nan, 30, np.nan]),
        ("0 0.5 0.2 nan 0.2 0.75 0.6", [np.nan, 6, np.nan, 18]),
        ("0 -1e300 0.5 0.25 0.5", [-np.inf, 7.5, -np.inf, 22.5]),
    ],
)
def test_read__line_that_is_taken(one, line, box):
    data = one(f"1 0.5 0.5 1 1\n{line}")
    np.testing.assert_allclose(data.images[0].boxes[1], np.array(box, np.float32), rtol=1e-6)
    assert data.findings == []


@pytest.mark.parametrize(
    ("line", "kind", "what"),
    [
        ("0 0.5 0.5 0.25 0.5 0.9", "unreadable-annotations", "a sixth number, as in predictions with a score"),
        ("0 0.5 0.5 0.25", "unreadable-annotations", "4 numbers; expected are class, cx, cy, width, height, or"),
        ("0", "unreadable-annotations", "1 numbers; expected are"),
        ("0 .1 .1 .2 .2 .3 .3 .4", "unreadable-annotations", "8 numbers; expected are"),
        ("cat 0.5 0.5 0.25 0.5", "unreadable-annotations", "expected are numbers: class, cx, cy, width, height"),
        ("0,0.5,0.5,0.25,0.5", "unreadable-annotations", "expected are numbers"),
        ("0.5 0.5 0.5 0.25 0.5", "unreadable-annotations", "the class must be a whole number, not 0.5"),
        ("nan 0.5 0.5 0.25 0.5", "unreadable-annotations", "the class must be a whole number, not nan"),
        ("2 0.5 0.5 0.25 0.5", "unknown-class", "the classes are 0 to 1, not 2"),
        ("-1 0.5 0.5 0.25 0.5", "unknown-class", "the classes are 0 to 1, not -1"),
        ("0 20 15 10 15", "wrong-format", "pixels where shares of the image are expected"),
        ("0 0.5 0.5 1.51 0.5", "wrong-format", "pixels where shares"),
        ("0 nan 15 0.1 0.1", "wrong-format", "pixels where shares"),
    ],
)
def test_read__line_that_is_left_out(one, line, kind, what):
    data = one(f"1 0.5 0.5 1 1\n{line}\n{GOOD}")
    (annotated,) = data.images
    assert annotated.numbers.tolist() == [1, 3]
    (finding,) = data.findings
    assert (finding.kind, finding.annotation, finding.file, finding.image) == (
        kind,
        2,
        annotated.source,
        annotated.path,
    )
    assert finding.what.startswith(f"line 2 ({line}): {what}")


def test_read__long_line_is_shortened(one):
    (finding,) = one("0 " + "0.5 " * 500 + "x").findings
    assert len(finding.what) < 200
    assert "...): expected are numbers" in finding.what


def test_read__every_line_unusable(one):
    data = one("x\ny")
    assert len(data.images) == 1
    assert data.images[0].boxes.shape == (0, 4)
    assert data.images[0].labels.shape == data.images[0].numbers.shape == (0,)
    assert found(data) == [("unreadable-annotations", 1), ("unreadable-annotations", 2)]


def test_read__byte_order_mark(one):
    data = one(b"\xef\xbb\xbf" + GOOD.encode() + b"\r\n")
    np.testing.assert_array_equal(data.images[0].boxes, np.array([GOOD_BOX], np.float32))


def test_read__empty_label_file_is_a_negative(one):
    data = one("\n \n")
    assert data.images[0].boxes.shape == (0, 4)
    assert data.findings == []


def test_read__images_and_labels_without_the_other(write_files):
    root = write_files(
        {"images/a.png": None, "images/b.png": None, "labels/a.txt": GOOD, "labels/c.txt": GOOD}
        | {"labels/classes.txt": "cat", "labels/README.txt": "hello"}
    )
    data = Yolo().read(root)
    assert [len(annotated.boxes) for annotated in data.images] == [1, 0]
    unlabelled, orphan = data.findings
    assert (unlabelled.kind, unlabelled.file, unlabelled.image) == (
        "unlabelled-image",
        root / "labels/b.txt",
        root / "images/b.png",
    )
    assert str(orphan) == f"{root / 'labels/c.txt'}: there is no image called c.*"
    assert orphan.kind == "missing-image"


def test_read__unreadable_files(write_files):
    root = write_files(
        {"images/a.png": b"none", "images/b.png": None, "images/c.png": None}
        | {"labels/a.txt": GOOD, "labels/b.txt": "grün".encode("latin-1"), "labels/c.txt": GOOD}
    )
    data = Yolo().read(root, ReadOptions(classes=("cat",)))
    assert [annotated.path.name for annotated in data.images] == ["c.png"]
    assert [annotated.image_id for annotated in data.images] == [1]
    image, labels = data.findings
    assert image.kind == "unreadable-image"
    assert image.what == "not an image that can be decoded"
    assert (labels.kind, labels.file.name, labels.image) == ("unreadable-annotations", "b.txt", root / "images/b.png")
    assert labels.what.startswith("not UTF-8 text")


def test_read__two_images_of_one_stem(write_files):
    root = write_files({"images/a.png": None, "images/a.bmp": None, "images/b.png": None, "labels/a.txt": GOOD})
    data = Yolo().read(root, ReadOptions(classes=("cat",)))
    assert [annotated.path.name for annotated in data.images] == ["b.png"]
    collision = data.findings[0]
    assert (collision.kind, collision.file) == ("ambiguous-image", root / "labels/a.txt")
    assert collision.what == "several images have its name: a.bmp, a.png"


def test_read__agrees_with_voc(shared_data, tmp_path):
    """Real annotations, written as shares and read again, are the same to a hundredth of a pixel."""
    from fasterrcnn.data.formats.voc import PascalVoc

    expected = PascalVoc().read(shared_data / "bccd" / "BCCD")
    root = tmp_path / "cells"
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    for annotated in expected.images[:30]:
        (root / "images" / annotated.path.name).symlink_to(annotated.path)
        boxes = annotated.boxes / np.tile(annotated.size_hw[::-1], 2)
        centres, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        rows = np.column_stack([annotated.labels, centres, sizes])
        np.savetxt(root / "labels" / f"{annotated.path.stem}.txt", rows, fmt=["%d", "%.6f", "%.6f", "%.6f", "%.6f"])
    data = Yolo().read(root, ReadOptions(classes=expected.classes))
    by_name = {annotated.path.name: annotated for annotated in data.images}
    assert len(by_name) == 30
    for annotated in expected.images[:30]:
        np.testing.assert_allclose(by_name[annotated.path.name].boxes, annotated.boxes, atol=0.01)
        assert by_name[annotated.path.name].labels.tolist() == annotated.labels.tolist()


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
    assert [len(annotated.boxes) for annotated in data.images] == [1, 1]
    assert sorted(annotated.image_id for annotated in data.images) == [1, 2]
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
        assert [annotated.image_id for annotated in data.split("train")] == [1, 2]
        assert data.findings == []


def test_read__an_image_in_two_splits_is_one_object(write_files):
    lists = {"train.txt": "images/a.png\nimages/b.png", "test.txt": "images/b.png\nimages/b.png\nimages/none.png"}
    root = write_files({"images/a.png": None, "images/b.png": None, "labels/a.txt": GOOD, "labels/b.txt": GOOD} | lists)
    data = Yolo().read(root, ReadOptions(classes=("cat",)))
    assert names_of(data) == {"train": ["images/a.png", "images/b.png"], "test": ["images/b.png"]}
    assert data.split("train")[1] is data.split("test")[0]
    assert [str(finding) for finding in data.findings] == [
        f"{root / 'test.txt'}: line 3: there is no images/none.png below {root}"
    ]
    assert found(data) == [("missing-image", 3)]


def test_read__split_that_is_not_there(write_files):
    text = "names: [cat]\ntrain: ../train/images\ntest: ../test/images"
    root = write_files({"train/images/a.png": None, "train/labels/a.txt": GOOD, "data.yaml": text})
    data = Yolo().read(root)
    assert list(data.splits) == ["train"]
    (finding,) = data.findings
    assert (finding.kind, finding.what) == ("empty-split", "test: there is no ../test/images")
    write_files({"data.yaml": "names: [cat]\ntrain: x/y\npath: p"})
    assert Yolo().read(root).notes[1:] == ["data.yaml: there is no x/y; train is read as train"]
    (root / "train").rename(root / "pets")
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
        ("names: [cat, null]", "the name of class 1 is None; write a text, in quotes"),
        ("- names", "not the description of a YOLO data set, which has names, train and val"),
        ("nc: 2", r"names must list the classes, as in names: \[cat, dog\]"),
        ("names: []", "names must list the classes"),
        ("names: cat", "names must list the classes"),
        ("names: {0: cat, 2: dog}", "names must be numbered from 0 without a gap; 1 is missing"),
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


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        ("{0: 7, '1': 8.50}", ("7", "8.50")),
        ("{0: 01, 1: 010}", ("01", "010")),
        ("[007, 1:30, 1e3, 2024-01-01, 2020-99-99]", ("007", "1:30", "1e3", "2024-01-01", "2020-99-99")),
        ("[yes, No, ~x, 'null']", ("yes", "No", "~x", "null")),
    ],
)
def test_read__names_are_the_text_of_the_file(write_files, names, classes):
    root = write_files({"a.png": None, "a.txt": GOOD, "data.yaml": f"names: {names}"})
    assert Yolo().read(root).classes == classes


def test_read__no_image(write_files):
    root = write_files({"labels/a.txt": GOOD, "images/a.png": b"none", "classes.txt": "cat"})
    with pytest.raises(DataError, match=r"no image that could be used; first: .*a\.png: not an image"):
        Yolo().read(root)
    (root / "images/a.png").unlink()
    with pytest.raises(DataError, match=r"no image that could be used; first: .*a\.txt: there is no image"):
        Yolo().read(root)
    (root / "labels/a.txt").unlink()
    with pytest.raises(DataError, match=r"YOLO \(.*set\): no image that could be used$"):
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
        {"a.png": None, "a.txt": "Car 0.00 0 1.57 10 20 30 40 1 1 1 0 0 0 0"},
        {"a.png": None, "a.txt": "1,2,3,4,5,6"},
        {"config.yaml": "classes: [cat]\nclass_names: 1"},
    ],
)
def test_find__other_folders(write_files, files):
    assert Yolo().recognise(write_files(files)) == []
    assert Yolo().recognise(write_files({"a.json": "{}"}) / "a.json") == []


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        ("img/a.png", "labels/a.txt"),
        ("Images/a.png", "Labels/a.TXT"),
        ("photos/2024/a.png", "annotations/yolo_labels/a.txt"),
        ("a.png", "label/a.txt"),
        ("data/images/cam1/a.png", "data/labels/cam1/a.txt"),
        ("a.png", "a.TXT"),
    ],
)
def test_read__labels_in_other_places(write_files, image, labels):
    root = write_files({image: None, labels: GOOD, "classes.txt": "cat"})
    assert Yolo().recognise(root) == [root]
    data = Yolo().read(root)
    assert [(i.path, i.source, len(i.boxes)) for i in data.images] == [(root / image, root / labels, 1)]
    assert data.findings == []


def test_read__labels_of_other_images(write_files):
    """Without labels of its own an image has none: those of another camera or split are not its."""
    files = {"images/cam1/a.png": None, "images/cam2/a.png": None, "labels/cam2/a.txt": GOOD, "classes.txt": "cat"}
    data = Yolo().read(write_files(files))
    assert {i.path.parent.name: len(i.boxes) for i in data.images} == {"cam1": 0, "cam2": 1}
    assert found(data) == [("unlabelled-image", None)]


@pytest.mark.parametrize("name", ["labels/labels.txt", "labels/classes.txt", "pets.names", "train/_classes.txt"])
def test_read__lists_of_classes(write_files, name):
    root = write_files({"images/a.png": None, "labels/a.txt": "1 .5 .5 1 1", name: "cat\ndog\n"})
    data = Yolo().read(root)
    assert data.classes == ("cat", "dog")
    assert data.findings == []


def test_read__image_called_labels(write_files):
    data = Yolo().read(write_files({"images/labels.png": None, "labels/labels.txt": GOOD, "classes.txt": "cat"}))
    assert len(data.images[0].boxes) == 1


def test_read__hidden_folders(write_files):
    checkpoint = {
        "labels/.ipynb_checkpoints/a-checkpoint.txt": GOOD,
        "images/.ipynb_checkpoints/a-checkpoint.png": None,
    }
    data = Yolo().read(write_files({"images/a.png": None, "labels/a.txt": GOOD, "classes.txt": "cat"} | checkpoint))
    assert (len(data.images), data.findings) == (1, [])


@pytest.mark.parametrize(("shape", "numbers"), [("[2, 2]", ".1 .1 .9 .9"), ("[2, 3]", ".1 .1 2 .9 .9 0")])
def test_read__key_points(write_files, shape, numbers):
    files = {
        "images/a.png": None,
        "labels/a.txt": f"{GOOD} {numbers}",
        "data.yaml": f"names: [cat]\nkpt_shape: {shape}",
    }
    data = Yolo().read(write_files(files))
    np.testing.assert_array_equal(data.images[0].boxes, [GOOD_BOX])
    assert data.notes[1:] == ["left out, for want of a box: 1 x key points (of a box)"]


def test_read__no_labels(write_files):
    files = {"images/a.png": None, "annotations/a.txt": GOOD, "data.yaml": "names: [cat]"}
    expected = r"set: no label file for any of 1 images, as a\.png; .*annotations has \.txt files .*call it labels"
    with pytest.raises(DataError, match=expected):
        Yolo().read(write_files(files))


def test_read__split_that_the_yaml_file_forgets(write_files):
    files = {
        f"{split}/{part}/a.{suffix}": content
        for split in ("train", "test", "valid")
        for part, suffix, content in (("images", "png", None), ("labels", "txt", GOOD))
    }
    root = write_files(files | {"data.yaml": "names: [cat]\ntrain: ../train/images\nval: ../valid/images"})
    data = Yolo().read(root)
    assert {split: len(images) for split, images in data.splits.items()} == {"train": 1, "val": 1, "test": 1}
    assert data.notes[1:] == ["test has 1 labelled images, but data.yaml has no test: they are read"]
    for file in (root / "test/labels").iterdir():
        file.unlink()
    assert "test" not in Yolo().read(root).splits


def test_read__folders_of_images_in_the_options(tmp_path, write_files):
    root = write_files({"labels/train/a.txt": GOOD, "labels/val/a.txt": "", "classes.txt": "cat"})
    for split in ("train", "val"):
        write_files({"a.png": None}, tmp_path / "photos" / split)
    data = Yolo().read(root, ReadOptions(images=(tmp_path / "photos/train", tmp_path / "photos/val")))
    assert {split: [len(i.boxes) for i in images] for split, images in data.splits.items()} == {
        "train": [1],
        "val": [0],
    }
    assert Yolo().read(root, ReadOptions(images=(tmp_path / "photos",))).splits.keys() == {"train", "val"}
    (root / "labels/val/a.txt").rename(root / "labels/val/b.txt")
    write_files({"a.png": None, "b.png": None}, tmp_path / "flat")
    data = Yolo().read(root, ReadOptions(images=(tmp_path / "flat",)))
    assert {split: [i.path.name for i in images] for split, images in data.splits.items()} == {
        "train": ["a.png"],
        "val": ["b.png"],
    }


def test_read__images_outside_the_list(write_files):
    files = {"images/a.png": None, "images/b.png": None, "labels/a.txt": GOOD, "labels/b.txt": GOOD}
    data = Yolo().read(write_files(files | {"train.txt": "images/a.png", "classes.txt": "cat"}))
    assert [(f.kind, f.file.name) for f in data.findings if f.kind == "unlisted-image"] == [("unlisted-image", "b.png")]
