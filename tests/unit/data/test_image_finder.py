from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasterrcnn.data.image_finder import ImageFinder, Request
from fasterrcnn.errors import UsageError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def find(root: Path, name: str, source: str = "labels.json", **options) -> list[str]:
    folders = [root / folder for folder in options.pop("folders", [])]
    (paths,) = ImageFinder(root, folders).find([name], root / source, **options).values()
    return [path.relative_to(root).as_posix() for path in paths]


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("a.jpg", "images/a.jpg"),
        ("a", "images/a.jpg"),
        ("a.jpg", "data/images/deep/a.jpg"),
        ("A.JPG", "images/a.jpg"),
        ("images/a.jpg", "photos/a.jpg"),
        ("images/1/a.jpg", "images/a.jpg"),
        ("./images/a.jpg", "images/a.jpg"),
        (r"..\..\media\upload\4\a.jpg", "images/a.jpg"),
        (r"C:\Users\me\images\a.jpg", "images/a.jpg"),
        ("/home/me/images/a.jpg", "images/a.jpg"),
        ("https://example.org/set/a.jpg?size=3", "images/a.jpg"),
        ("s3://bucket/set/a.jpg", "images/a.jpg"),
        ("data/local-files/?d=photos/a.jpg", "images/a.jpg"),
        ("/data/local-files/?d=photos%2Fa.jpg", "images/a.jpg"),
        ("images/feuille%20%C3%A9t%C3%A9.png", "images/feuille été.png"),
        ("e\u0301te\u0301.png", "images/\u00e9t\u00e9.png"),
        ("100%.png", "images/100%.png"),
        ("9f3c1a2b-a.jpg", "a.jpg"),
        ("9f3c1a2b-a.jpg", "9f3c1a2b-a.jpg"),
        ("a.jpg", "a.png"),
        ("a.b", "images/a.b.jpg"),
    ],
)
def test_find__names_that_people_have(tmp_path, name, there):
    touch(tmp_path, there, "images/other.jpg")
    assert find(tmp_path, name) == [there]


@pytest.mark.parametrize("name", ["b.jpg", "a.v2", "", "..", "/", "?d=", "http://[", "\0", "x" * 300, "images/"])
def test_find__names_of_nothing(tmp_path, name):
    touch(tmp_path, "images/a.jpg")
    assert find(tmp_path, name) == []


def test_find__nearest_to_the_annotations(tmp_path):
    touch(tmp_path, "train/images/a.jpg", "valid/images/a.jpg", "thumbs/a.jpg")
    assert find(tmp_path, "a.jpg", "train/labels/a.xml") == ["train/images/a.jpg"]
    assert find(tmp_path, "a.jpg", "annotations/instances_val2017.json") == ["valid/images/a.jpg"]
    assert find(tmp_path, "a.jpg", "labels.json", split="train") == ["train/images/a.jpg"]
    assert find(tmp_path, "valid/images/a.jpg") == ["valid/images/a.jpg"]


def test_find__never_that_of_another_split(tmp_path):
    touch(tmp_path, "train/1.jpg", "val/1.jpg", "val/2.jpg")
    assert find(tmp_path, "2.jpg", "train.json") == []
    assert find(tmp_path, "2.jpg", "val.json") == ["val/2.jpg"]


def test_find__never_that_of_another_folder_of_the_same_layout(tmp_path):
    touch(tmp_path, "photos/cam1/1.jpg", "photos/cam2/1.jpg", "photos/cam2/2.jpg")
    found = ImageFinder(tmp_path).find(["1", "2"], tmp_path / "boxes/cam1/x.xml")
    assert found == {"1": [tmp_path / "photos/cam1/1.jpg"], "2": []}


