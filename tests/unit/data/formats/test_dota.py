import pytest

from fasterrcnn.data.formats import read_data
from fasterrcnn.data.formats.dota import Dota
from fasterrcnn.errors import DataError

HEADER = "imagesource:GoogleEarth\ngsd:0.146343590398\n"
PLANE = "10.0 5.0 20.0 10.0 15.0 20.0 5.0 15.0 plane 0\n"
SHIP = "1 2 3 2 3 4 1 4 large-ship 1\n"
BENCHMARK = {
    "train/images/P0000.png": None,
    "train/images/P0001.png": None,
    "train/labelTxt-v1.0/labelTxt/P0000.txt": HEADER + PLANE + SHIP,
    "train/labelTxt-v1.0/labelTxt/P0001.txt": HEADER,
    "val/images/P0003.png": None,
    "val/labelTxt-v1.0/labelTxt/P0003.txt": "\ufeff" + HEADER + SHIP.replace(" 1\n", " 2\n"),
}


def test_read__benchmark(write_files):
    data = read_data(write_files(BENCHMARK))
    assert data.format == "DOTA"
    assert data.classes == ("large-ship", "plane")
    assert [(name, len(images)) for name, images in data.splits.items()] == [("train", 2), ("val", 1)]
    first, second = data.split("train")
    assert first.boxes.tolist() == [[5, 5, 20, 20], [1, 2, 3, 4]]
    assert (first.labels.tolist(), first.difficult.tolist()) == ([1, 0], [False, True])
    assert first.numbers.tolist() == [3, 4]
    assert len(second.boxes) == 0
    assert data.split("val")[0].difficult.tolist() == [True]
    assert data.findings == []
    (note,) = data.notes[1:]
    assert "3" in note
    assert "rotated box" in note


def test_read__export_of_roboflow(write_files):
    files = {
        "data.yaml": "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['7', 'traffic light']\n",
        "train/images/a_jpg.rf.0f.jpg": None,
        "train/labelTxt/a_jpg.rf.0f.txt": "1 2 3 2 3 4 1 4 traffic light 0\n5 6 15 6 15 26 5 26 7 0\n",
        "valid/images/b_jpg.rf.0f.jpg": None,
        "valid/labelTxt/b_jpg.rf.0f.txt": "5 6 15 6 15 26 5 26 traffic light 0\n",
    }
    data = read_data(write_files(files), format="dota")
    assert data.classes == ("7", "traffic light")
    assert {name: [image.boxes.tolist() for image in images] for name, images in data.splits.items()} == {
        "train": [[[1, 2, 3, 4], [5, 6, 15, 26]]],
        "val": [[[5, 6, 15, 26]]],
    }
    assert data.findings == []


def test_read__without_the_flag_and_bad_lines(write_files):
    lines = ["plane", "", "0", "plane maybe", "plane 0", "plane 0 x"]
    text = "".join(f"1 2 3 2 3 4 1 4 {end}\n" for end in lines) + "1 2 3 2 3 4 1 plane 0\n1 2 3 2 nan 4 1 4 plane 0\n"
    data = read_data(write_files({"images/a.png": None, "labelTxt/a.txt": text}))
    assert data.images[0].numbers.tolist() == [1, 5]
    assert data.classes == ("plane",)
    assert [finding.annotation for finding in data.findings] == [2, 3, 4, 6, 7, 8]
    assert "8 columns; expected are 10: x and y of four corners, category, difficult" in data.findings[0].what


def test_read__two_versions(write_files):
    root = write_files({**BENCHMARK, "train/labelTxt-v1.5/P0000.txt": HEADER + PLANE})
    with pytest.raises(
        DataError, match=r"P0000.txt and .*P0000.txt annotate the same image, P0000.png; name the folder"
    ):
        read_data(root)
    data = read_data(root / "train/labelTxt-v1.5", images=root / "train/images")
    assert [image.boxes.tolist() for image in data.images] == [[[5, 5, 20, 20]]]


@pytest.mark.parametrize(
    "text",
    [
        "0 0.1 0.1 0.2 0.1 0.2 0.3 0.1 0.3\n",
        "P0006 0.998 10.0 5.0 20.0 10.0 15.0 20.0 5.0 15.0\n",
        "0006 0.998 10.0 5.0 20.0 10.0 15.0 20.0 5.0 15.0\n",
        "5 6 10 20 0 0 0 0 0 0 face\n",
        "Car 0 0 0 5 6 15 26 0 0 0 0 0 0 0\n",
        "10,5,20,10,15,20,5,15,word\n",
    ],
    ids=["yolo-obb", "results", "results-numbered", "wider-face", "kitti", "text-detection"],
)
def test_recognise__text_of_others(write_files, text):
    assert Dota().recognise(write_files({"images/a.png": None, "labelTxt/a.txt": text})) == []
