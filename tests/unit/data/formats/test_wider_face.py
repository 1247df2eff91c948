import pytest

from fasterrcnn.data.formats import read_data
from fasterrcnn.data.formats.wider_face import WiderFace
from fasterrcnn.errors import DataError

TRAIN = """0--Parade/0_Parade_1_849.jpg
1
5 6 10 20 0 0 0 0 0 0
0--Parade/0_Parade_2_1.jpg
0
0 0 0 0 0 0 0 0 0 0
1--Handshaking/1_Handshaking_1_9.jpg
2
1 2 3 4 2 0 0 1 2 0
7 8 9 10 1 1 1 0 2 1
"""
VAL = "0--Parade/0_Parade_3_1.jpg\n1\n5 6 10 20 0 0 0 0 0 0\n"
BENCHMARK = {
    "wider_face_split/wider_face_train_bbx_gt.txt": TRAIN,
    "wider_face_split/wider_face_val_bbx_gt.txt": VAL,
    "wider_face_split/wider_face_test_filelist.txt": "0--Parade/0_Parade_4_1.jpg\n",
    "wider_face_split/readme.txt": "The format of txt ground truth.\nFile name\nNumber of bounding box\n",
    "WIDER_train/images/0--Parade/0_Parade_1_849.jpg": None,
    "WIDER_train/images/0--Parade/0_Parade_2_1.jpg": None,
    "WIDER_train/images/1--Handshaking/1_Handshaking_1_9.jpg": None,
    "WIDER_val/images/0--Parade/0_Parade_3_1.jpg": None,
    "WIDER_test/images/0--Parade/0_Parade_4_1.jpg": None,
}


def boxes(data, split):
    return [image.boxes.tolist() for image in data.split(split)]


def test_read__benchmark(write_files):
    root = write_files(BENCHMARK)
    data = read_data(root)
    assert (data.format, data.classes) == ("WIDER FACE", ("face",))
    assert list(data.splits) == ["train", "val"]
    assert boxes(data, "train") == [[[5, 6, 15, 26]], [], [[1, 2, 4, 6], [7, 8, 16, 18]]]
    assert boxes(data, "val") == [[[5, 6, 15, 26]]]
    assert data.split("train")[2].difficult.tolist() == [True, False]
    assert data.split("train")[2].numbers.tolist() == [9, 10]
    assert data.findings == []
    only_val = read_data(root / "wider_face_split/wider_face_val_bbx_gt.txt", images=root / "WIDER_val")
    assert [image.path.name for image in only_val.images] == ["0_Parade_3_1.jpg"]


def test_read__export_of_cvat(write_files):
    text = """no_label/a.jpg
3
5.0 6.0 10.0 20.0 - - - False - False car
5.0 6.0 10.0 20.0 0 0 0 True 0 True
1 2 3 4 traffic light
no_label/b.jpg
no_label/c.jpg
1
1 2 3 4
"""
    images = {f"WIDER_default/images/no_label/{name}.jpg": None for name in "abc"}
    texts = {"wider_face_split/wider_face_default_bbx_gt.txt": text, "labels.txt": "face\ncar\ntraffic light\n"}
    data = read_data(write_files(images | texts))
    assert boxes(data, "all") == [[[5, 6, 15, 26], [5, 6, 15, 26], [1, 2, 4, 6]], [], [[1, 2, 4, 6]]]
    names = [[data.classes[label] for label in image.labels] for image in data.images]
    assert names == [["car", "face", "traffic light"], [], ["face"]]
    assert data.images[0].difficult.tolist() == [False, True, False]
    assert data.findings == []


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ("9.jpg\n2\n", "9.jpg\n1\n", [10]),
        ("9.jpg\n2\n", "9.jpg\n3\n", [7]),
        ("9.jpg\n2\n", "9.jpg\n", [7]),
        ("9.jpg\n2\n", "9.jpg\nnull\n", [7, 8]),
        ("9.jpg\n2\n", "9.jpg\n-1\n", [7, 8]),
        ("9.jpg\n2\n", "null\n2\n", [7, 8, 9, 10]),
        ("1 2 3 4 2", "1 2 3", [9]),
        ("1 2 3 4 2", "1 2 3 NaN 2", [9]),
    ],
)
def test_read__faults(write_files, old, new, lines):
    root = write_files({**BENCHMARK, "wider_face_split/wider_face_train_bbx_gt.txt": TRAIN.replace(old, new)})
    data = read_data(root)
    assert [finding.annotation for finding in data.findings] == lines
    assert boxes(data, "train")[:2] == [[[5, 6, 15, 26]], []]
    sound = [[1, 2, 4, 6], [7, 8, 16, 18]]
    assert all(box in sound for image in boxes(data, "train")[2:] for box in image)


def test_read__missing_image_and_unlisted_one(write_files):
    files = {name: content for name, content in BENCHMARK.items() if not name.endswith("2_1.jpg")}
    data = read_data(write_files({**files, "WIDER_train/images/0--Parade/new.jpg": None}))
    assert [(finding.kind, finding.annotation) for finding in data.findings] == [
        ("missing-image", 4),
        ("unlisted-image", None),
    ]
    assert boxes(data, "train") == [[[5, 6, 15, 26]], [[1, 2, 4, 6], [7, 8, 16, 18]]]


def test_read__broken_file_of_one_split(write_files):
    root = write_files({**BENCHMARK, "wider_face_split/wider_face_val_bbx_gt.txt": b"\xff\xfe\x00"})
    data = read_data(root)
    assert [finding.kind for finding in data.findings] == ["unreadable-annotations"]
    assert list(data.splits) == ["train"]


def test_read__no_image(write_files):
    root = write_files({name: content for name, content in BENCHMARK.items() if content is not None})
    with pytest.raises(DataError, match=r"its images \(0--Parade/0_Parade_1_849.jpg\.\.\.\) are nowhere below"):
        read_data(root)


@pytest.mark.parametrize("text", ["0--Parade/a.jpg\n0--Parade/b.jpg\n", "0_Parade_1\n1\n5 6 10 20 0.99\n", "1\n2\n"])
def test_recognise__text_of_others(write_files, text):
    assert WiderFace().recognise(write_files({"a.jpg": None, "list.txt": text})) == []
