import pytest

from fasterrcnn.data.formats import read_data
from fasterrcnn.data.formats.visdrone import VisDrone
from fasterrcnn.errors import DataError

LINES = "684,8,273,116,0,0,0,0\n5,6,10,20,1,4,0,1\n1,2,3,4,0,1,0,0\n7,8,9,10,1,10,1,2,\n3,3,5,5,1,11,0,0\n"
TRAIN, VAL = "VisDrone2019-DET-train", "VisDrone2019-DET-val"
BENCHMARK = {
    f"{TRAIN}/images/0000002_00005_d_0000014.jpg": None,
    f"{TRAIN}/annotations/0000002_00005_d_0000014.txt": LINES,
    f"{VAL}/images/0000001_02999_d_0000005.jpg": None,
    f"{VAL}/annotations/0000001_02999_d_0000005.txt": "5,6,10,20,1,4,0,1\r\n",
    "VisDrone2019-DET-test-challenge/images/9999996_00000_d_0000029.jpg": None,
}


def test_read__benchmark(write_files):
    data = read_data(write_files(BENCHMARK))
    assert data.format == "VisDrone"
    assert [(name, len(images)) for name, images in data.splits.items()] == [("train", 1), ("val", 1)]
    assert data.classes[::3] == ("pedestrian", "car", "tricycle", "motor")
    (image,) = data.split("train")
    assert image.boxes.tolist() == [[5, 6, 15, 26], [1, 2, 4, 6], [7, 8, 16, 18]]
    assert image.labels.tolist() == [3, 0, 9]
    assert image.difficult.tolist() == [False, True, False]
    assert image.numbers.tolist() == [2, 3, 4]
    assert data.findings == []
    assert [note.partition(":")[0] for note in data.notes[1:]] == [
        "1 x ignored region (category 0)",
        "1 x other object (category 11)",
    ]


def test_read__one_folder_of_it(write_files):
    data = read_data(write_files(BENCHMARK) / VAL)
    assert data.summary().endswith("splits") or data.summary().endswith("no splits")
    assert data.images[0].boxes.tolist() == [[5, 6, 15, 26]]


def test_read__bad_lines(write_files):
    lines = "5,6,10,20,1,4,0,1\n5,6,10,20,1,14,0,1\n5,6,10,20,1,4,0\n5,nan,10,20,1,4,0,1\n5,6,10,20,1,1.5,0,1\n"
    data = read_data(write_files({"images/a.jpg": None, "annotations/a.txt": lines}))
    assert len(data.images[0].boxes) == 1
    assert [(finding.kind, finding.annotation) for finding in data.findings] == [
        ("unknown-class", 2),
        ("unreadable-annotations", 3),
        ("unreadable-annotations", 4),
        ("unreadable-annotations", 5),
    ]
    assert data.findings[0].what.endswith("the categories are 0 to 11, not 14")
    assert data.findings[1].what.endswith("7 columns; expected are 8: left, top, width, height, score, category, "
                                          "truncation, occlusion")  # fmt: skip
    assert data.findings[2].what.endswith("'nan' is no coordinate or other number")
    assert data.findings[3].what.endswith("'1.5' is no whole number")


def test_read__no_image(write_files):
    with pytest.raises(DataError, match=r"its images \(a\.\*\.\.\.\) are nowhere below"):
        read_data(write_files({"annotations/a.txt": LINES}))


@pytest.mark.parametrize(
    "text",
    [
        "0 0.5 0.5 0.2 0.2\n",
        "1,1,912,484,97,109,0,7,1\n",
        "10,20,30,20,30,40,10,40\n",
        "684,8,273,116,0.98,4,-1,-1\n",
        "1,2,593,43,174,190,1,4,0,0\n",
    ],
    ids=["yolo", "mot", "four-corners", "results", "visdrone-video"],
)
def test_recognise__text_of_others(write_files, text):
    assert VisDrone().recognise(write_files({"images/a.jpg": None, "annotations/a.txt": text})) == []
