import math
import os

import numpy as np
import pytest
from PIL import Image

from fasterrcnn.data.findings import raise_on_errors
from fasterrcnn.data.formats.voc import PascalVoc
from fasterrcnn.errors import DataError, UsageError

read, recognise = PascalVoc().read, PascalVoc().recognise


def xml(*objects: str, size: str = "") -> str:
    return f"<annotation><filename>x</filename>{size}{''.join(objects)}</annotation>"


def thing(name: str, box, extra: str = "") -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    inner = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return f"<object><name>{name}</name>{extra}<bndbox>{inner}</bndbox></object>"


def size_xml(width, height) -> str:
    return f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"


GOOD = thing("cat", (5, 6, 15, 26))


def write_pair(folder, stem: str, text: str = xml(GOOD), images=None) -> None:
    """An XML file and its image of 40 x 30."""
    images = folder if images is None else images
    for place in (folder, images):
        place.mkdir(parents=True, exist_ok=True)
    (folder / f"{stem}.xml").write_text(text, encoding="utf-8")
    Image.new("RGB", (40, 30)).save(images / f"{stem}.jpg")


@pytest.fixture
def folder(tmp_path):
    """Makes a data set of 40 x 30 images from the XML of each; lists make splits."""

    def make(annotations, splits=None, root=tmp_path / "set", images=None):
        for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (root / name).mkdir(parents=True, exist_ok=True)
        for stem, text in annotations.items():
            (root / "Annotations" / f"{stem}.xml").write_bytes(text if isinstance(text, bytes) else text.encode())
        for stem in annotations if images is None else images:
            Image.new("RGB", (40, 30)).save(root / "JPEGImages" / f"{stem}.jpg")
        for name, stems in (splits or {}).items():
            (root / "ImageSets/Main" / f"{name}.txt").write_text("".join(f"{stem}\n" for stem in stems))
        return root

    return make


def stems(data) -> dict[str, list[str]]:
    return {name: [annotated.path.stem for annotated in records] for name, records in data.splits.items()}


def messages(data) -> list[tuple[str, str, str]]:
    return [(finding.kind, finding.file.name, finding.what) for finding in data.findings]


def test_read__splits_in_the_order_of_the_files(folder):
    root = folder(dict.fromkeys("abcd", xml(GOOD)), {"train": ["c", "a", "c", ""], "val": ["b"], "test": ["d"]})
    data = read(root)
    assert data.format == "Pascal VOC"
    assert stems(data) == {"train": ["c", "a"], "val": ["b"], "test": ["d"]}
    assert data.summary() == "Pascal VOC, 4 images, 1 class (cat), splits train 2 / val 1 / test 1"
    assert data.findings == []


def test_read__without_splits_all(folder):
    data = read(folder({"b": xml(), "a": xml(GOOD)}))
    assert stems(data) == {"all": ["a", "b"]}
    with pytest.raises(UsageError, match="no split 'test'; there are: all"):
        data.split("test")


def test_read__annotated_image(folder):
    objects = thing("owl", (1, 2, 3, 4)), thing(" cat ", ("5.5", " 6 ", "15", "26"), "<difficult>1</difficult>")
    root = folder({"a": xml(*objects)})
    (annotated,) = read(root).split("all")
    assert annotated.image_id == 1
    assert annotated.size_hw == (30, 40)
    np.testing.assert_array_equal(annotated.boxes, np.array([[1, 2, 3, 4], [5.5, 6, 15, 26]], np.float32))
    assert annotated.labels.tolist() == [1, 0]  # classes are sorted by name
    assert annotated.difficult.tolist() == [False, True]
    assert (annotated.boxes.dtype, annotated.labels.dtype, annotated.difficult.dtype) == (
        np.float32,
        np.int64,
        np.bool_,
    )
    assert annotated.source == root / "Annotations" / "a.xml"
    assert annotated.numbers.tolist() == [1, 2]


