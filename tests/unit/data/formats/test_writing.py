"""From one format to another and back, and what is refused before anything is written."""

import inspect
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from fasterrcnn.data import formats
from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage
from fasterrcnn.data.formats import read_data, write_data, writing
from fasterrcnn.errors import DataError, UsageError
from fasterrcnn.images import read_size_hw

CLASSES = ("cat", "owl <&> \"é'")
FORMATS = ("coco", "voc", "yolo", "cvat", "labelme", "label_studio")
WITHOUT_FLAGS = ("yolo", "label_studio")  # they lose which objects are difficult
BOX = (5.25, 6, 15, 26.1)


def annotated(path, boxes=(BOX,), labels=None, *, size_hw=(30, 40), image_id=1, difficult=(), image=True, **columns):
    """A annotated, and its image unless the file is there."""
    if image and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size_hw[::-1], (image_id % 256, 0, 0)).save(path, format="PNG")
    count = len(boxes)
    return AnnotatedImage(
        path,
        image_id,
        size_hw,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(labels if labels is not None else [0] * count, np.int64),
        np.array([index in difficult for index in range(count)], np.bool_),
        **columns,
    )


def data_of(splits, format="test", classes=CLASSES, **options) -> AnnotatedData:
    root = next((r.path.parent for records in splits.values() for r in records), Path("nowhere"))
    return AnnotatedData(root, format, classes, splits, **options)


def assert_same(first, second, atol=0.0, difficult=True):
    """Same splits, images, classes of the boxes and boxes, in the same order within an image."""
    assert list(first.splits) == list(second.splits)
    for split, records in first.splits.items():
        others = {r.path.stem: r for r in second.splits[split]}
        assert sorted(r.path.stem for r in records) == sorted(others)
        for r in records:
            other = others[r.path.stem]
            assert r.size_hw == other.size_hw
            assert [first.classes[i] for i in r.labels] == [second.classes[i] for i in other.labels]
            np.testing.assert_allclose(r.boxes, other.boxes, rtol=0, atol=atol)
            if difficult:
                np.testing.assert_array_equal(r.difficult, other.difficult)


def files(folder) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def splits(tmp_path):
    train = [
        annotated(tmp_path / "in/a.png", [BOX, (0, 0, 40, 30)], [1, 0], difficult=[1]),
        annotated(tmp_path / "in/b.png", [], image_id=2),
    ]
    return {"train": train, "val": [annotated(tmp_path / "in/c.png", [(1, 2, 8.5, 7)], size_hw=(7, 9), image_id=3)]}


def test_write_data__coco(tmp_path, splits):
    data = data_of(splits, category_ids=(7, 3))
    notes = write_data(data, tmp_path / "out", "coco")
    assert notes == ["COCO has no flag for difficult objects: 1 box becomes a crowd, which evaluation ignores as well"]
    annotations = ["annotations/instances_train.json", "annotations/instances_val.json"]
    assert files(tmp_path / "out") == [*annotations, "train/a.png", "train/b.png", "val/c.png"]
    content = json.loads((tmp_path / "out" / annotations[0]).read_text())
    assert content["images"] == [
        {"id": 1, "file_name": "a.png", "height": 30, "width": 40},
        {"id": 2, "file_name": "b.png", "height": 30, "width": 40},
    ]
    assert content["categories"] == [{"id": 7, "name": "cat"}, {"id": 3, "name": CLASSES[1]}]
    first, second = content["annotations"]
    assert first.pop("area") == pytest.approx(9.75 * 20.1)
    assert first == {"id": 1, "image_id": 1, "category_id": 3, "bbox": [5.25, 6, 9.75, 20.1], "iscrowd": 0}
    expected = {"id": 2, "image_id": 1, "category_id": 7, "bbox": [0, 0, 40, 30], "area": 1200}
    assert second == expected | {"iscrowd": 1, "ignore": 1}
    again = read_data(tmp_path / "out")
    assert_same(data, again)
    assert (again.category_ids, again.classes) == ((7, 3), CLASSES)


def test_write_data__coco_keeps_ids_and_areas(tmp_path):
    columns = {"numbers": np.array([70, 12]), "areas": np.array([100.5, 8], np.float32)}
    first = annotated(tmp_path / "a.png", [BOX, BOX], image_id=900, **columns)
    second = annotated(tmp_path / "b.png", [], image_id=4)
    data = data_of({"all": [first, second]}, "COCO", category_ids=(90, 1))
    assert write_data(data, tmp_path / "out", "coco") == []
    again = read_data(tmp_path / "out")
    assert [r.image_id for r in again.split("all")] == [900, 4]
    assert again.split("all")[0].numbers.tolist() == [70, 12]
    assert again.split("all")[0].areas.tolist() == [100.5, 8]
    assert again.category_ids == (90, 1)


