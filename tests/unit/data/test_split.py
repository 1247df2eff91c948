"""Shares of classes, what stays together, and that listing order does not matter."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage
from fasterrcnn.data.formats import read_data
from fasterrcnn.data.split import complete_fractions, split_data
from fasterrcnn.errors import UsageError

CLASSES = ("cat", "dog", "owl")
THREE = {"train": 0.7, "val": 0.2, "test": 0.1}


def annotated(path, labels=(0,), image_id=1) -> AnnotatedImage:
    count = len(labels)
    boxes = np.tile(np.array([1, 1, 9, 9], np.float32), (count, 1))
    return AnnotatedImage(path, image_id, (24, 32), boxes, np.array(labels, np.int64), np.zeros(count, bool))


def data_of(root, labels_of, splits=None) -> AnnotatedData:
    """A data set of images that are not there, which are like none."""
    records = [
        annotated(root / name, labels, number) for number, (name, labels) in enumerate(labels_of.items(), start=1)
    ]
    return AnnotatedData(root, "test", CLASSES, splits or {"all": records})


def names(data) -> dict[str, list[str]]:
    return {split: [r.path.name for r in records] for split, records in data.splits.items()}


def where(data) -> dict[str, str]:
    return {name: split for split, members in names(data).items() for name in members}


def test_split_data__shares_of_every_class(tmp_path):
    labels = [(0,)] * 100 + [(0, 1, 1)] * 40 + [(2,)] * 10 + [()] * 50
    data = data_of(tmp_path, {f"{n:03}.jpg": label for n, label in enumerate(labels)})
    result = split_data(data, THREE)
    assert result.kept_together == 0
    assert list(result.data.splits) == list(THREE)
    for split, share in THREE.items():
        counts = Counter(tuple(r.labels.tolist()) for r in result.data.split(split))
        expected = {(0,): 100 * share, (0, 1, 1): 40 * share, (2,): 10 * share, (): 50 * share}
        assert counts == pytest.approx(expected)


def test_split_data__rare_class_first(tmp_path):
    # Two owls, two splits: one in each, though most images could go anywhere.
    data = data_of(tmp_path, {f"{n:02}.jpg": ((2, 0) if n in (3, 4) else (0,)) for n in range(20)})
    for seed in range(10):
        splits = split_data(data, {"train": 0.5, "val": 0.5}, seed=seed).data.splits
        assert [sum(2 in r.labels for r in records) for records in splits.values()] == [1, 1]
        assert [len(records) for records in splits.values()] == [10, 10]


def test_split_data__seed_and_order(tmp_path):
    labels_of = {f"{n:02}.jpg": [(0,), (1,), (0, 2), ()][n % 4] for n in range(40)}
    data = data_of(tmp_path, labels_of)
    records = data.split("all")
    shuffled = replace(data, splits={"val": records[25:][::-1], "train": records[:25]})
    first = names(split_data(data, THREE, seed=5).data)
    assert names(split_data(data, THREE, seed=5).data) == first
    assert names(split_data(shuffled, THREE, seed=5).data) == first
    assert any(names(split_data(data, THREE, seed=seed).data) != first for seed in range(5))


@given(
    st.lists(st.lists(st.integers(0, 2), max_size=4), min_size=3, max_size=40),
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
    st.integers(0, 5),
)
def test_split_data__every_image_in_one_split(tmp_path_factory, labels, weights, seed):
    root = tmp_path_factory.getbasetemp()
    fractions = {f"split{n}": weight / sum(weights) for n, weight in enumerate(weights)}
    data = data_of(root, {f"absent{n:03}.jpg": tuple(label) for n, label in enumerate(labels)})
    splits = split_data(data, fractions, seed=seed).data.splits
    assert sorted(r.path for records in splits.values() for r in records) == sorted(r.path for r in data.images)
    assert list(splits) == list(fractions)
    assert all(splits.values())


def test_split_data__every_split_gets_an_image(tmp_path):
    data = data_of(tmp_path, dict.fromkeys(("a.jpg", "b.jpg", "c.jpg"), (0,)))
    splits = split_data(data, {"train": 0.98, "val": 0.01, "test": 0.01}).data.splits
    assert [len(records) for records in splits.values()] == [1, 1, 1]


def test_split_data__duplicates_stay_together(tmp_path, photo):
    labels_of = {}
    for seed in range(12):
        image = photo((60, 80), seed)
        copies = [image, image.copy(), image.resize((120, 90))]
        for number, copy in enumerate(copies if seed < 6 else copies[:1]):
            name = f"{number}-{seed}.png"
            copy.save(tmp_path / name)
            labels_of[name] = (0,)
    (tmp_path / "damaged.png").write_text("no image")
    data = data_of(tmp_path, labels_of | {"damaged.png": (0,), "absent.png": (0,)})
    for seed in range(3):
        result = split_data(data, {"train": 0.5, "test": 0.5}, seed=seed)
        assert result.kept_together == 18
        split_of = where(result.data)
        assert len(split_of) == 26
        for original in range(6):
            assert len({split_of[f"{number}-{original}.png"] for number in range(3)}) == 1


def test_split_data__names_stay_together(tmp_path):
    labels_of = {f"patient{p}_{n}.jpg": (p % 3,) for p in range(10) for n in range(p + 1)} | {"other.jpg": ()}
    data = data_of(tmp_path, labels_of)
    for pattern in (r"(patient\d+)_", r"patient\d+", r"^(?P<who>patient\d+)_(\d)"):
        result = split_data(data, {"train": 0.6, "test": 0.4}, pattern=pattern)
        assert result.kept_together == 54
        split_of = where(result.data)
        for p in range(10):
            assert len({split_of[f"patient{p}_{n}.jpg"] for n in range(p + 1)}) == 1
        assert 25 <= len(result.data.split("train")) <= 42


def test_split_data__group_that_takes_no_part_binds_nothing(tmp_path):
    data = data_of(tmp_path, {"a.jpg": (0,), "b.jpg": (0,), "x1.jpg": (0,), "x2.jpg": (0,)})
    assert split_data(data, {"train": 0.5, "test": 0.5}, pattern=r"(x)?\w").kept_together == 2


def test_split_data__versions_of_one_image_stay_together(tmp_path):
    names_of = [f"p{n}_jpg.rf.{version:032x}.jpg" for n in range(6) for version in range(3)]
    result = split_data(data_of(tmp_path, dict.fromkeys(names_of, (0,))), {"train": 0.5, "val": 0.5})
    assert result.kept_together == 18
    split_of = where(result.data)
    for n in range(6):
        assert len({split for name, split in split_of.items() if name.startswith(f"p{n}_")}) == 1


def test_split_data__alike_with_other_objects_are_not_bound(tmp_path, photo):
    image = photo((60, 80))
    image.save(tmp_path / "a.png")
    image.resize((120, 90)).save(tmp_path / "b.png")
    bound, free = ((0,), (0,)), ((0,), (1,))
    for labels, count in ((bound, 2), (free, 0)):
        data = data_of(tmp_path, {"a.png": labels[0], "b.png": labels[1], "c.png": (0,), "d.png": (0,)})
        assert split_data(data, {"train": 0.5, "val": 0.5}).kept_together == count


def test_split_data__keeps_an_official_test_split(tmp_path):
    versions = [f"v_jpg.rf.{n:032x}.jpg" for n in range(3)]
    train = [annotated(tmp_path / f"{n:02}.jpg", (n % 2,), n) for n in range(20)]
    test = [annotated(tmp_path / f"t{n}.jpg", (0,), 100 + n) for n in range(5)]
    copies = [annotated(tmp_path / name, (0,), 200 + n) for n, name in enumerate(versions)]
    splits = {"train": [*train, *copies[1:]], "test": [*test, copies[0]]}
    data = AnnotatedData(tmp_path, "test", CLASSES, splits)
    result = split_data(data, {"train": 0.8, "val": 0.2}, keep=["test"])
    assert list(result.data.splits) == ["train", "val", "test"]
    assert [len(images) for images in result.data.splits.values()] == [16, 4, 6]
    assert {image.path for image in result.data.split("test")} == {image.path for image in splits["test"]}
    assert (result.left_out, result.kept_together) == (2, 0)
    with pytest.raises(UsageError, match="no split 'val'; there are: train, test"):
        split_data(data, {"train": 1}, keep=["val"])


@pytest.mark.parametrize(
    ("given", "keep", "expected"),
    [
        ((None, None, None), [], {"train": 0.7, "val": 0.15, "test": 0.15}),
        ((0.8, 0.2, None), [], {"train": 0.8, "val": 0.2}),
        ((0.8, None, None), [], {"train": 0.8, "val": 0.1, "test": 0.1}),
        ((None, None, 0.0), [], {"train": 0.7 / 0.85, "val": 0.15 / 0.85}),
        ((None, 0.25, None), ["test"], {"train": 0.75, "val": 0.25}),
        ((None, None, None), ["val", "test"], {"train": 1.0}),
        ((0.5, 0.2, 0.2), [], {"train": 0.5, "val": 0.2, "test": 0.2}),  # refused where it is used
        ((1.5, None, None), [], {"train": 1.5}),
    ],
)
def test_complete_fractions(given, keep, expected):
    assert complete_fractions(dict(zip(THREE, given, strict=True)), keep) == pytest.approx(expected)


def test_complete_fractions__of_a_split_that_stays():
    with pytest.raises(UsageError, match=r"'test' stays as it is \(--keep\), so it can have no share \(--test\)"):
        complete_fractions({"train": None, "test": 0.2}, ["test"])


def test_split_data__numbers_that_collide(tmp_path):
    first, second = annotated(tmp_path / "a.jpg", image_id=7), annotated(tmp_path / "b.jpg", image_id=9)
    data = AnnotatedData(tmp_path, "test", CLASSES, {"train": [first], "val": [second], "trainval": [first, second]})
    halves = {"train": 0.5, "test": 0.5}
    assert sorted(r.image_id for r in split_data(data, halves).data.images) == [7, 9]
    data = replace(data, splits={"train": [first], "val": [replace(second, image_id=7)]})
    assert sorted(r.image_id for r in split_data(data, halves).data.images) == [1, 2]


def test_split_data__an_image_listed_twice(tmp_path):
    twice = [annotated(tmp_path / "a.jpg"), annotated(tmp_path / "a.jpg", image_id=2)]
    other = [annotated(tmp_path / "a.jpg", (1,)), annotated(tmp_path / "b.jpg")]
    data = AnnotatedData(tmp_path, "test", CLASSES, {"train": twice[:1], "trainval": [*twice[1:], *other]})
    result = split_data(data, {"train": 0.5, "test": 0.5})
    # Equal annotations of an image count once; other objects of the same image stay with it.
    assert sorted(sorted(members) for members in names(result.data).values()) == [["a.jpg", "a.jpg"], ["b.jpg"]]
    assert result.kept_together == 2


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({}, r"sum to 1, not 0 \(none\)"),
        ({"train": 0.5, "val": 0.4}, r"sum to 1, not 0.9 \(train=0.5, val=0.4\)"),
        ({"train": 1.0, "val": 0.0}, "above 0, not train=1, val=0"),
        ({"train": 1.5, "val": -0.5}, "above 0"),
        ({"train": float("nan")}, "above 0, not train=nan"),
        ({"train": 0.4, "val": 0.3, "test": 0.3}, "3 splits need as many images .* not bound .*; there are 2"),
    ],
)
def test_split_data__fractions_that_cannot_work(tmp_path, fractions, message):
    with pytest.raises(UsageError, match=message):
        split_data(data_of(tmp_path, {"a.jpg": (0,), "b.jpg": (1,)}), fractions)


def test_split_data__fractions_of_thirds(tmp_path):
    data = data_of(tmp_path, {f"{n}.jpg": (0,) for n in range(9)})
    splits = split_data(data, {"train": 1 / 3, "val": 1 / 3, "test": 0.3333333}).data.splits
    assert [len(records) for records in splits.values()] == [3, 3, 3]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", r"the pattern '\(' is not a regular expression: missing \)"),
        ("patient", r"the pattern 'patient' matches no file name in .*; the first is a\.jpg"),
    ],
)
def test_split_data__patterns_that_cannot_work(tmp_path, pattern, message):
    with pytest.raises(UsageError, match=message):
        split_data(data_of(tmp_path, {"b.jpg": (0,), "a.jpg": (1,)}), {"train": 1.0}, pattern=pattern)


def test_split_data__nothing_to_split(tmp_path):
    with pytest.raises(UsageError, match="there are 0"):
        split_data(data_of(tmp_path, {}), {"train": 1.0})


def test_split_data__leaves_what_it_was_given(tmp_path):
    Image.new("RGB", (32, 24)).save(tmp_path / "a.png")
    data = data_of(tmp_path, {"a.png": (0,), "b.png": (1,)})
    result = split_data(data, {"train": 0.5, "test": 0.5})
    assert names(data) == {"all": ["a.png", "b.png"]}
    assert (result.data.classes, result.data.root, result.data.findings) == (data.classes, data.root, data.findings)
    assert {id(r) for r in result.data.images} == {id(r) for r in data.images}


@pytest.mark.slow
def test_split_data__road_signs(shared_data):
    data = read_data(shared_data / "road_signs")
    wanted = {f"road{n}.png" for n in range(300)} | {f"road{n}.jpg" for n in range(300)}
    data = replace(data, splits={"all": [r for r in data.images if r.path.name in wanted]})
    result = split_data(data, THREE)
    assert result.kept_together == 4
    split_of = {path.split(".")[0]: split for path, split in where(result.data).items()}
    assert split_of["road145"] == split_of["road147"]
    assert split_of["road42"] == split_of["road48"]
    for label in range(len(data.classes)):
        total = sum(label in r.labels for r in data.images)
        for split, share in THREE.items():
            found = sum(label in r.labels for r in result.data.split(split))
            assert found == pytest.approx(share * total, abs=3)
