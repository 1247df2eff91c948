"""Faults in the text files of the benchmarks: what can still be read is read, and the rest is a finding."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fasterrcnn.data.formats import FORMATS, read_data
from fasterrcnn.errors import FasterRCNNError

NOTHING_USEFUL = ["null", "None", "nan", "[1, 2]", "{}", "1e400", "99999999999", "1_0", "x" * 9999, "\x00", "é"]
KITTI = "{} 0.00 0 1.57 {} 2.5 30.25 20.5 1.65 1.67 3.64 -0.65 1.71 46.70 1.59"
WIDER_IMAGES = ("0--A/a.png", "0--A/b.png")
FILES = {  # name: annotation file, separator, its lines, and the columns of numbers that are used
    "kitti": (
        "label_2/a.txt",
        " ",
        [KITTI.format("Car", 1), KITTI.format("Van", 2), KITTI.format("Car", 3)],
        range(4, 8),
    ),
    "visdrone": (
        "annotations/a.txt",
        ",",
        ["1,2,30,20,1,1,0,0", "2,2,30,20,1,4,0,0", "3,2,30,20,0,10,1,2"],
        range(6),
    ),
    "dota": (
        "labelTxt/a.txt",
        " ",
        ["1 2 31 2 31 22 1 22 plane 0", "2 2 31 2 31 22 2 22 large-vehicle 0", "3 2 31 2 31 22 3 22 plane 1"],
        range(8),
    ),
    "wider_face": (
        "wider_face_split/wider_face_train_bbx_gt.txt",
        " ",
        [
            "0--A/a.png",
            "2",
            "1 2 30 20 0 0 0 0 0 0",
            "2 2 30 20 0 0 0 0 0 0",
            "0--A/b.png",
            "1",
            "3 2 30 20 0 0 0 1 0 0",
        ],
        range(4),
    ),
    "mot": (
        "gt/gt.txt",
        ",",
        ["1,1,1,2,30,20,1,1,1", "1,2,2,2,30,20,1,1,1", "2,1,3,2,30,20,0,3,0.5"],
        [0, *range(2, 6)],
    ),
}
IMAGES = ["image_2/a.png", "images/a.png", *WIDER_IMAGES, "img1/000001.png", "img1/000002.png"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A data set of each format, whose annotations the tests replace."""
    roots = {name: tmp_path_factory.mktemp(name) for name in FILES}
    for name, root in roots.items():
        kept = {"kitti": IMAGES[:1], "wider_face": WIDER_IMAGES, "mot": IMAGES[-2:]}.get(name, IMAGES[1:2])
        for image in kept:
            (root / image).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 30)).save(root / image)
        (root / FILES[name][0]).parent.mkdir(parents=True, exist_ok=True)
    return roots


def boxes_by_line(root, name, content):
    """Image, class, box and flag of every line, and the findings; None and the message where all was refused."""
    (root / FILES[name][0]).write_bytes(content)
    try:
        data = read_data(root, format=name)
    except FasterRCNNError as error:
        return None, str(error).splitlines()
    rows = {}
    for image in data.images:
        for position, box in enumerate(image.boxes.tolist()):
            label = data.classes[image.labels[position]]
            rows[image.number(position)] = (image.path.name, label, *box, bool(image.difficult[position]))
    return rows, data.findings


@pytest.mark.parametrize("name", FILES)
@settings(derandomize=True, deadline=None, max_examples=15, database=None)
@given(draw=st.data())
def test_read__faults(folders, name, draw):
    _, separator, lines, used = FILES[name]
    text = "\n".join(lines)
    sound, findings = boxes_by_line(folders[name], name, text.encode())
    assert (len(sound), findings) == (3, [])
    number = draw.draw(st.sampled_from(list(sound)))
    columns = lines[number - 1].split(separator)
    column = draw.draw(st.sampled_from(list(used)))
    columns[column : column + 1] = draw.draw(st.sampled_from([[], *([value] for value in NOTHING_USEFUL)]))
    damaged = [*lines[: number - 1], separator.join(columns), *lines[number:]]
    rows, findings = boxes_by_line(folders[name], name, "\n".join(damaged).encode())
    assert rows == {line: row for line, row in sound.items() if line != number}
    assert [finding.annotation for finding in findings if finding.kind == "unreadable-annotations"] == [number]


@pytest.mark.parametrize("name", FILES)
@settings(derandomize=True, deadline=None, max_examples=15, database=None)
@given(draw=st.data())
def test_read__file_that_is_cut_or_no_text(folders, name, draw):
    lines = FILES[name][2]
    text = "\n".join(lines)
    sound, _ = boxes_by_line(folders[name], name, text.encode())
    length = draw.draw(st.integers(0, len(text)))
    ending = draw.draw(st.sampled_from([b"", b"\xff\xfe", b"\r\n\r\n"]))
    rows, findings = boxes_by_line(folders[name], name, text[:length].encode() + ending)
    whole = text[:length].count("\n")
    if rows is None:
        assert len(findings) == 1
    elif ending == b"\xff\xfe":
        assert "not UTF-8 text" in findings[0].what
    else:
        read, expected = ({line: row for line, row in r.items() if line <= whole} for r in (rows, sound))
        assert read == expected


@pytest.mark.parametrize("part", [b"1 ", b"1,", b"a ", b" ", b"\n", b"1", b".", b"a.jpg ", b"a.jpg\n"])
def test_recognise__long_texts_of_no_format(tmp_path, part):
    """Patterns that take more than linear time would not end here."""
    (tmp_path / "gt.txt").write_bytes(part * (2**20 // len(part)))
    assert [name for name in FILES if FORMATS[name].recognise(tmp_path)] == []