@pytest.mark.parametrize(
    ("format", "numbers"), [("COCO", (5, 5)), ("COCO", (0, 1)), ("COCO", None), ("Pascal VOC", (8, 9))]
)
def test_write_data__coco_numbers_anew(tmp_path, format, numbers):
    columns = {} if numbers is None else {"numbers": np.array(numbers)}
    data = data_of({"all": [annotated(tmp_path / "a.png", [BOX, BOX], **columns)]}, format)
    write_data(data, tmp_path / "out", "coco")
    content = json.loads((tmp_path / "out/annotations/instances_all.json").read_text())
    assert [annotation["id"] for annotation in content["annotations"]] == [1, 2]


def test_write_data__voc(tmp_path, splits):
    data = data_of(splits)
    assert write_data(data, tmp_path / "out", "voc") == []
    out = tmp_path / "out"
    assert files(out) == [
        *(f"Annotations/{stem}.xml" for stem in "abc"),
        *(f"ImageSets/Main/{split}.txt" for split in ("train", "val")),
        *(f"JPEGImages/{stem}.png" for stem in "abc"),
    ]
    assert (out / "ImageSets/Main/train.txt").read_text() == "a\nb\n"
    tree = ElementTree.parse(out / "Annotations/a.xml")
    assert [tree.findtext(f"size/{side}") for side in ("width", "height", "depth")] == ["40", "30", "3"]
    assert tree.findtext("filename") == "a.png"
    assert [e.text for e in tree.iter("name")] == [CLASSES[1], "cat"]
    assert [e.text for e in tree.iter("difficult")] == ["0", "1"]
    assert [[side.text for side in e] for e in tree.iter("bndbox")] == [
        ["5.25", "6", "15", "26.1"],
        ["0", "0", "40", "30"],
    ]
    assert_same(data, read_data(out))


def test_write_data__yolo(tmp_path, splits):
    data = data_of(splits)
    notes = write_data(data, tmp_path / "out", "yolo")
    assert notes == ["YOLO has no flag for difficult objects: 1 box becomes an ordinary one"]
    out = tmp_path / "out"
    images = ["train/a.png", "train/b.png", "val/c.png"]
    expected = [f"images/{p}" for p in images] + [f"labels/{p[:-3]}txt" for p in images] + ["data.yaml"]
    assert files(out) == sorted(expected)
    assert yaml.safe_load((out / "data.yaml").read_text(encoding="utf-8")) == {
        "train": "images/train",
        "val": "images/val",
        "names": {0: "cat", 1: CLASSES[1]},
    }
    assert (out / "labels/train/b.txt").read_bytes() == b""
    first, second = (out / "labels/train/a.txt").read_text().splitlines()
    assert first == "1 0.253125 0.535 0.24375 0.67"
    assert second == "0 0.5 0.5 1 1"
    again = read_data(out)
    assert_same(data, again, atol=1e-3, difficult=False)
    assert again.findings == []


@pytest.mark.parametrize("to", FORMATS)
def test_write_data__without_splits(tmp_path, splits, to):
    data = data_of({"all": splits["train"] + splits["val"]})
    write_data(data, tmp_path / "out", to)
    assert_same(data, read_data(tmp_path / "out"), atol=1e-3, difficult=to not in WITHOUT_FLAGS)


@pytest.mark.parametrize("to", FORMATS)
def test_write_data__may_be_moved(tmp_path, splits, to):
    data = data_of(splits)
    write_data(data, tmp_path / "out", to)
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    for path in (tmp_path / "in").iterdir():
        path.unlink()
    assert_same(data, read_data(tmp_path / "elsewhere"), atol=1e-3, difficult=to not in WITHOUT_FLAGS)


@pytest.mark.parametrize("to", FORMATS)
def test_write_data__an_image_in_several_splits(tmp_path, splits, to):
    first, second = splits["train"]
    data = data_of({"train": [first], "trainval": [first, second], "val": []})
    notes = write_data(data, tmp_path / "out", to)
    again = read_data(tmp_path / "out")
    assert {s: [r.path.name for r in records] for s, records in again.splits.items()} == {
        "train": ["a.png"],
        "trainval": ["a.png", "b.png"],
    }
    copies = [name for name in files(tmp_path / "out") if name.endswith("a.png")]
    assert len(copies) == (1 if to == "voc" else 2)
    assert ("1 image in several splits: a copy is in each" in notes) == (to != "voc")


def test_write_data__voc_takes_equal_records_for_one(tmp_path):
    # COCO files of train and trainval list an image twice.
    first, second = annotated(tmp_path / "a.png"), annotated(tmp_path / "a.png", image_id=9)
    write_data(data_of({"train": [first], "trainval": [second]}), tmp_path / "out", "voc")
    assert len(read_data(tmp_path / "out").images) == 1