def test_read__image_without_objects(folder):
    first, second = read(folder({"a": xml(), "b": xml(GOOD)})).split("all")
    assert first.boxes.shape == (0, 4)
    assert first.labels.shape == first.difficult.shape == first.numbers.shape == (0,)
    assert len(second.boxes) == 1


def test_read__no_object_at_all(folder):
    data = read(folder({"a": xml()}))
    assert data.classes == ()
    assert len(data.split("all")) == 1


def test_read__an_image_in_two_splits_is_one_object(folder):
    data = read(folder({"a": xml(GOOD), "b": xml(GOOD)}, {"train": ["a", "b"], "val": ["b"]}))
    assert data.split("train")[1] is data.split("val")[0]
    assert data.summary().startswith("Pascal VOC, 2 images")


@pytest.mark.parametrize("depth", [".", "VOC2007", "VOCdevkit/VOC2007"])
def test_find__below(tmp_path, folder, depth):
    folder({"a": xml(GOOD)}, root=tmp_path / "top" / depth)
    assert recognise(tmp_path / "top") == [tmp_path / "top" / depth]


def test_find__several_and_none(tmp_path, folder):
    assert recognise(tmp_path) == []
    (tmp_path / "Annotations").mkdir()
    assert recognise(tmp_path) == []
    folder({"a": xml(GOOD)}, root=tmp_path / "two")
    folder({"a": xml(GOOD)}, root=tmp_path / "deep" / "one")
    folder({"a": xml(GOOD)}, root=tmp_path / "too" / "far" / "down" / "three")
    assert recognise(tmp_path) == [tmp_path / "deep" / "one", tmp_path / "two"]
    assert recognise(tmp_path / "two" / "Annotations" / "a.xml") == []


def test_find__other_xml_is_no_data_set(tmp_path):
    (tmp_path / "pom.xml").write_text("<project/>")
    (tmp_path / "cvat").mkdir()
    (tmp_path / "cvat" / "annotations.xml").write_text("<annotations><image/></annotations>")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.xml").mkdir()
    assert recognise(tmp_path) == []


def test_find__what_macos_leaves_in_archives(tmp_path, folder):
    root = folder({"a": xml(GOOD)}, root=tmp_path / "top" / "set")
    (root / "Annotations" / "._a.xml").write_bytes(b"\0\5\26\7")
    (root / "JPEGImages" / "._a.jpg").write_bytes(b"\0\5\26\7")
    folder({"a": xml(GOOD)}, root=tmp_path / "top" / "__MACOSX" / "set")
    assert recognise(tmp_path / "top") == [root]
    data = read(root)
    assert stems(data) == {"all": ["a"]}
    assert data.findings == []


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("Annotations", "JPEGImages"),
        ("annotations", "images"),
        ("Annotations", "."),
        ("Annotations", "Annotations"),
        (".", "."),
        ("annots", "images"),
        ("annotations/xmls", "images"),
        ("labels", "photos/all"),
        ("xml", "jpg"),
    ],
)
def test_read__layouts(tmp_path, annotations, images):
    root = tmp_path / "set"
    write_pair(root / annotations, "a", images=root / images)
    write_pair(root / annotations, "b", images=root / images)
    assert recognise(tmp_path) == [root]
    data = read(root)
    assert [annotated.path for annotated in data.split("all")] == [root / images / "a.jpg", root / images / "b.jpg"]
    assert data.findings == []


def test_read__a_folder_for_each_split(tmp_path):
    # Roboflow's export; the same names may come in several splits.
    write_pair(tmp_path / "train", "a")
    write_pair(tmp_path / "valid", "a", xml(thing("dog", (1, 2, 3, 4))))
    write_pair(tmp_path / "test" / "Annotations", "b", images=tmp_path / "test" / "JPEGImages")
    write_pair(tmp_path / "elsewhere" / "Annotations", "c")
    assert recognise(tmp_path) == [tmp_path]
    data = read(tmp_path)
    assert stems(data) == {"test": ["b"], "train": ["a"], "val": ["a"]}
    assert data.classes == ("cat", "dog")
    assert data.split("val")[0].path == tmp_path / "valid" / "a.jpg"
    assert len({annotated.image_id for annotated in data.images}) == 3


