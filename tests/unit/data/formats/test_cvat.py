"""Files as CVAT exports them: all that it writes, with invented numbers."""

import math
from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fasterrcnn.data.formats import read_data, write_data
from fasterrcnn.data.formats.cvat import Cvat
from fasterrcnn.data.formats.shapes import ellipse_corners, rotated_corners
from fasterrcnn.errors import DataError, UsageError

read, recognise = Cvat().read, Cvat().recognise

LABEL = """<label><name>{}</name><color>#33ddff</color><type>{}</type><attributes><attribute><name>difficult</name>
<mutable>False</mutable><input_type>checkbox</input_type><default_value>false</default_value><values>false</values>
</attribute></attributes></label>"""
LABELS = LABEL.format("nut", "any") + LABEL.format("bolt", "rectangle")
TASK = """<task><id>7</id><name>parts</name><size>{size}</size><mode>{mode}</mode><overlap>0</overlap><bugtracker/>
<created>2024-01-02 03:04:05+00:00</created><updated>2024-01-02 03:04:05+00:00</updated><subset>{subset}</subset>
<start_frame>{start}</start_frame><stop_frame>{stop}</stop_frame><frame_filter>{filter}</frame_filter><segments><segment>
<id>9</id><start>0</start><stop>3</stop><url>http://localhost:8080/api/jobs/9</url></segment></segments><owner><username>
ann</username><email>ann@example.org</email></owner><assignee/><labels>{labels}</labels>
<original_size><width>40</width><height>30</height></original_size></task>"""


def task(labels=LABELS, subset="", size=4, start=0, stop=3, filter="", mode="annotation") -> str:
    return TASK.format(labels=labels, subset=subset, size=size, start=start, stop=stop, filter=filter, mode=mode)


def xml(*entries: str, meta: str = task()) -> str:
    dumped = "<dumped>2024-01-02 03:04:05.678+00:00</dumped>"
    head = '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n'
    return f"{head}<meta>{meta}{dumped}</meta>{''.join(entries)}</annotations>\n"


IDS = count()


def entry(name, *shapes, subset="", size=(40, 30), extra="") -> str:
    split = f' subset="{subset}" task_id="7"' if subset else ""
    width, height = size
    opened = f'<image id="{next(IDS)}" name="{name}"{split} width="{width}" height="{height}"{extra}>'
    return f"{opened}{''.join(shapes)}</image>"


def box(label="nut", sides=(5, 6, 15.25, 26), extra="", inside="") -> str:
    x1, y1, x2, y2 = sides
    place = f'xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}"'
    return f'<box label="{label}" source="manual" occluded="1" {place} z_order="0"{extra}>{inside}</box>'


def track(number, label, *boxes, extra="") -> str:
    return f'<track id="{number}" label="{label}" source="manual"{extra}>{"".join(boxes)}</track>'


def tracked(frame, sides=(5, 6, 15, 26), outside=0, keyframe=1) -> str:
    x1, y1, x2, y2 = sides
    place = f'xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}"'
    return f'<box frame="{frame}" keyframe="{keyframe}" outside="{outside}" occluded="0" {place} z_order="0"></box>'


def boxes(data) -> dict[str, list]:
    """Classes and corners of every image, by its path."""
    return {
        image.path.relative_to(data.root).as_posix(): [
            (data.classes[label], *corners)
            for label, corners in zip(image.labels, image.boxes.round(3).tolist(), strict=True)
        ]
        for image in data.images
    }


def messages(data) -> list[tuple[str, str]]:
    return [(finding.kind, finding.what) for finding in data.findings]


def test_read__task(write_files):
    difficult = '<attribute name="difficult">true</attribute><attribute name="note">x</attribute>'
    text = xml(entry("a.png", box(), box("bolt", (1, 2, 3, 4), inside=difficult)), entry("deep/b.png"))
    root = write_files({"annotations.xml": text, "images/a.png": None, "images/deep/b.png": None})
    data = read_data(root)
    assert data.format == "CVAT for images"
    assert data.classes == ("nut", "bolt")
    expected = {"images/a.png": [("nut", 5, 6, 15.25, 26), ("bolt", 1, 2, 3, 4)], "images/deep/b.png": []}
    assert boxes(data) == expected
    assert [image.size_hw for image in data.split("all")] == [(30, 40), (30, 40)]
    assert data.images[0].difficult.tolist() == [False, True]
    assert data.describe_box(data.images[0], 1) == "shape 2 (bolt)"
    assert data.findings == []
    assert boxes(read_data(root / "annotations.xml")) == expected


