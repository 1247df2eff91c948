import numpy as np
import pytest
from PIL import Image

from fasterrcnn.data.voc import read_voc
from fasterrcnn.errors import DataError, UsageError


def xml(*objects: str) -> str:
    return f"<annotation><filename>x</filename>{''.join(objects)}</annotation>"


def thing(name: str, box, extra: str = "") -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    inner = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return f"<object><name>{name}</name>{extra}<bndbox>{inner}</bndbox></object>"


GOOD = thing("cat", (5, 6, 15, 26))


@pytest.fixture
def folder(tmp_path):
    """Makes a data set of 40 x 30 pictures from the XML of each; lists make splits."""

    def make(annotations, splits=None, root=tmp_path / "set", pictures=None):
        for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (root / name).mkdir(parents=True, exist_ok=True)
        for stem, text in annotations.items():
            (root / "Annotations" / f"{stem}.xml").write_text(text, encoding="utf-8")
        for stem in annotations if pictures is None else pictures:
            Image.new("RGB", (40, 30)).save(root / "JPEGImages" / f"{stem}.jpg")
        for name, stems in (splits or {}).items():
            (root / "ImageSets/Main" / f"{name}.txt").write_text("".join(f"{stem}\n" for stem in stems))
        return root

    return make


def test_read_voc__splits_in_the_order_of_the_files(folder):
    root = folder(dict.fromkeys("abcd", xml(GOOD)), {"train": ["c", "a", "c", ""], "val": ["b"], "test": ["d"]})
    data = read_voc(root)
    assert data.format == "Pascal VOC"
    assert {name: [r.path.stem for r in records] for name, records in data.splits.items()} == {
        "train": ["c", "a"],
        "val": ["b"],
        "test": ["d"],
    }
    assert data.summary() == "Pascal VOC, 4 images, 1 classes (cat), train 2 / val 1 / test 1"


def test_read_voc__without_splits_all(folder):
    data = read_voc(folder({"b": xml(), "a": xml(GOOD)}))
    assert [r.path.stem for r in data.split("all")] == ["a", "b"]
    with pytest.raises(UsageError, match="no split 'test'; there are: all"):
        data.split("test")


def test_read_voc__record(folder):
    objects = thing("owl", (1, 2, 3, 4)), thing(" cat ", ("5.5", " 6 ", "15", "26"), "<difficult>1</difficult>")
    (record,) = read_voc(folder({"a": xml(*objects)})).split("all")
    assert record.image_id == 1
    assert record.size_hw == (30, 40)
    np.testing.assert_array_equal(record.boxes, np.array([[1, 2, 3, 4], [5.5, 6, 15, 26]], np.float32))
    assert record.labels.tolist() == [1, 0]  # classes are sorted by name
    assert record.difficult.tolist() == [False, True]
    assert (record.boxes.dtype, record.labels.dtype, record.difficult.dtype) == (np.float32, np.int64, np.bool_)


def test_read_voc__picture_without_objects(folder):
    first, second = read_voc(folder({"a": xml(), "b": xml(GOOD)})).split("all")
    assert first.boxes.shape == (0, 4)
    assert first.labels.shape == first.difficult.shape == (0,)
    assert len(second.boxes) == 1


def test_read_voc__a_picture_in_two_splits_is_one_record(folder):
    data = read_voc(folder({"a": xml(GOOD), "b": xml(GOOD)}, {"train": ["a", "b"], "val": ["b"]}))
    assert data.split("train")[1] is data.split("val")[0]
    assert data.summary().startswith("Pascal VOC, 2 images")


@pytest.mark.parametrize("depth", ["VOC2007", "VOCdevkit/VOC2007"])
def test_read_voc__found_below(tmp_path, folder, depth):
    folder({"a": xml(GOOD)}, root=tmp_path / "top" / depth)
    assert read_voc(tmp_path / "top").root == tmp_path / "top" / depth


def test_read_voc__several_data_sets(tmp_path, folder):
    folder({"a": xml(GOOD)}, root=tmp_path / "one")
    folder({"a": xml(GOOD)}, root=tmp_path / "two")
    with pytest.raises(DataError, match=r"several data sets, name one: .*one, .*two"):
        read_voc(tmp_path)


def test_read_voc__not_a_data_set(tmp_path, folder):
    with pytest.raises(DataError, match=r"absent: no such folder"):
        read_voc(tmp_path / "absent")
    with pytest.raises(DataError, match=r"not Pascal VOC, there is no folder with Annotations/ and JPEGImages/"):
        read_voc(tmp_path)
    (tmp_path / "Annotations").mkdir()
    with pytest.raises(DataError, match="not Pascal VOC"):
        read_voc(tmp_path)


def test_read_voc__empty_split(tmp_path, folder):
    data = read_voc(folder({"a": xml(GOOD)}, {"train": ["a"], "val": []}))
    assert list(data.splits) == ["train"]
    assert [p.file.name for p in data.problems] == ["val.txt"]
    with pytest.raises(DataError, match="no annotated picture"):
        read_voc(folder({}, root=tmp_path / "nothing"))