def test_read__linked_images(tmp_path, folder):
    root = folder({"a": xml(GOOD)})
    (root / "JPEGImages").rename(tmp_path / "store")
    (root / "JPEGImages").symlink_to(tmp_path / "store")
    assert stems(read(root)) == {"all": ["a"]}
    (tmp_path / "link").symlink_to(root)
    assert stems(read(tmp_path / "link")) == {"all": ["a"]}


def test_read__nothing(folder):
    with pytest.raises(DataError, match=r"set: no annotated image$"):
        read(folder({}))


def test_read__empty_split(folder):
    data = read(folder({"a": xml(GOOD)}, {"train": ["a"], "val": []}))
    assert list(data.splits) == ["train"]
    assert messages(data) == [("empty-split", "val.txt", "names no image")]


def test_read__names_with_spaces_dots_and_marks(folder):
    names = ["my photo 1", "b", "v1.5", "grün"]
    data = read(folder(dict.fromkeys(names, xml(GOOD)), {"valid": ["my photo 1", "b  -1", "v1.5 1", "grün"]}))
    assert stems(data) == {"val": names}


def test_read__split_file_with_byte_order_mark_and_windows_lines(folder):
    root = folder({"a": xml(GOOD), "b": xml(GOOD)})
    (root / "ImageSets/Main/train.txt").write_bytes(b"\xef\xbb\xbfa\r\nb\r\n")
    assert stems(read(root)) == {"train": ["a", "b"]}


def test_read__boxes_stay_as_they_are_written(folder):
    written = [(5, 6, 5, 20), (20, 6, 5, 20), (50, 6, 60, 20), (-5, 6, 50, 20), ("nan", 6, 20, 20), (5, 6, "inf", 20)]
    data = read(folder({"a": xml(*(thing("cat", box) for box in written))}))
    np.testing.assert_array_equal(data.split("all")[0].boxes, np.array(written, np.float32))
    assert data.findings == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation>", "not readable XML (no element found: line 1, column 12)"),
        ("", "not readable XML (no element found: line 1, column 0)"),
        (b"\xff\xfe\xfd", "not readable XML"),
        (b'<?xml version="1.0" encoding="utf-8"?><annotation>\xff</annotation>', "not readable XML (not well-formed"),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', "not readable XML (unknown encoding"),
        ('<?xml version="1.0" encoding="shift_jis"?><annotation/>', "not readable XML (multi-byte encodings"),
        ("<html><body/></html>", "not Pascal VOC: it begins with <html>, not with <annotation>"),
        ('<annotation xmlns="urn:x"/>', "not Pascal VOC: it begins with <{urn:x}annotation>, not with <annotation>"),
    ],
)
def test_read__damaged_annotation(folder, text, message):
    data = read(folder({"a": text, "b": xml(GOOD)}))
    assert stems(data) == {"all": ["b"]}
    ((kind, file, what),) = messages(data)
    assert (kind, file) == ("unreadable-annotations", "a.xml")
    assert what.startswith(message)
    assert data.findings[0].image == data.root / "JPEGImages" / "a.jpg"