def test_read__project_with_subsets(write_files):
    names = [("Train", "a.png"), ("validation", "a.png"), ("Test", "c.png"), ("default", "a.png")]
    project = f"<project><id>3</id><name>p</name><labels>{LABELS}</labels><subsets>Train\nTest</subsets></project>"
    entries = [entry(name, box(sides=(n, 1, 9, 9)), subset=subset) for n, (subset, name) in enumerate(names)]
    images = {f"images/{subset}/{name}": None for subset, name in names}
    data = read(write_files({"annotations.xml": xml(*entries, meta=project), **images}))
    assert {split: [i.boxes[0, 0] for i in own] for split, own in data.splits.items()} == {
        "train": [0],
        "val": [1],
        "test": [2],
        "all": [3],
    }
    assert [image.path.parent.name for image in data.images] == ["Train", "validation", "Test", "default"]
    assert data.findings == []


def test_read__subset_of_a_task_or_job(write_files):
    for part in ("task", "job"):
        meta = task(subset="Validation").replace("task>", f"{part}>")
        root = write_files({f"{part}/annotations.xml": xml(entry("a.png", box()), meta=meta), f"{part}/a.png": None})
        assert list(read(root / part).splits) == ["val"]


def test_read__a_folder_for_each_task(write_files):
    files = {f"{name}/annotations.xml": xml(entry("a.png", box(sides=(n, 1, 9, 9)))) for n, name in enumerate("st")}
    root = write_files({**files, "s/images/a.png": None, "t/images/a.png": None})
    assert boxes(read(root)) == {"s/images/a.png": [("nut", 0, 1, 9, 9)], "t/images/a.png": [("nut", 1, 1, 9, 9)]}
    (root / "s").rename(root / "train")
    (root / "t").rename(root / "val")
    assert {split: len(images) for split, images in read(root).splits.items()} == {"train": 1, "val": 1}


def test_read__the_same_image_in_two_files(write_files):
    root = write_files({"a.png": None, "1.xml": xml(entry("a.png", box())), "2.xml": xml(entry("a.png"))})
    data = read(root)
    assert len(data.images[0].boxes) == 1
    assert messages(data) == [("unlisted-annotations", f"a.png is annotated in {root / '1.xml'} already: left out")]


def test_read__names_that_lead_to_one_image(write_files):
    text = xml(entry("s/a.png", box()), entry("t/a.png", box()), entry("b.png", box()), entry("b.png", box()))
    data = read(write_files({"annotations.xml": text, "a.png": None, "b.png": None}))
    kinds = [finding.kind for finding in data.findings]
    assert kinds == ["ambiguous-image", "ambiguous-image", "same-image"]
    assert "s/a.png and t/a.png could both be" in data.findings[0].what
    assert [(image.path.name, len(image.boxes)) for image in data.images] == [("b.png", 2)]


def test_read__shapes(write_files):
    mask = (
        '<mask label="nut" source="manual" occluded="0" rle="1, 2" left="3" top="4" width="10" height="5" z_order="0"/>'
    )
    cuboid = {f"xtl{n}": 10 - n for n in (1, 2)} | {f"xbl{n}": 10 for n in (1, 2)}
    cuboid |= {f"x{corner}{n}": 20 + n for corner in ("tr", "br") for n in (1, 2)}
    cuboid |= {f"yt{side}{n}": 5 for side in "lr" for n in (1, 2)} | {
        f"yb{side}{n}": 9 for side in "lr" for n in (1, 2)
    }
    sides = " ".join(f'{name}="{value}"' for name, value in cuboid.items())
    text = entry(
        "a.png",
        '<polygon label="nut" source="manual" occluded="0" points="1.00,2.00;9.50,3.00;4.00,8.00" z_order="0"/>',
        '<polyline label="nut" occluded="0" points="1,2;3,4" z_order="0"></polyline>',
        '<points label="nut" occluded="0" points="1,2" z_order="0"></points>',
        '<tag label="nut" source="manual"></tag>',
        '<skeleton label="bolt" source="manual" z_order="0"><points label="1" outside="0" points="1,2"/></skeleton>',
        '<ellipse label="bolt" occluded="0" cx="20" cy="10" rx="8" ry="4" z_order="0"/>',
        '<ellipse label="bolt" occluded="0" cx="20" cy="10" rx="8" ry="4" rotation="90.00" z_order="0"/>',
        mask,
        f'<cuboid label="nut" occluded="0" {sides} z_order="0"/>',
        box("nut", (10, 10, 20, 14), ' rotation="90.00"'),
        box("nut", (10, 10, 20, 14), ' rotation="360.0"'),
    )
    data = read(write_files({"annotations.xml": xml(text), "a.png": None}))
    assert boxes(data)["a.png"] == [
        ("nut", 1, 2, 9.5, 8),
        ("bolt", 12, 6, 28, 14),
        ("bolt", 16, 2, 24, 18),
        ("nut", 3, 4, 13, 9),
        ("nut", 8, 5, 22, 9),
        ("nut", 13, 7, 17, 17),
        ("nut", 10, 10, 20, 14),
    ]
    assert data.images[0].numbers.tolist() == [1, 6, 7, 8, 9, 10, 11]
    assert data.notes[1:] == [
        "taken as the box around: 1 x polygon, 2 x ellipse, 1 x mask, 1 x cuboid, 1 x rotated box",
        "left out, for want of a box: 1 x line, 1 x point, 1 x image tag, 1 x skeleton",
    ]
    assert data.findings == []