def test_find__originals_before_masks_and_the_folder_of_most(tmp_path):
    touch(tmp_path, "JPEGImages/a.jpg", "SegmentationClass/a.png")
    assert find(tmp_path, "a") == ["JPEGImages/a.jpg"]
    touch(tmp_path, "data/1.jpg", "data/2.jpg", "images/2.jpg")
    found = ImageFinder(tmp_path).find(["1.jpg", "2.jpg"], tmp_path / "labels.json")
    assert list(found.values()) == [[tmp_path / "data/1.jpg"], [tmp_path / "data/2.jpg", tmp_path / "images/2.jpg"]]
    (tmp_path / "images").rename(tmp_path / "some")
    found = ImageFinder(tmp_path).find(["1.jpg", "2.jpg"], tmp_path / "labels.json")
    assert list(found.values()) == [[tmp_path / "data/1.jpg"], [tmp_path / "data/2.jpg"]]


def test_find__no_thumbnail_for_a_missing_image(tmp_path):
    touch(tmp_path, "images/1.jpg", "images/3.jpg", "augmented/1.jpg", "augmented/2.jpg")
    found = ImageFinder(tmp_path).find(["1.jpg", "2.jpg", "3.jpg"], tmp_path / "labels.json")
    assert list(found.values()) == [[tmp_path / "images/1.jpg"], [], [tmp_path / "images/3.jpg"]]


def test_find__one_file_is_not_two_images(tmp_path):
    touch(tmp_path, "images/cam1/1.jpg", "images/7.jpg")
    names = ["cam1/1.jpg", "cam2/1.jpg", "7.jpg", "7.png", "20240101-7.jpg", "images/7.jpg"]
    found = ImageFinder(tmp_path).find(names, tmp_path / "labels.json")
    assert [name for name, paths in found.items() if paths] == ["cam1/1.jpg", "7.jpg", "images/7.jpg"]


def test_find__a_folder_that_is_gone_is_no_other_folder(tmp_path):
    touch(tmp_path, "images/day/1.jpg", "images/day/2.jpg")
    requests = [
        Request([f"{part}/{n}" for n in ns], tmp_path / part / "*.xml") for part, ns in (("dark", "2"), ("day", "1"))
    ]
    assert ImageFinder(tmp_path).find_all(requests) == [{"dark/2": []}, {"day/1": [tmp_path / "images/day/1.jpg"]}]


def test_find__capitals_only_where_nothing_else_differs(tmp_path):
    touch(tmp_path, "img1.jpg", "IMG2.jpg", "img2.jpg")
    assert find(tmp_path, "IMG2.jpg") == ["IMG2.jpg"]
    found = ImageFinder(tmp_path).find(["img1", "IMG1"], tmp_path / "*.xml")
    assert found == {"img1": [tmp_path / "img1.jpg"], "IMG1": []}


def test_find__names_that_an_upload_changed(tmp_path):
    touch(tmp_path, "images/IMG (1).jpg", "images/0a1b2c3d-p.jpg")
    assert find(tmp_path, "0a1b2c3d-IMG_1.jpg") == ["images/IMG (1).jpg"]
    assert find(tmp_path, "p.jpg") == ["images/0a1b2c3d-p.jpg"]


def test_find__several_named_folders_that_have_it(tmp_path):
    touch(tmp_path, "one/1.jpg", "one/2.jpg", "two/1.jpg")
    assert find(tmp_path, "1.jpg", folders=["one", "two"]) == ["one/1.jpg", "two/1.jpg"]


@pytest.mark.parametrize("folder", ["data/b", "data/b/annotations", "my-data/b", "labels/b/xml"])
def test_find__never_in_the_folder_of_all_data_sets(tmp_path, folder):
    touch(tmp_path, f"{folder}/x.json", f"{folder.split('/')[0]}/a/images/1.jpg")
    assert ImageFinder(tmp_path / folder).find(["1.jpg"], tmp_path / folder / "x.json") == {"1.jpg": []}


def test_find__several_that_could_be_meant(tmp_path):
    touch(tmp_path, "monday/a.jpg", "tuesday/a.jpg")
    assert find(tmp_path, "a.jpg") == ["monday/a.jpg", "tuesday/a.jpg"]