@pytest.mark.parametrize(
    ("damaged", "what"),
    [
        (thing("", (1, 2, 3, 4)), "object 2: it has no name"),
        ("<object><bndbox/></object>", "object 2: it has no name"),
        (
            thing("dog", (1, 2, "three", 4)),
            "object 2 (dog): xmin, ymin, xmax, ymax must be numbers, not '1', '2', 'three', '4'",
        ),
        ("<object><name>dog</name></object>", "object 2 (dog): xmin, ymin, xmax, ymax must be numbers, not"),
        (
            thing("dog", (1, 2, 3, 4)).replace("bndbox", "bbox"),
            "object 2 (dog): it has no <bndbox>, but <bbox>: rename the tag",
        ),
        (thing("dog", (1, 2, "", 4)), "object 2 (dog): xmin, ymin, xmax, ymax must be numbers, not"),
    ],
)
def test_read__damaged_object_among_good_ones(folder, damaged, what):
    data = read(folder({"a": xml(GOOD, damaged, thing("owl", (1, 2, 3, 4)))}))
    (image,) = data.images
    assert [data.classes[label] for label in image.labels] == ["cat", "owl"]
    ((kind, file, text),) = messages(data)
    assert (kind, file) == ("unreadable-annotations", "a.xml")
    assert text.startswith(what)
    assert data.findings[0].annotation == 2


def test_read__image_that_the_file_names(folder):
    """It is needed where no image has the stem of the file, and where several have it."""
    root = folder(
        {"a": xml(GOOD).replace(">x<", ">photo.jpg<"), "b": xml(GOOD).replace(">x<", ">b.png<")}, images=["photo"]
    )
    for extension in ("png", "jpg"):
        Image.new("RGB", (40, 30)).save(root / "JPEGImages" / f"b.{extension}")
    data = read(root)
    assert [annotated.path.name for annotated in data.images] == ["photo.jpg", "b.png"]


def test_read__folders_of_one_task(tmp_path):
    """CVAT keeps them below Annotations, and they have images of the same names."""
    for number, name in enumerate(("cam1/0001", "cam2/0001", "cam2/0002")):
        place, stem = name.split("/")
        text = xml(thing("mug", (1, 2, 3, 4 + number)))
        write_pair(tmp_path / "Annotations" / place, stem, text, images=tmp_path / "JPEGImages" / place)
    lists = tmp_path / "ImageSets/Main"
    lists.mkdir(parents=True)
    (lists / "Train.txt").write_text("cam1/0001\ncam2/0002.jpg\n")
    (lists / "Validation.txt").write_text("JPEGImages/cam2/0001.jpg Annotations/cam2/0001.xml\n")
    assert recognise(tmp_path) == [tmp_path]
    data = read(tmp_path)
    found = {split: [(i.path.parent.name, i.boxes[0, 3]) for i in images] for split, images in data.splits.items()}
    assert found == {"train": [("cam1", 4), ("cam2", 6)], "val": [("cam2", 5)]}
    assert data.findings == []


def test_read__no_image_is_there(tmp_path):
    write_pair(tmp_path / "set" / "annots", "a", images=tmp_path)
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"its images \(a\.\*\.\.\.\) are nowhere below .*; name their folder"):
        read(tmp_path / "set")


LAUGHS = """<?xml version="1.0" encoding="{}"?><!DOCTYPE lolz [<!ENTITY lol "lol">{}]>
<annotation><object><name>&lol9;</name></object></annotation>"""
MORE = "".join(f'<!ENTITY lol{n} "{f"&lol{n - 1};" * 10}">' for n in range(1, 10)).replace("&lol0;", "&lol;")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le"])
def test_read__xml_bomb_is_refused(folder, encoding):
    data = read(folder({"a": LAUGHS.format(encoding.removesuffix("-le"), MORE).encode(encoding), "b": xml(GOOD)}))
    assert messages(data) == [
        ("unreadable-annotations", "a.xml", "declares XML entities, which can blow up in memory; refused")
    ]


def test_read__external_entity_is_refused(tmp_path, folder):
    (tmp_path / "secret").write_text("cat")
    text = f'<!DOCTYPE x [<!ENTITY s SYSTEM "file://{tmp_path}/secret">]>' + xml(thing("&s;", (1, 2, 3, 4)))
    data = read(folder({"a": text, "b": f'<!DOCTYPE x SYSTEM "file://{tmp_path}/secret">' + xml(GOOD)}))
    assert stems(data) == {"all": ["b"]}
    assert "declares XML entities" in data.findings[0].what