def test_rotated_corners__clockwise():
    assert np.allclose(rotated_corners((0, 0, 4, 2), 90), [(3, -1), (3, 3), (1, 3), (1, -1)])
    half = math.sqrt((4 * 4 + 2 * 2) / 2)
    assert np.allclose(ellipse_corners(1, 2, 4, 2, 45), [(1 - half, 2 - half), (1 + half, 2 + half)])
    assert np.isnan(rotated_corners((0, 0, 4, 2), math.inf)).all()


def test_read__classes_that_may_be_boxes(write_files):
    parts = "<label><name>eye</name><type>points</type><attributes/><parent>face</parent></label>"
    labels = LABEL.format("face", "skeleton") + parts + LABEL.format("lane", "polyline") + LABELS
    root = write_files({"a.png": None, "annotations.xml": xml(entry("a.png", box("nail")), meta=task(labels))})
    data = read(root)
    assert data.classes == ("nut", "bolt")
    assert messages(data) == [("unknown-class", "shape 1: 'nail' is none of the classes nut, bolt")]
    (root / "annotations.xml").write_text(xml(entry("a.png", box("nail")), meta=""))
    assert boxes(read(root)) == {"a.png": [("nail", 5, 6, 15.25, 26)]}


VIDEO = [
    track(0, "nut", tracked(0), tracked(1, (6, 6, 16, 26), keyframe=0), tracked(2, outside=1)),
    track(1, "bolt", tracked(1, (1, 2, 3, 4)), '<polygon frame="2" outside="0" points="1,1;2,2"/>'),
]
FRAMES = [[("nut", 5, 6, 15, 26)], [("nut", 6, 6, 16, 26), ("bolt", 1, 2, 3, 4)], [("bolt", 1, 1, 2, 2)], []]


@pytest.mark.parametrize(
    "names",
    [
        [f"images/frame_{n:06}.PNG" for n in range(4)],
        [f"frame_{n:06}.jpg" for n in range(4)],
        [f"images/frame_{n:06}.png" for n in range(1, 5)],  # of ffmpeg, which counts from 1
        [f"frames/{n:03}.png" for n in range(1, 5)],
        [f"images/{name}.png" for name in ("ant", "bee", "cat", "dog")],
    ],
)
def test_read__video(write_files, names):
    meta = task(mode="interpolation", subset="Train")
    root = write_files({"annotations.xml": xml(*VIDEO, meta=meta), **dict.fromkeys(names)})
    data = read_data(root)
    assert list(data.splits) == ["train"]
    assert list(boxes(data).items()) == list(zip(names, FRAMES, strict=True))
    assert data.findings == []
    has_names = "frame_000000" in names[0]
    assert (
        "annotations.xml has no names of images: they are its frames in the order of their names" in data.notes
    ) != (has_names)