@pytest.mark.parametrize("to", FORMATS)
def test_write_data__images_of_one_name(tmp_path, to):
    places = ["1/a.png", "2/a.png", "3/A.PNG", "4/a.webp", "4/a-2.png"]
    records = [annotated(tmp_path / place, [(n, 1, 20, 20)], image_id=n) for n, place in enumerate(places, start=1)]
    notes = write_data(data_of({"train": records}), tmp_path / "out", to)
    names = ["a.png", "a-2.png", "A-3.PNG", "a-4.webp", "a-2-2.png"]
    folder = {"voc": "JPEGImages", "yolo": "images/train", "cvat": "images/Train"}.get(to, "train")
    images = [path.name for path in (tmp_path / "out" / folder).iterdir() if path.suffix != ".json"]
    assert sorted(images) == sorted(names)
    for number, r in enumerate(records, start=1):
        assert (tmp_path / "out" / folder / names[number - 1]).read_bytes() == r.path.read_bytes()
    assert f"4 images in {Path(folder).name}/ got another name, as 'a.png', which is now 'a-2.png'" in notes
    again = {r.path.name: r.boxes[0, 0] for r in read_data(tmp_path / "out").images}
    assert again == pytest.approx({name: n for n, name in enumerate(names, start=1)}, abs=1e-3)


@pytest.mark.parametrize("to", FORMATS)
def test_write_data__same_names_in_two_splits(tmp_path, to):
    data = data_of(
        {s: [annotated(tmp_path / s / "1.png", image_id=n)] for n, s in enumerate(("train", "val"), start=1)}
    )
    write_data(data, tmp_path / "out", to)
    assert [r.path.name for r in read_data(tmp_path / "out").images] == [
        "1.png",
        "1-2.png" if to == "voc" else "1.png",
    ]


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("..\\..\\up.png", "_.._up.png"),
        ("C:\\x.png", "C__x.png"),
        ("two\nlines.png", "two_lines.png"),
        ("..png", "image.png"),
        (".hidden.png", "hidden.png"),
        (" a b .png", "a b.png"),
        ("no extension", "no extension.jpg"),
        ("a.b.txt", "a.b.txt.jpg"),
        ("a\x1b\u2028<b>.png", "a___b_.png"),
        ("\udcff.png", "_.png"),
        ("grün.PNG", "grün.PNG"),
        ("b -1.png", "b -1.png"),
    ],
)
def test_write_data__file_names(tmp_path, name, safe, to):
    data = data_of({"train": [annotated(tmp_path / "in" / name)]})
    write_data(data, tmp_path / "out", to)
    assert [r.path.name for r in read_data(tmp_path / "out").images] == [safe]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