def test_read__deep_and_large_files(folder, monkeypatch):
    monkeypatch.setattr("fasterrcnn.data.formats.reading._MAX_XML_BYTES", 2**20)
    deep = xml(GOOD, "<part>" * 50_000 + "</part>" * 50_000)
    data = read(folder({"a": deep, "b": xml(GOOD, " " * 2**20)}))
    assert stems(data) == {"all": ["a"]}
    assert messages(data) == [("unreadable-annotations", "b.xml", "larger than 1 MiB")]


def test_read__utf_16(folder):
    data = read(
        folder({"a": f'<?xml version="1.0" encoding="utf-16"?>{xml(thing("猫", (1, 2, 3, 4)))}'.encode("utf-16")})
    )
    assert data.classes == ("猫",)


def test_read__missing_files(folder):
    root = folder({"a": xml(GOOD), "b": xml(GOOD)}, {"train": ["a", "b", "ghost", "x" * 300]}, images=["a", "ghost"])
    data = read(root)
    assert stems(data) == {"train": ["a"]}
    assert messages(data) == [
        ("missing-image", "b.xml", f"there is no b.* below {root}"),
        ("missing-annotations", "ghost.xml", "no such file"),
        ("missing-annotations", f"{'x' * 300}.xml", "no such file"),
    ]
    assert data.findings[1].image == root / "JPEGImages" / "ghost.jpg"


def test_read__folder_instead_of_a_file(folder):
    root = folder({"a": xml(GOOD), "b": xml(GOOD)})
    (root / "Annotations" / "b.xml").unlink()
    (root / "Annotations" / "b.xml").mkdir()
    (root / "ImageSets/Main/train.txt").mkdir()
    assert messages(read(root)) == [("unlisted-image", "b.jpg", "image without annotations")]


def test_read__two_images_of_one_name(folder):
    root = folder({"a": xml(GOOD), "b": xml(GOOD)})
    Image.new("RGB", (40, 30)).save(root / "JPEGImages" / "a.png")
    data = read(root)
    assert stems(data) == {"all": ["b"]}
    several = " or ".join(str(root / "JPEGImages" / name) for name in ("a.jpg", "a.png"))
    assert messages(data) == [("ambiguous-image", "a.xml", f"a.* could be {several}")]


def test_read__image_that_is_none(folder):
    root = folder({"a": xml(GOOD), "b": xml(GOOD)})
    (root / "JPEGImages" / "a.jpg").write_text("no image")
    data = read(root)
    assert stems(data) == {"all": ["b"]}
    assert messages(data) == [("unreadable-image", "a.jpg", "not an image that can be decoded")]


@pytest.mark.parametrize("size", ["", "<size/>", size_xml(0, 0), size_xml(40, 30), size_xml("", ""), size_xml("a", 1)])
def test_read__size_missing_zero_or_right(folder, size):
    data = read(folder({"a": xml(GOOD, size=size)}))
    assert data.split("all")[0].size_hw == (30, 40)
    assert data.findings == []


def test_read__size_disagrees(folder):
    data = read(folder({"a": xml(GOOD, size=size_xml(80, 60))}))
    assert data.split("all")[0].size_hw == (60, 80)  # that of the boxes
    assert messages(data) == [
        ("size-mismatch", "a.xml", "states 80 x 60 for a.jpg, the image has 40 x 30 (width x height)")
    ]


def test_read__image_turned_by_exif(folder):
    # The file stores 40 x 30 and is to be shown as 30 x 40: the stated size decides to which of them the boxes belong.
    root = folder({"stored": xml(GOOD, size=size_xml(40, 30)), "shown": xml(GOOD, size=size_xml(30, 40))})
    tags = Image.Exif()
    tags[274] = 6
    for name in ("stored", "shown"):
        Image.new("RGB", (40, 30)).save(root / "JPEGImages" / f"{name}.jpg", exif=tags)
    data = read(root)
    assert [annotated.size_hw for annotated in data.images] == [(40, 30), (30, 40)]
    [(kind, file, what)] = messages(data)
    assert (kind, file) == ("size-mismatch", "stored.xml")
    assert what == (
        "states 40 x 30 for stored.jpg, the image has 30 x 40 (width x height); size and probably boxes are of the "
        "stored, unrotated image (EXIF orientation 6); data check --fix turns such boxes"
    )


