import pytest

from fasterrcnn.data.formats import read_data
from fasterrcnn.data.formats.kitti import Kitti
from fasterrcnn.errors import DataError

CAR = "Car 0.00 0 1.57 5.50 6.00 15.25 26.00 1.65 1.67 3.64 -0.65 1.71 46.70 1.59\n"
PERSON = "Person_sitting 0.20 2 -0.12 1.00 2.00 3.00 4.00 1.89 0.48 1.20 1.84 1.47 8.41 0.01\n"
DONT_CARE = "DontCare -1 -1 -10 20.00 1.00 39.00 9.00 -1 -1 -1 -1000 -1000 -1000 -10\n"
BY_TAO = "car 0 0 0 5 6 15 26 0 0 0 0 0 0 0\n"
BENCHMARK = {
    "training/image_2/000000.png": None,
    "training/image_2/000001.png": None,
    "training/image_3/000000.png": None,
    "training/calib/000000.txt": "P0: 7.070493e+02 0.000000e+00 6.040814e+02 0.000000e+00\n",
    "training/label_2/000000.txt": CAR + DONT_CARE + PERSON,
    "training/label_2/000001.txt": DONT_CARE,
    "testing/image_2/000000.png": None,
}


def test_read__benchmark(write_files):
    root = write_files(BENCHMARK)
    data = read_data(root)
    first, second = data.split("train")
    assert data.format == "KITTI"
    assert list(data.splits) == ["train"]
    assert first.path == root / "training/image_2/000000.png"
    assert (data.classes, first.labels.tolist()) == (("Car", "Person_sitting"), [0, 1])
    assert first.boxes.tolist() == [[5.5, 6, 15.25, 26], [1, 2, 3, 4]]
    assert first.numbers.tolist() == [1, 3]
    assert not first.difficult.any()
    assert len(second.boxes) == 0
    assert data.findings == []
    assert data.notes[1:] == ["2 x DontCare: left out, such a region has no class; its objects count as background"]


LISTED = {
    f"training/{kind}_2/{n}.{end}": text
    for n in "abc"
    for kind, end, text in (("image", "png", None), ("label", "txt", CAR))
}


def names_of(data):
    return {split: [image.path.stem for image in images] for split, images in data.splits.items()}


@pytest.mark.parametrize("place", ["ImageSets", "training/ImageSets"])
@pytest.mark.parametrize("folder", ["", "training", "training/label_2"])
def test_read__lists_of_splits(write_files, place, folder):
    lists = {"val": "a\n", "train": "c.png\r\nc\n", "test": "b\n", "cars": "a\n"}
    root = write_files(LISTED | {f"{place}/{split}.txt": text for split, text in lists.items()})
    data = read_data(root / folder)
    assert list(names_of(data).items()) == [("train", ["c"]), ("val", ["a"]), ("test", ["b"])]
    assert data.findings == []


def test_read__lists_of_the_benchmark(write_files):
    """Images of testing/ have the same numbers."""
    lists = {"ImageSets/train.txt": "a\nd\n", "ImageSets/trainval.txt": "a", "ImageSets/test.txt": "a\nb\nz\n"}
    data = read_data(write_files({**LISTED, **lists, "testing/image_2/a.png": None}))
    assert names_of(data) == {"train": ["a"], "trainval": ["a"]}
    assert [(f.kind, f.what) for f in data.findings] == [("missing-annotations", "lists d, which has no labels")]
    assert data.notes[1:] == ["2 images with labels left out, for no list in ImageSets/ names them"]


def test_read__list_that_cannot_be_read(write_files):
    data = read_data(write_files({**LISTED, "ImageSets/train.txt": "ä\n".encode("cp1252")}))
    assert names_of(data) == {"train": ["a", "b", "c"]}
    assert [(f.kind, f.file.name) for f in data.findings] == [("unreadable-annotations", "train.txt")]


def test_read__label_folder_itself(write_files):
    root = write_files(BENCHMARK)
    assert [image.path.parent.name for image in read_data(root / "training/label_2").images] == ["image_2"] * 2
    (image,) = read_data(root / "training/label_2/000000.txt").images
    assert image.path == root / "training/image_2/000000.png"


def test_read__flat_layout_with_empty_files(write_files):
    empty = {f"labels/{name}.txt": "" for name in "abcd"}
    images = {f"images/{name}.jpg": None for name in "abcde"}
    texts = {"labels/classes.txt": "car\n", "labels/e.txt": BY_TAO}
    data = read_data(write_files(empty | images | texts), format="kitti")
    assert [image.boxes.tolist() for image in data.images] == [[], [], [], [], [[5, 6, 15, 26]]]
    assert data.findings == []


