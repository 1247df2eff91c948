import pytest

from fasterrcnn.data.formats import read_data
from fasterrcnn.data.formats.mot import MotChallenge
from fasterrcnn.errors import DataError

INFO = "[Sequence]\nname=MOT17-02\nimDir=img1\nframeRate=30\nseqLength=3\nimWidth=40\nimHeight=30\nimExt=.jpg\n"
ROWS = "1,1,5,6,10,20,1,1,1\n2,1,5.5,6,10,20,1,1,0.86\n1,2,1,2,3,4,0,7,0.5\n1,3,7,8,9,10,0,3,1\n"


def video(folder, rows=ROWS, frames=3, info=INFO, digits=6):
    files = {f"{folder}/img1/{frame:0{digits}d}.jpg": None for frame in range(1, frames + 1)}
    files[f"{folder}/gt/gt.txt"] = rows
    return files if info is None else {**files, f"{folder}/seqinfo.ini": info}


def content(data):
    return {
        f"{image.path.parent.parent.name}/{image.path.stem}": [
            (data.classes[label], *box) for label, box in zip(image.labels, image.boxes.tolist(), strict=True)
        ]
        for image in data.images
    }


def test_read__benchmark(write_files):
    files = {**video("train/MOT17-02"), **video("train/MOT17-04", "3,1,1,1,2,2,1,1,1\n")}
    files |= {"test/MOT17-01/img1/000001.jpg": None, "train/MOT17-02/det/det.txt": "1,-1,9,9,9,9,0.7\n"}
    data = read_data(write_files(files))
    assert data.format == "MOT Challenge"
    assert data.classes == ("pedestrian", "car", "static person")
    assert [(name, len(images)) for name, images in data.splits.items()] == [("train", 6)]
    assert content(data) == {
        "MOT17-02/000001": [("pedestrian", 5, 6, 15, 26), ("static person", 1, 2, 4, 6), ("car", 7, 8, 16, 18)],
        "MOT17-02/000002": [("pedestrian", 5.5, 6, 15.5, 26)],
        "MOT17-02/000003": [],
        "MOT17-04/000001": [],
        "MOT17-04/000002": [],
        "MOT17-04/000003": [("pedestrian", 1, 1, 3, 3)],
    }
    assert data.images[0].difficult.tolist() == [False, True, True]
    assert data.images[0].numbers.tolist() == [1, 3, 4]
    assert data.findings == []


def test_read__video_of_three_detectors(write_files):
    files = {**video("MOT17-02-DPM"), **video("MOT17-02-FRCNN"), **video("MOT17-02-SDP", "1,1,1,1,2,2,1,1,1\n")}
    data = read_data(write_files(files))
    assert sorted({name.partition("/")[0] for name in content(data)}) == ["MOT17-02-DPM", "MOT17-02-SDP"]
    assert data.notes[1:] == ["1 x video: left out, it is there for another detector, with the same boxes"]


@pytest.mark.parametrize("place", ["set", "set/gt", "set/gt/gt.txt"])
def test_read__one_video_with_names_of_eight_digits(write_files, place):
    root = write_files(video("set", "2,0,5,6,10,20,1,1,1\n", digits=8, info=None)).parent
    data = read_data(root / "set" / place)
    assert content(data) == {"set/00000001": [], "set/00000002": [("pedestrian", 5, 6, 15, 26)], "set/00000003": []}
    assert data.findings == []


def test_read__ten_columns(write_files):
    rows = "1,1,5,6,10,20,1,-1,-1,-1\n2,1,5,6,10,20,1,-9.5,7.6,0\n"
    data = read_data(write_files(video("PETS09-S2L1", rows)))
    assert data.classes == ("pedestrian",)
    assert [len(image.boxes) for image in data.images] == [1, 1, 0]


def test_read__export_of_cvat(write_files):
    files = video("task", "1,1,5,6,10,20,1,2,1.0\n3,2,1,2,3,4,0,1,0.5\n", info=None)
    data = read_data(write_files({**files, "task/gt/labels.txt": "cat\ntraffic light\n"}))
    assert data.classes == ("cat", "traffic light")
    assert content(data)["task/000001"] == [("traffic light", 5, 6, 15, 26)]
    assert content(data)["task/000003"] == [("cat", 1, 2, 4, 6)]
    assert data.images[2].difficult.tolist() == [True]


def test_read__classes_of_the_user(write_files):
    root = write_files(video("a", "1,1,5,6,10,20,1,14,1\n1,1,5,6,10,20,1,2,1\n1,1,5,6,10,20,1,0,1\n"))
    data = read_data(root, classes=["ball", "player"])
    assert (data.classes, data.images[0].labels.tolist()) == (("ball", "player"), [1])
    assert [(finding.kind, finding.annotation) for finding in data.findings] == [
        ("unknown-class", 1),
        ("unknown-class", 3),
    ]
    assert "line 1: class 14 has no name; names count from 1 (classes, --class-names)" in data.findings[0].what
    assert [finding.annotation for finding in read_data(root).findings] == [1, 3]