def test_read_voc__names_with_spaces_and_marks(folder):
    data = read_voc(folder({"my photo 1": xml(GOOD), "b": xml(GOOD)}, {"valid": ["my photo 1", "b  -1"]}))
    assert [r.path.stem for r in data.split("val")] == ["my photo 1", "b"]


@pytest.mark.parametrize(
    ("box", "problem", "kept"),
    [
        ((5, 6, 5, 20), "cat) 5,6,5,20: no area; dropped", None),
        ((5, 6, 20, 6), "no area; dropped", None),
        ((20, 6, 5, 20), "no area; dropped", None),
        ((50, 6, 60, 20), "outside the picture of 40 x 30; dropped", None),
        ((-20, 6, 0, 20), "outside the picture of 40 x 30; dropped", None),
        (("nan", 6, 20, 20), "not finite; dropped", None),
        ((5, 6, "inf", 20), "not finite; dropped", None),
        ((-5, 6, 50, 20), "reaches over the picture of 40 x 30; cut", (0, 6, 40, 20)),
        ((0, -1, 41, 31), None, (0, 0, 40, 30)),  # one pixel is a matter of counting from 1
        ((0, 0, 40, 30), None, (0, 0, 40, 30)),
    ],
)
def test_read_voc__boxes_that_need_a_word(folder, box, problem, kept):
    data = read_voc(folder({"a": xml(GOOD, thing("cat", box))}))
    (record,) = data.split("all")
    np.testing.assert_array_equal(record.boxes[1:], np.array([kept] if kept else [], np.float32).reshape(-1, 4))
    if problem is None:
        assert data.problems == []
    else:
        (said,) = (str(p) for p in data.problems)
        assert said.startswith(str(data.root / "Annotations" / "a.xml") + ": object 2 (cat)")
        assert problem in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation>", r"a\.xml: not readable XML \(no element found"),
        ("", r"a\.xml: not readable XML"),
        (xml(thing("", (1, 2, 3, 4))), r"a\.xml: object 1 has no name"),
        (xml("<object><bndbox/></object>"), "object 1 has no name"),
        (xml(GOOD, thing("dog", (1, 2, "three", 4))), r"object 2 \(dog\): xmin, .* must be numbers \(.*three"),
        (xml("<object><name>dog</name></object>"), r"object 1 \(dog\): xmin, ymin, xmax and ymax must be numbers"),
        (xml(thing("dog", (1, 2, "", 4))), r"object 1 \(dog\): xmin, ymin, xmax and ymax must be numbers"),
    ],
)
def test_read_voc__damaged_annotation(folder, text, message):
    with pytest.raises(DataError, match=f"1 problems in .*{message}"):
        read_voc(folder({"a": text}))


def test_read_voc__missing_files(folder):
    with pytest.raises(DataError, match=r"a\.xml: there is no picture .*JPEGImages/a\.\*"):
        read_voc(folder({"a": xml(GOOD)}, pictures=[]))
    with pytest.raises(DataError, match=r"ghost\.xml: no such file"):
        read_voc(folder({"a": xml(GOOD)}, {"train": ["a", "ghost"]}, pictures=["a", "ghost"]))


def test_read_voc__picture_that_is_none(folder):
    root = folder({"a": xml(GOOD)})
    (root / "JPEGImages" / "a.jpg").write_text("no picture")
    with pytest.raises(DataError, match=r"a\.jpg: not a picture that can be decoded"):
        read_voc(root)


def test_read_voc__several_problems_in_one_message(folder):
    root = folder(
        {"a": "<", "b": xml(thing("", (1, 2, 3, 4))), "c": xml(GOOD), "d": xml(GOOD)}, pictures=["a", "b", "c"]
    )
    with pytest.raises(DataError, match=r"3 problems in .*a\.xml.*; .*b\.xml.*; .*d\.xml"):
        read_voc(root)


def test_read_voc__many_problems_are_counted(folder):
    with pytest.raises(DataError, match=r"^30 problems in .*; and 10 more$") as caught:
        read_voc(folder({f"{n:02}": "<" for n in range(30)}))
    assert "\n" not in str(caught.value)


def test_read_voc__split_file_in_another_encoding(folder):
    root = folder({"a": xml(GOOD)})
    (root / "ImageSets/Main/train.txt").write_bytes("grün\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"train\.txt"):
        read_voc(root)


def test_read_voc__blood_cells(shared_data):
    data = read_voc(shared_data / "bccd")
    assert {name: len(records) for name, records in data.splits.items() if name != "trainval"} == {
        "train": 205,
        "val": 87,
        "test": 72,
    }
    assert data.classes == ("Platelets", "RBC", "WBC")
    said = sorted(str(problem) for problem in data.problems if "no area" in str(problem))
    assert len(said) == 2
    assert "BloodImage_00338.xml" in said[0]
    assert "504,337,504,337: no area; dropped" in said[0]
    assert "BloodImage_00343.xml" in said[1]
    assert "181,329,181,329: no area; dropped" in said[1]
    records = [r for name in ("train", "val", "test") for r in data.split(name)]
    counts = np.bincount(np.concatenate([r.labels for r in records]))
    # 361, 4,155 and 372 in the files
    assert counts.sum() + sum("dropped" in str(problem) for problem in data.problems) == 4888
    assert counts[2] == 372