def test_read__png_turned_by_exif_behind_its_pixels(folder):
    root = folder({"a": xml(GOOD, size=size_xml(30, 40))}, images=[])
    tags = Image.Exif()
    tags[274] = 6
    file = root / "JPEGImages" / "a.png"
    Image.new("RGB", (40, 30)).save(file, exif=tags)
    whole = file.read_bytes()
    start = whole.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(whole[start : start + 4], "big")
    last = whole.index(b"IEND") - 4
    file.write_bytes(whole[:start] + whole[end:last] + whole[start:end] + whole[last:])
    data = read(root)
    assert data.images[0].size_hw == (40, 30)
    assert data.findings == []


def test_read__png_is_not_decoded_for_its_size(folder):
    # Decoding every image would take minutes; the damage is found when the image is used.
    root = folder({"a": xml(GOOD)}, images=[])
    file = root / "JPEGImages" / "a.png"
    Image.effect_noise((40, 30), 60).save(file)
    file.write_bytes(file.read_bytes()[:200])
    assert read(root).images[0].size_hw == (30, 40)


def test_read__many_problems(folder):
    data = read(folder({f"{n:02}": "<" for n in range(30)}))
    with pytest.raises(DataError, match=r"^30 errors in .*\n.* \(30\): .*\n.*00\.xml: not readable XML"):
        raise_on_errors(data.findings, data.root)