@pytest.mark.parametrize("to", FORMATS)
def test_write_data__odd_boxes_as_they_are(tmp_path, to):
    odd = [(5, 5, 5, 20), (-3, -4, 50, 60), (9, 9, 9, 9), (30, 20, 45, 29.125), (0.1, 0.2, 0.3, 0.4)]
    data = data_of({"train": [annotated(tmp_path / "a.png", odd)]})
    write_data(data, tmp_path / "out", to)
    boxes = read_data(tmp_path / "out").images[0].boxes
    # YOLO's reader takes a share far above 1 for pixels.
    expected = np.delete(odd, 1, axis=0) if to == "yolo" and len(boxes) < len(odd) else np.array(odd)
    expected = expected.astype(np.float32)
    np.testing.assert_allclose(boxes, expected, rtol=0, atol=1e-3 if to in WITHOUT_FLAGS else 0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_write_data__not_finite(tmp_path, value):
    odd = annotated(tmp_path / "a.png", [BOX, (1, 2, value, 4)], source=tmp_path / "a.json", numbers=np.array([3, 17]))
    with pytest.raises(
        DataError, match=r'a\.json: annotation 17 \(cat\): box 1,2,.*,4 is not finite.*data check --fix"'
    ):
        write_data(data_of({"train": [odd]}), tmp_path / "out", "coco")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_write_data__output_that_is_not_empty(tmp_path, splits):
    (tmp_path / "out").mkdir()
    write_data(data_of(splits), tmp_path / "out", "voc")  # empty
    before = files(tmp_path)
    with pytest.raises(UsageError, match="out exists and is not empty; give another output folder"):
        write_data(data_of(splits), tmp_path / "out", "voc")
    assert files(tmp_path) == before


def test_write_data__makes_parents(tmp_path, splits, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_data(data_of(splits), Path("new/deep/out"), "yolo")
    assert_same(data_of(splits), read_data(tmp_path / "new/deep/out"), atol=1e-3, difficult=False)


def test_write_data__unknown_format(tmp_path, splits):
    with pytest.raises(UsageError, match="no format 'csv' to write; there are: coco, voc, yolo, cvat"):
        inspect.unwrap(write_data)(data_of(splits), tmp_path / "out", "csv")


def test_write_data__splits_that_tools_do_not_know(tmp_path, splits):
    with pytest.raises(DataError, match=r"no split called '\.\./up'; name it one of train, val, trainval, test"):
        write_data(data_of({"../up": splits["train"]}), tmp_path / "out", "coco")
    with pytest.raises(
        DataError, match=r'c\.png and perhaps more are in no split, others are; .* "fasterrcnn data split"'
    ):
        write_data(data_of({"train": splits["train"], "all": splits["val"]}), tmp_path / "out", "voc")


@pytest.mark.parametrize("to", FORMATS)
def test_write_data__nothing_half_written(tmp_path, splits, to, monkeypatch):
    missing = annotated(tmp_path / "in/absent.png", image=False)
    data = data_of({**splits, "test": [missing]})
    with pytest.raises(DataError, match=r"absent\.png: no such file; nothing was written"):
        write_data(data, tmp_path / "out", to)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(writing.shutil, "copyfile", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_data(data, tmp_path / "out", to)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_write_data__what_is_lost(tmp_path):
    columns = {"areas": np.array([9.75 * 20.1, 8], np.float32)}
    first = annotated(tmp_path / "a.png", [BOX, BOX], [2, 2], difficult=[0, 1], **columns)
    data = data_of({"train": [first]}, "COCO", ("owl", "dog", "ant"), category_ids=(3, 2, 1))
    masks = "has no areas: of 1 object the box counts, not the outline"
    ids = "has no ids of classes: those of the original are lost"
    assert write_data(data, tmp_path / "coco", "coco") == []
    assert write_data(data, tmp_path / "yolo", "yolo") == [
        "YOLO has no flag for difficult objects: 2 boxes become ordinary ones",
        f"YOLO {masks}",
        f"YOLO {ids}",
    ]
    assert write_data(data, tmp_path / "voc", "voc") == [
        f"Pascal VOC {masks}",
        f"Pascal VOC {ids}",
        "Pascal VOC has no list of classes: those without boxes are lost (owl, dog)",
        "Pascal VOC has no list of classes: their order is lost, most tools sort the names",
    ]


@settings(max_examples=15, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(
    st.lists(
        st.tuples(
            st.sampled_from([(1, 1), (480, 640), (4000, 37), (333, 2001)]),
            st.lists(st.tuples(st.integers(0, 1), *[st.floats(0, 1, width=32)] * 4), max_size=4),
            st.sampled_from(["train", "val", "test"]),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_write_data__round_trips(tmp_path_factory, rows):
    root = tmp_path_factory.mktemp("trip")
    # VOC and COCO have no data sets without classes.
    splits = {"train": [annotated(root / "0.png", [BOX, BOX], [0, 1], image_id=99)]}
    for number, (size_hw, objects, split) in enumerate(rows, start=1):
        scale = np.array([*size_hw[::-1], *size_hw[::-1]])
        boxes = np.array([values for _, *values in objects]).reshape(-1, 2, 2)
        boxes = np.concatenate([boxes.min(axis=1, initial=1), boxes.max(axis=1, initial=0)], axis=1) * scale
        path = root / f"{number}.png"
        Image.new("1", size_hw[::-1]).save(path, compress_level=1)
        labels = [label for label, *_ in objects]
        splits.setdefault(split, []).append(annotated(path, boxes, labels, size_hw=size_hw, image_id=number))
    splits = {name: splits[name] for name in ("train", "val", "test") if name in splits}
    data = data_of(splits)
    now = data
    for step, to in enumerate(("voc", "coco", "yolo", "coco")):
        write_data(now, root / str(step), to)
        now = formats.FORMATS[to].read(root / str(step))
    assert_same(data, now, atol=0.01)


@pytest.mark.parametrize("name", ["bccd", "road_signs"])
def test_write_data__round_trips_of_real_data(tmp_path, shared_data, name):
    data = read_data(shared_data / name)
    data = replace(data, splits={s: records[::12] for s, records in data.splits.items() if s != "trainval"})
    now = data
    for step, to in enumerate(("coco", "yolo", "coco", "voc")):
        write_data(now, tmp_path / str(step), to)
        now = read_data(tmp_path / str(step))
        assert_same(data, now, atol=0.01, difficult=False)
    assert now.classes == data.classes
    assert all(read_size_hw(r.path) == r.size_hw for r in now.images)


@pytest.mark.parametrize(("to", "kept"), [("coco", False), ("yolo", False), ("voc", True)])
def test_write_data__trainval_is_no_copy(tmp_path, splits, to, kept):
    first, second = splits["train"]
    both = {"train": [first], "val": [second], "trainval": [first, second]}
    write_data(data_of(both), tmp_path / "out", to)
    assert ("trainval" in read_data(tmp_path / "out").splits) == kept