def test_read__splits_of_digits(write_files):
    files = {}
    for split in ("train", "val"):
        files |= {f"{split}/images/000001.png": None, f"{split}/labels/000001.txt": BY_TAO}
    data = read_data(write_files(files), format="kitti")
    assert [(name, len(images)) for name, images in data.splits.items()] == [("train", 1), ("val", 1)]
    assert [image.path.parent.parent.name for image in data.images] == ["train", "val"]


def test_read__export_of_cvat(write_files):
    labels = (
        "car 0.0 0 -1 5.5 6.0 15.0 26.0 -1 -1 -1 -1 -1 -1 -1 1.0\ntraffic light 1.0 1 -1 1 2 3 4" + " -1" * 7 + " 0.9\n"
    )
    files = {"default/image_2/a.png": None, "default/label_2/a.txt": labels, "label_colors.txt": "0 0 0 car\n"}
    data = read_data(write_files({**files, "default/instance/a.png": None}))
    assert data.classes == ("car", "traffic light")
    assert data.images[0].boxes.tolist() == [[5.5, 6, 15, 26], [1, 2, 3, 4]]
    assert data.images[0].path.parent.name == "image_2"
    assert data.findings == []


def test_read__names_of_several_words(write_files):
    numbers = BY_TAO.removeprefix("car ")
    labels = f'"traffic light" {numbers}traffic light {numbers}car null 0 {numbers[4:].strip()} 1.0\n'
    data = read_data(write_files({"image_2/a.png": None, "label_2/a.txt": labels}))
    assert (data.classes, data.images[0].numbers.tolist()) == (("traffic light",), [1])
    assert [finding.annotation for finding in data.findings] == [2, 3]
    assert data.findings[0].what.endswith("16 columns; expected are 15, or 16 with a score, all numbers but the type")


def test_read__bad_lines(write_files):
    labels = CAR + "Car 0 0 0 1 2 3\n" + CAR.replace("6.00 ", "six ", 1) + PERSON
    data = read_data(write_files({"image_2/a.png": None, "image_2/b.png": None, "label_2/a.txt": labels}))
    assert data.images[0].boxes.tolist() == [[5.5, 6, 15.25, 26], [1, 2, 3, 4]]
    assert [(finding.kind, finding.annotation) for finding in data.findings] == [
        ("unreadable-annotations", 2),
        ("unreadable-annotations", 3),
        ("unlisted-image", None),
    ]
    assert "line 2 (Car 0 0 0 1 2 3): 7 columns; expected are 15: type, truncated" in data.findings[0].what
    assert data.findings[1].what.endswith("'six' is no number")


def test_read__numbers_of_another_split_are_not_taken(write_files):
    root = write_files({"testing/image_2/000000.png": None, "training/label_2/000000.txt": CAR})
    with pytest.raises(DataError, match=r"its images \(000000\.\*\.\.\.\) are nowhere below .*--images"):
        read_data(root)
    assert len(read_data(root, images=root / "testing").images) == 1


def test_read__two_versions_of_the_labels(write_files):
    files = {"images/a.png": None, "labels/a.txt": BY_TAO, "labels_old/a.txt": BY_TAO}
    with pytest.raises(DataError, match=r"a.txt and .*a.txt annotate the same image, a.png; name the"):
        read_data(write_files(files), format="kitti")


@pytest.mark.parametrize(
    "text",
    [
        "0 0.5 0.5 0.2 0.2\n",
        "0 " + "0.25 " * 14 + "\n",
        "10.0 10.0 30.0 10.0 30.0 20.0 10.0 20.0 plane 0\n",
        "684,8,273,116,0,0,0,0\n",
        "0 1 Car 0 0 -1.79 296.74 161.75 455.22 292.37 2.0 1.82 4.43 -4.55 1.85 13.41 -2.11\n",
        "face_001.jpg 10 20 30 20 30 40 10 40 11 21 31 21 31 41\n",
        "",
    ],
    ids=["yolo", "yolo-polygon", "dota", "visdrone", "kitti-tracking", "key-points", "empty"],
)
def test_recognise__labels_of_others(write_files, text):
    assert Kitti().recognise(write_files({"images/a.png": None, "labels/a.txt": text})) == []