def test_read__frames_that_are_not_there(write_files):
    files = {**video("A"), **video("B", frames=0)}
    data = read_data(write_files(files))
    assert list(content(data)) == ["A/000001", "A/000002", "A/000003"]
    assert [(finding.kind, finding.file.parent.parent.name) for finding in data.findings] == [
        ("missing-image", "B")
    ] * 3
    assert "frame 1: there is no B/img1/000001.* below" in data.findings[0].what
    assert data.findings[2].what == "seqinfo.ini states 3 frames, 0 of them are there"
    with pytest.raises(DataError, match=r"its images \(B/img1/000001\.\*\.\.\.\) are nowhere below"):
        read_data(write_files(video("B", frames=0), data.root.parent / "other"))


def test_read__frame_one_counts_only_if_it_is_there(write_files):
    data = read_data(write_files({"A/img1/000007.jpg": None, "A/gt/gt.txt": "7,1,5,6,10,20,1,1,1\n"}))
    assert content(data) == {"A/000007": [("pedestrian", 5, 6, 15, 26)]}
    assert data.findings == []


def test_read__long_and_repeated_numbers(write_files):
    numbers = ["1403636579763555584", "1403636579813555456", "7", "0" * 30]
    data = read_data(write_files({**video("A", info=None), **{f"A/img1/{number}.jpg": None for number in numbers}}))
    assert [image.path.stem for image in data.images] == ["000001", "000002", "000003", "7", *numbers[:2]]
    assert [finding.file.stem for finding in data.findings] == ["0" * 30]
    again = read_data(write_files({"A/img1/2.jpg": None}), format="mot")
    assert [finding.file.stem for finding in again.findings] == ["0" * 30, "2"]


def test_read__images_beyond_the_length(write_files):
    data = read_data(write_files({**video("A", frames=4), "A/img1/poster.jpg": None}))
    assert [finding.kind for finding in data.findings] == ["unlisted-image", "unlisted-image"]
    assert len(data.images) == 3


@pytest.mark.parametrize("info", ["", "x", "[Other]\na=1\n", "[Sequence]\nseqLength=1e9\nimWidth=-1\nimDir=../..\n"])
def test_read__broken_seqinfo(write_files, info):
    data = read_data(write_files(video("A", info=info)))
    assert len(data.images) == 3
    assert [finding.file.name for finding in data.findings] == ["seqinfo.ini"] * ("seqLength" not in info)


def test_read__stated_size_differs(write_files):
    data = read_data(write_files(video("A", info=INFO.replace("40", "80").replace("30\nimE", "60\nimE"))))
    assert {finding.kind for finding in data.findings} == {"size-mismatch"}
    assert data.images[0].size_hw == (60, 80)


def test_read__bad_lines_and_files(write_files):
    rows = ROWS + "x,1,1,1,2,2,1,1,1\n1,1,1,1,2\n1,1,1,inf,2,2,1,1,1\n1.5,1,1,1,2,2,1,1,1\n"
    data = read_data(write_files({**video("A", rows), **video("B", b"\xff\xfe")}))
    assert [(finding.kind, finding.annotation) for finding in data.findings] == [
        *(("unreadable-annotations", number) for number in (5, 6, 7, 8)),
        ("unreadable-annotations", None),
    ]
    assert sum(len(image.boxes) for image in data.images) == 4


def test_read__no_object_at_all_in_a_video(write_files):
    data = read_data(write_files({**video("A"), **video("B", "")}))
    assert [len(boxes) for name, boxes in content(data).items() if name.startswith("B")] == [0, 0, 0]
    assert data.findings == []


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("det/det.txt", "1,-1,912,484,97,109,0.9,-1,-1,-1\n"),
        ("gt/gt.txt", "1 2002 2 1080 1920 UkU;1`Lg5\n"),
        ("gt/gt.txt", "1 0.5 0.5 0.2 0.2\n"),
        ("annotations/uav0000013_00000_v.txt", "1,2,593,43,174,190,1,4,0,0\n"),
    ],
)
def test_recognise__text_of_others(write_files, file, text):
    assert MotChallenge().recognise(write_files({"img1/000001.jpg": None, file: text})) == []


def test_read__folder_of_the_images_is_given(write_files, tmp_path, monkeypatch):
    root = write_files({"A/gt/gt.txt": ROWS, "B/gt/gt.txt": ROWS, "store/A/1.jpg": None, "store/B/1.jpg": None})
    assert list(content(read_data(root / "A", images=root / "store/A"))) == ["store/1"]
    renamed = write_files({"1.jpg": None}, tmp_path / "renamed")
    assert [image.path.parent.name for image in read_data(root / "A", images=renamed).images] == ["renamed"]
    assert [image.path.parent.name for image in read_data(root, images=root / "store").images] == ["A", "B"]
    write_files({"A/img1/000001.jpg": None, "A/img1/000002.jpg": None})
    monkeypatch.chdir(root / "A")
    assert len(read_data(".").images) == 2