def test_read__split_file_in_another_encoding(folder):
    root = folder({"a": xml(GOOD)})
    (root / "ImageSets/Main/train.txt").write_bytes("grün\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"train\.txt: not UTF-8 text \(invalid"):
        read(root)


def test_read__deep_path(tmp_path, monkeypatch):
    # Longer than the 4,096 bytes a path may have: such folders can only be entered step by step.
    monkeypatch.chdir(tmp_path)
    write_pair(tmp_path / "set", "a")
    for _ in range(300):
        os.mkdir("d" * 20)
        os.chdir("d" * 20)
    assert recognise(tmp_path) == [tmp_path / "set"]


def test_read__blood_cells(shared_data):
    (root,) = recognise(shared_data / "bccd")
    data = read(root)
    assert {name: len(records) for name, records in data.splits.items() if name != "trainval"} == {
        "train": 205,
        "val": 87,
        "test": 72,
    }
    assert data.classes == ("Platelets", "RBC", "WBC")
    records = [annotated for name in ("train", "val", "test") for annotated in data.split(name)]
    assert np.bincount(np.concatenate([annotated.labels for annotated in records])).tolist() == [361, 4155, 372]
    flat = {
        (annotated.path.stem, *box) for annotated in records for box in annotated.boxes.tolist() if box[0] == box[2]
    }
    assert flat == {("BloodImage_00338", 504, 337, 504, 337), ("BloodImage_00343", 181, 329, 181, 329)}
    assert data.findings == []


def test_read__road_signs(shared_data):
    data = read(shared_data / "road_signs")
    assert {name: len(records) for name, records in data.splits.items()} == {"train": 612, "val": 177, "test": 88}
    assert data.classes == ("crosswalk", "speedlimit", "stop", "trafficlight")
    assert np.bincount(np.concatenate([r.labels for r in data.images])).tolist() == [200, 783, 91, 170]
    assert data.findings == []


def test_read__lists_that_are_no_splits(folder):
    files = {"a": xml(GOOD), "b": xml(GOOD)}
    lists = {"training_set": ["a"], "eval": ["b"], "cat_train": ["a  1", "b -1"], "default": ["a", "b"]}
    data = read(folder(files, lists))
    assert stems(data) == {"train": ["a", "b"]}  # the lists of single classes count where there are no others
    (note,) = data.notes[1:]
    assert note == "left out: ImageSets/Main/default, eval, training_set.txt, whose names are no splits"


def test_read__other_shapes(folder):
    polygon = "<polygon><x1>1</x1><y1>8</y1><x2>21</x2><y2>3</y2><x3>11</x3><y3>28</y3></polygon>"
    points = "<polygon><username/>" + "".join(f"<pt><x>{x}</x><y>{x + 2}</y></pt>" for x in (4, 9, 6)) + "</polygon>"
    rotated = f"<robndbox><cx>20</cx><cy>15</cy><w>10</w><h>4</h><angle>{math.pi / 2}</angle></robndbox>"
    both = "<polygon><x1>0</x1><y1>0</y1><x2>1</x2><y2>1</y2></polygon><bndbox><xmin>1</xmin><ymin>2</ymin>" + (
        "<xmax>3</xmax><ymax>4</ymax></bndbox>"
    )
    cut = "<polygon><x1>1</x1><y1>8</y1><x2>21</x2></polygon>"
    objects = "".join(f"<object><name>cat</name>{shape}</object>" for shape in (polygon, points, rotated, both, cut))
    data = read(folder({"a": f"<annotation>{objects}</annotation>"}))
    boxes = [[1, 3, 21, 28], [4, 6, 9, 11], [18, 10, 22, 20], [1, 2, 3, 4]]
    np.testing.assert_allclose(data.images[0].boxes, boxes, atol=1e-5)
    assert data.notes[1:] == ["taken as the box around: 2 x polygon, 1 x rotated box"]
    assert messages(data) == [("unreadable-annotations", "a.xml", "object 5 (cat): <polygon> has 3 numbers")]


def test_read__cameras_of_which_an_image_is_missing(tmp_path):
    for camera, numbers in (("cam1", "123"), ("cam2", "13")):
        (tmp_path / "images" / camera).mkdir(parents=True)
        (tmp_path / "Annotations" / camera).mkdir(parents=True)
        for number in numbers:
            Image.new("RGB", (40, 30)).save(tmp_path / "images" / camera / f"{number}.jpg")
        for number in "123":
            text = xml(GOOD).replace("<annotation>", f"<annotation><filename>{number}.jpg</filename>", 1)
            (tmp_path / "Annotations" / camera / f"{number}.xml").write_text(text)
    data = read(tmp_path)
    assert len(data.images) == 5
    assert [(f.kind, f.file.parent.name, f.file.name) for f in data.findings] == [("missing-image", "cam2", "2.xml")]
    (tmp_path / "images/cam2").rename(tmp_path / "elsewhere")
    assert {image.path.parent.name for image in read(tmp_path).images} == {"cam1"}


def test_read__two_files_of_one_image(tmp_path):
    for annotator in ("alice", "bob"):
        (tmp_path / "annotations" / annotator).mkdir(parents=True)
        (tmp_path / "annotations" / annotator / "1.xml").write_text(xml(GOOD))
    (tmp_path / "images").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "images/1.jpg")
    Image.new("RGB", (40, 30)).save(tmp_path / "images/2.jpg")
    (tmp_path / "annotations/alice/2.xml").write_text(xml(GOOD))
    data = read(tmp_path)
    assert stems(data) == {"all": ["2"]}
    assert [f.kind for f in data.findings] == ["ambiguous-image"] * 2


@pytest.mark.parametrize("place", ["ImageSets", "."])
def test_read__lists_elsewhere(folder, place):
    root = folder({"a": xml(GOOD), "b": xml(GOOD)})
    (root / place / "train.txt").write_text("./JPEGImages/a.jpg ./Annotations/a.xml\n")
    (root / place / "val.txt").write_text("./JPEGImages/b.jpg ./Annotations/b.xml\n")
    (root / "labels.txt").write_text("cat\n")
    assert stems(read(root)) == {"train": ["a"], "val": ["b"]}