def test_read__video_with_a_step(write_files):
    meta = task(mode="interpolation", size=3, start=10, stop=20, filter="step=5")
    tracks = track(0, "nut", tracked(10, (0, 1, 2, 3)), tracked(20, (4, 5, 6, 7)))
    for names in ([f"frame_{n:06}.png" for n in (10, 15, 20)], [f"{n}.png" for n in "abc"]):
        root = write_files({f"{names[0]}/{n}": None for n in names})
        (root / names[0] / "annotations.xml").write_text(xml(tracks, meta=meta))
        data = read(root / names[0])
        assert [box for own in boxes(data).values() for box in own] == [("nut", 0, 1, 2, 3), ("nut", 4, 5, 6, 7)]
        assert list(boxes(data)) == names
        assert data.findings == []


def test_read__video_with_deleted_frames(write_files):
    """The numbers of the images decide, and what is missing becomes a finding."""
    root = write_files(
        {"annotations.xml": xml(*VIDEO, meta=task()), "frame_000001.png": None, "frame_000003.png": None}
    )
    data = read(root)
    assert boxes(data) == {"frame_000001.png": FRAMES[1], "frame_000003.png": []}
    assert messages(data) == [("missing-image", f"frame {n}: there is no frame_{n:06} below {root}") for n in (0, 2)]


@pytest.mark.parametrize(
    "names",
    [
        ["a.png", "b.png", "c.png"],  # one is missing
        [f"frame_{n:06}.png" for n in (1, 2, 4)],  # counted from 1, one is missing
        ["1.png", "2.png", "9.png", "10.png"],  # 10 before 2, or after 9?
    ],
)
def test_read__video_whose_images_are_not_clear(write_files, names):
    root = write_files({"annotations.xml": xml(*VIDEO, meta=task()), **dict.fromkeys(names)})
    with pytest.raises(DataError, match=r"which images are its frames is not clear: it has 4 frames, and there are"):
        read(root)


def test_read__video_of_a_project(write_files):
    tasks = "".join(task().replace("<id>7</id>", f"<id>{n}</id>") for n in (7, 8))
    meta = f"<project><id>1</id><labels>{LABELS}</labels><tasks>{tasks}</tasks></project>"
    own = [
        track(n, "nut", tracked(n), extra=f' task_id="{7 + n}" subset="{s}"') for n, s in enumerate(("Train", "Test"))
    ]
    shown = ("images/Train/frame_000000.png", "images/Test/frame_000001.png")
    images = {f"images/{subset}/frame_{n:06}.png": None for subset in ("Train", "Test") for n in range(2)}
    data = read(write_files({"annotations.xml": xml(*own, meta=meta), **images}))
    assert boxes(data) == {name: FRAMES[0] if name in shown else [] for name in images}
    assert {split: len(images) for split, images in data.splits.items()} == {"train": 2, "test": 2}
    assert data.findings == []
    same = xml(*(text.replace("Test", "Train") for text in own), meta=meta)
    with pytest.raises(
        DataError, match="task 7: other tasks have frames of the same numbers; export each task by itself"
    ):
        read(write_files({"annotations.xml": same}))


@pytest.mark.parametrize(
    ("shape", "what"),
    [
        (box("", (1, 2, 3, 4)), "it has no label"),
        (box("nut", (1, "x", 3, 4)), "xtl, ytl, xbr, ybr must be numbers, not '1', 'x', '3', '4'"),
        ('<polygon label="nut" points="1,2;3"/>', "points must be pairs of numbers (x,y;x,y), not '1,2;3'"),
        ('<polygon label="nut"/>', "points must be pairs of numbers (x,y;x,y), not ''"),
        (
            '<mask label="nut" rle="1" left="1" top="1"/>',
            "left, top, width, height must be numbers, not '1', '1', None, None",
        ),
        ('<sphere label="nut"/>', "<sphere> is no shape of CVAT 1.1"),
        (box(extra=' rotation="left"'), "rotation must be a number, not 'left'"),
    ],
)
def test_read__damaged_shape_among_good_ones(write_files, shape, what):
    root = write_files({"a.png": None, "annotations.xml": xml(entry("a.png", box(), shape, box("bolt", (1, 2, 3, 4))))})
    data = read(root)
    assert boxes(data) == {"a.png": [("nut", 5, 6, 15.25, 26), ("bolt", 1, 2, 3, 4)]}
    ((kind, text),) = messages(data)
    assert kind == "unreadable-annotations"
    assert text.startswith(f"a.png, shape 2: {what}")
    assert data.findings[0].annotation == 2