def test_find__in_the_named_folders_alone(tmp_path):
    touch(tmp_path, "images/a.jpg", "one/a.jpg", "two/b.jpg")
    assert find(tmp_path, "a.jpg", folders=["one", "two"]) == ["one/a.jpg"]
    assert find(tmp_path, "b.jpg", folders=["one", "two"]) == ["two/b.jpg"]
    assert find(tmp_path, "b.jpg", folders=["one"]) == []
    with pytest.raises(UsageError, match="absent: no such folder of images"):
        find(tmp_path, "a.jpg", folders=["absent"])


def test_find__beside_a_data_set_without_images(tmp_path):
    touch(tmp_path, "photos/a.jpg")
    (tmp_path / "annotations").mkdir()
    finder = ImageFinder(tmp_path / "annotations")
    assert finder.find(["a.jpg"], tmp_path / "annotations/x.json") == {"a.jpg": [tmp_path / "photos/a.jpg"]}


def test_find__paths_that_lead_out_and_are_there(tmp_path):
    touch(tmp_path, "photos/a.jpg", "set/a.jpg")
    for name in ("../photos/a.jpg", str(tmp_path / "photos/a.jpg")):
        found = ImageFinder(tmp_path / "set").find([name], tmp_path / "set/x.csv")
        assert found == {name: [tmp_path / "photos/a.jpg"]}


FOLDERS = st.lists(st.sampled_from(["images", "data", "Photos", "2024", "raw"]), max_size=3, unique=True)


@settings(derandomize=True, deadline=None, max_examples=30, database=None)
@given(
    images=FOLDERS,
    labels=FOLDERS,
    splits=st.sampled_from(["above", "below", "none"]),
    count=st.integers(1, 4),
    missing=st.integers(0, 3),
    written=st.sampled_from(["name", "stem", "path", "elsewhere"]),
)
def test_find__the_right_image_or_none(tmp_path_factory, images, labels, splits, count, missing, written):
    """Both splits number their images alike; one image of the training is not there."""
    root = tmp_path_factory.mktemp("set")
    expected: dict[str, dict[str, list[Path]]] = {}
    for split in ("train", "val"):
        parts = {"above": [split, *images], "below": [*images, split], "none": [*images]}[splits]
        expected[split] = {}
        for number in range(count):
            stem = f"{number}" if splits != "none" else f"{split}{number}"
            path = root.joinpath(*parts, f"{stem}.jpg")
            inner = "/".join([*parts, path.name])
            name = {"name": path.name, "stem": stem, "path": inner, "elsewhere": f"/mnt/{path.name}"}[written]
            if (split, number) == ("train", missing) and count > 1:
                expected[split][name] = []
            else:
                touch(root, path.relative_to(root).as_posix())
                expected[split][name] = [path]
    finder = ImageFinder(root)
    for split, wanted in expected.items():
        assert finder.find(wanted, root.joinpath(*labels, f"{split}.json"), split) == wanted


def test_find__linked_folders(tmp_path):
    touch(tmp_path, "store/a.jpg", "set/x.json")
    (tmp_path / "set/images").symlink_to(tmp_path / "store")
    (tmp_path / "set/again").symlink_to(tmp_path / "set")  # a circle
    (tmp_path / "set/copy").symlink_to(tmp_path / "store")
    (paths,) = ImageFinder(tmp_path / "set").find(["a.jpg"], tmp_path / "set/x.json").values()
    assert [path.resolve() for path in paths] == [tmp_path / "store/a.jpg"]


def test_find__never_in_another_data_set_beside(tmp_path):
    touch(tmp_path, "cats/images/a.jpg", "dogs/x.json")
    assert ImageFinder(tmp_path / "dogs").find(["a.jpg"], tmp_path / "dogs/x.json") == {"a.jpg": []}
    touch(tmp_path, "images/a.jpg")
    assert ImageFinder(tmp_path / "dogs").find(["a.jpg"], tmp_path / "dogs/x.json") == {
        "a.jpg": [tmp_path / "images/a.jpg"]
    }