def test_read__images_that_are_not_there(write_files):
    text = xml(entry("a.png", box()), entry("b.png", box()), entry("", box()))
    root = write_files({"annotations.xml": text, "a.png": None, "c.png": None})
    data = read(root)
    assert [kind for kind, _ in messages(data)] == ["missing-image", "unreadable-annotations", "unlisted-image"]
    (root / "a.png").unlink()
    with pytest.raises(DataError, match=r"its images \(a\.png\.\.\.\) are nowhere below .*--images\)"):
        read(root)
    assert len(read_data(root, images=write_files({"b.png": None}, root.parent / "store")).images) == 1


def test_read__broken_files(write_files):
    root = write_files({"a.png": None, "1.xml": xml(entry("a.png", box())), "2.xml": xml(entry("b.png"))[:-20]})
    data = read(root)
    assert len(data.images) == 1
    assert messages(data)[0][1].startswith("not readable XML")
    with pytest.raises(DataError, match=r"2\.xml: not readable XML"):
        read(root / "2.xml")
    (root / "1.xml").write_text(xml())
    (root / "2.xml").unlink()
    with pytest.raises(DataError, match=r"1\.xml: it has no image and no track"):
        read(root)


def test_read__size_that_disagrees(write_files):
    root = write_files({"a.png": None, "annotations.xml": xml(entry("a.png", box(), size=(80, 60)))})
    assert [kind for kind, _ in messages(read(root))] == ["size-mismatch"]


def test_recognise__only_files_of_cvat(write_files):
    voc = "<annotation><object><name>nut</name></object></annotation>"
    root = write_files({"voc.xml": voc, "other.xml": "<annotations><entry/></annotations>", "a.txt": xml()})
    assert recognise(root) == []
    assert recognise(root / "voc.xml") == []
    write_files({"1/2/3/parts.XML": xml(*VIDEO)})
    assert recognise(root) == [root]
    assert recognise(root / "1/2/3/parts.XML") == [root / "1/2/3/parts.XML"]


def test_write__as_cvat_imports_it(write_files, tmp_path):
    text = xml(entry("a.png", box(inside='<attribute name="difficult">true</attribute>'), subset="Train"))
    root = write_files({"annotations.xml": text, "a.png": None})
    write_data(read_data(root), tmp_path / "out", "cvat")
    assert [path.name for path in (tmp_path / "out/images/Train").iterdir()] == ["a.png"]
    written = (tmp_path / "out/annotations.xml").read_text()
    assert '<image id="0" name="a.png" subset="Train" width="40" height="30">' in written
    assert '<box label="nut" source="manual" occluded="0" xtl="5" ytl="6" xbr="15.25" ybr="26" z_order="0">' in written
    assert '<attribute name="difficult">true</attribute>' in written
    assert "<subsets>Train</subsets>" in written
    assert "<input_type>checkbox</input_type>" in written
    again = read_data(tmp_path / "out")
    assert again.classes == ("nut", "bolt")
    assert again.images[0].difficult.tolist() == [True]
    assert again.findings == []


PARTS = ['label="nut"', 'name="b.png"', "<image ", "</image>", "<version>", 'xtl="5"', "<labels>", 'ybr="26"', "<box "]


@settings(derandomize=True, deadline=None, max_examples=15, database=None)
@given(
    st.sampled_from(PARTS),
    st.sampled_from(['label="owl"', "", "\0", "nan", 'xtl="1e999"', 'xtl="-5"']),
    st.integers(1, 999),
)
def test_read__damage_is_reported(tmp_path_factory, part, replacement, cut):
    root = tmp_path_factory.mktemp("set")
    for name in ("a.png", "b.png"):
        Image.new("RGB", (40, 30)).save(root / name)
    sound = xml(entry("a.png", box("bolt", (1, 2, 3, 4))), entry("b.png", box()))
    start = sound.rindex(part)
    errors = []
    for damaged in (sound[:start] + replacement + sound[start + len(part) :], sound[:-cut]):
        (root / "annotations.xml").write_text(damaged)
        try:
            data = read(root)
        except (DataError, UsageError) as error:
            errors.append(str(error))
        else:
            assert boxes(data)["a.png"] == [("bolt", 1, 2, 3, 4)]
            left = boxes(data).get("b.png", [])
            assert [corners[2:] for corners in left] == [(6, 15.25, 26)] or data.findings or "xtl" in replacement
    assert not any("\n" in error for error in errors)
