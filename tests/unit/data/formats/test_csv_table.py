import numpy as np
import pytest

from fasterrcnn.data.formats.base import ReadOptions
from fasterrcnn.data.formats.csv_table import CsvTable, read_columns, read_rows
from fasterrcnn.errors import DataError, UsageError

HEADER = "image,x1,y1,x2,y2,label"
ODD = {"image": "f", "x1": "a", "y1": "b", "x2": "c", "y2": "d", "label": "e"}
SIZES = {"x1": "A", "y1": "b", "width": "c", "height": "d"}


@pytest.fixture
def read(write_files):
    """Reads a table beside the images a.png and b.png."""

    def make(text, **options):
        root = write_files({"a.png": None, "b.png": None, "boxes.csv": text})
        return CsvTable().read(root / "boxes.csv", ReadOptions(**options))

    return make


def boxes_of(data):
    return [
        [box, data.classes[label]] for r in data.images for box, label in zip(r.boxes.tolist(), r.labels, strict=True)
    ]


def found(data):
    """Kind, line and words of what was found, but for images that a table need not name."""
    some = (f for f in data.findings if f.kind != "unlisted-image")
    return [(finding.kind, finding.annotation, finding.what) for finding in some]


def test_read__records_by_hand(read):
    data = read(f"{HEADER}\na.png,1,2,3.5,4,owl\nb.png,5,6,7,8,cat\n\na.png,0,0,40,30, cat\n")
    first, second = data.split("all")
    np.testing.assert_array_equal(first.boxes, np.array([[1, 2, 3.5, 4], [0, 0, 40, 30]], np.float32))
    assert (first.boxes.dtype, first.labels.dtype, first.difficult.dtype) == (np.float32, np.int64, np.bool_)
    assert data.classes == ("owl", "cat")
    assert (first.labels.tolist(), second.labels.tolist()) == ([0, 1], [1])
    assert (first.numbers.tolist(), second.numbers.tolist()) == ([2, 5], [3])
    assert (first.image_id, second.image_id) == (1, 2)
    assert first.size_hw == (30, 40)
    assert first.source == data.root / "boxes.csv"
    assert not first.difficult.any()
    assert data.describe_box(first, 1) == "line 5 (cat)"
    assert data.summary() == "CSV, 2 images, 2 classes (owl, cat), no splits"
    assert found(data) == []


@pytest.mark.parametrize(
    ("text", "options", "box"),
    [
        ("image,x,y,w,h,label\na.png,10,20,4,6,cat", {}, [10, 20, 14, 26]),
        ("image,x,y,width,height,label\na.png,10,20,4,6,cat", {}, [10, 20, 14, 26]),
        ("image,x,y,w,h,label\na.png,10,20,4,6,cat", {"box_format": "cxcywh"}, [8, 17, 12, 23]),
        ("image,x1,y1,x2,y2,label\na.png,10,20,4,6,cat", {"box_format": "xywh"}, [10, 20, 14, 26]),
        ("a.png,10,20,4,6,cat", {"box_format": "xywh"}, [10, 20, 14, 26]),
        ("a.png,10,20,14,26,cat", {}, [10, 20, 14, 26]),
        ("filename,width,height,class,xmin,ymin,xmax,ymax\na.png,40,30,cat,1,2,3,4", {}, [1, 2, 3, 4]),
        ("label,image,w,h,width,height,x,y\ncat,a.png,4,6,40,30,10,20", {}, [10, 20, 14, 26]),
        ("f,a,b,c,d,e\na.png,1,2,3,4,cat", {"columns": ODD}, [1, 2, 3, 4]),
        ("image,a,b,c,d,LABEL\na.png,1,2,3,4,cat", {"columns": SIZES}, [1, 2, 4, 6]),
        ("image,x1,y1,x2,y2,label,class\na.png,1,2,3,4,dog,cat", {"columns": {"label": "class"}}, [1, 2, 3, 4]),
        ("image,x1,y1,x2,y2,label\na.png,nan,2,1e300,inf,cat", {}, [np.nan, 2, np.inf, np.inf]),
        ("image,x1,y1,x2,y2,label\na.png,30,2,3,4,cat", {}, [30, 2, 3, 4]),
    ],
)  # fmt: skip
def test_read__boxes(read, text, options, box):
    data = read(text, **options)
    np.testing.assert_array_equal(data.images[0].boxes, np.array([box], np.float32))
    assert data.classes == ("cat",)
    assert found(data) == []


@pytest.mark.parametrize("text", [f"{HEADER}\na.png,,,,,\nb.png,1,2,3,4,cat", "a.png,,,,,\nb.png,1,2,3,4,cat\n,,,,,"])
def test_read__row_without_a_box_is_a_negative(read, text):
    data = read(text)
    assert [annotated.boxes.shape for annotated in data.images] == [(0, 4), (1, 4)]
    assert data.images[0].labels.shape == data.images[0].numbers.shape == (0,)
    assert found(data) == []


@pytest.mark.parametrize(
    ("row", "kind", "what"),
    [
        ("a.png,1,2,three,4,cat", "unreadable-annotations", "the box must be four numbers, not 1,2,three,4"),
        ("a.png,1,2,,4,cat", "unreadable-annotations", "the box must be four numbers, not 1,2,,4"),
        ("a.png,1,2,3,4,", "unreadable-annotations", "the box has no class"),
        (" ,1,2,3,4,cat", "unreadable-annotations", "no image is named"),
        ("a.png,1,2,3,4", "unreadable-annotations", "5 cells where 6 are expected"),
        ("a.png,1,2,3,4,cat,dog", "unreadable-annotations", "7 cells where 6 are expected"),
        ("c.png,1,2,3,4,cat", "missing-image", "there is no c.png below"),
        ("a.png,1,2,3,4,owl", "unknown-class", "'owl' is none of the classes cat, dog"),
    ],
)
def test_read__row_that_is_left_out(read, row, kind, what):
    data = read(f"{HEADER}\n{row}\nb.png,1,2,3,4,dog", classes=("cat", "dog"))
    ((found_kind, line, text),) = found(data)
    assert (found_kind, line) == (kind, 2)
    assert text.startswith(f"line 2: {what}")
    assert data.findings[0].file == data.root / "boxes.csv"
    assert data.classes == ("cat", "dog")
    assert boxes_of(data) == [[[1, 2, 3, 4], "dog"]]


def test_read__a_missing_image_is_reported_once(read):
    data = read(f"{HEADER}\nc.png,1,2,3,4,cat\nc.png,1,2,3,4,cat\nb.png,1,2,3,4,dog")
    assert [number for _, number, _ in found(data)] == [2]


def test_read__unreadable_image_is_reported_once(write_files):
    rows = "a.png,1,2,3,4,x,train\na.png,1,2,3,4,x,train\na.png,1,2,3,4,x,val\nb.png,,,,,,train"
    root = write_files({"a.png": "none", "b.png": None, "t.csv": f"{HEADER},split\n{rows}"})
    data = CsvTable().read(root / "t.csv")
    assert [annotated.path.name for annotated in data.images] == ["b.png"]
    finding = data.findings[0]
    assert str(finding) == f"{root / 'a.png'}: not an image that can be decoded"
    assert (finding.kind, finding.image) == ("unreadable-image", root / "a.png")


@pytest.mark.parametrize(
    ("image", "written"),
    [
        ("a.png", "./a.png"),
        ("images/a.png", "a.png"),
        ("sub/a.png", "sub\\a.png"),
        ("images/train/a.png", "a.png"),
        ("train/a.png", "a.png"),
        ("../images/a.png", "a.png"),
        ("../images/a.png", "../images/a.png"),
        ("../images/a.png", "/elsewhere/a.png"),
        ("a.png", "a"),
    ],
)
def test_read__places_of_images(write_files, image, written):
    root = write_files({image: None, "train.csv": f"{HEADER}\n{written},1,2,3,4,cat\n"})
    data = CsvTable().read(root / "train.csv", ReadOptions(images=root / "../images" if ".." in image else None))
    assert data.split("train")[0].path == (root / image).resolve()
    assert found(data) == []


def test_read__absolute_path(tmp_path, write_files):
    root = write_files({"a.png": None, "far/boxes.csv": f"{HEADER}\n{tmp_path / 'set/a.png'},1,2,3,4,cat\n"})
    assert CsvTable().read(root / "far/boxes.csv").images[0].path == root / "a.png"


def test_read__splits_of_a_column(read):
    rows = "a.png,1,2,3,4,x,Valid,0\na.png,1,2,3,4,x,train,1\nb.png,1,2,3,4,x,TRAIN,True\na.png,1,2,3,4,x,fold 7,no"
    data = read(f"{HEADER},subset,iscrowd\n{rows}")
    assert {name: [r.path.name for r in records] for name, records in data.splits.items()} == {
        "train": ["a.png", "b.png"],
        "val": ["a.png"],
        "fold 7": ["a.png"],
    }
    assert [r.difficult.tolist() for r in data.split("train")] == [[True], [True]]
    assert [r.difficult.tolist() for r in data.split("val") + data.split("fold 7")] == [[False], [False]]
    assert sorted(r.image_id for r in data.images) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "names",
    [("train.csv", "val.csv"), ("train/_annotations.csv", "valid/_annotations.csv"), ("a_train.tsv", "a_val.csv")],
)
def test_read__one_file_for_each_split(write_files, names):
    images = [name.rpartition("/")[0] + "/x.png" if "/" in name else "x.png" for name in names]
    files = {name: f"{HEADER}\nx.png,1,2,3,4,{label}\n" for name, label in zip(names, ("cat", "dog"), strict=True)}
    root = write_files(files | dict.fromkeys(images) | {"classes.csv": "cat,0\ndog,1\n"})
    assert CsvTable().recognise(root) == [root]
    data = CsvTable().read(root)
    assert list(data.splits) == ["train", "val"]
    assert boxes_of(data) == [[[1, 2, 3, 4], "cat"], [[1, 2, 3, 4], "dog"]]
    assert [data.split(split)[0].source for split in ("train", "val")] == [root / name for name in names]


def test_find__files(write_files):
    keras = "images/a.png,1,2,3,4,cat\n"
    root = write_files(
        {"one.csv": f"{HEADER}\n", "two.tsv": keras, "metrics.csv": "epoch,loss\n1,2\n", "empty.csv": ""}
    )
    assert CsvTable().recognise(root) == [root / "one.csv", root / "two.tsv"]
    assert CsvTable().recognise(root / "metrics.csv") == [root / "metrics.csv"]
    (root / "two.tsv").rename(root / "two.txt")
    assert CsvTable().recognise(root) == [root / "one.csv"]
    assert CsvTable().recognise(root / "two.txt") == []
    (root / "one.csv").unlink()
    assert CsvTable().recognise(root) == []


@pytest.mark.parametrize(
    ("text", "options", "error", "message"),
    [
        ("file,xmin,ymax,class\n", {}, DataError, "no column for y1, x2; its header"),
        (f"{HEADER}\n", {"columns": {"x1": "links"}}, UsageError, "no column is called 'links'"),
        (f"{HEADER}\n", {}, DataError, r"CSV \(.*\): no image that could be used$"),
        (f"{HEADER}\nc.png,1,2,3,4,cat", {}, DataError, r"first: .*its images .* are nowhere"),
        (f"{HEADER}\na.png,1,2,3,4,grün".encode("latin-1"), {}, DataError, r"\.csv: not UTF-8 text .* save it"),
        (f"{HEADER}\n{'x' * 200_000}", {}, DataError, r"boxes\.csv: broken CSV \(field larger than field limit"),
    ],
)  # fmt: skip
def test_read__file_that_is_refused(read, text, options, error, message):
    with pytest.raises(error, match=message) as caught:
        read(text, **options)
    assert "\n" not in str(caught.value)


def test_read__size_of_the_image_that_is_wrong(write_files):
    root = write_files(dict.fromkeys(("a.png", "b.png", "c.png")))
    rows = [
        "filename,width,height,class,xmin,ymin,xmax,ymax",
        "a.png,40,30,cat,1,2,3,4",
        "b.png,30,40,cat,1,2,3,4",
        "c.png,,,cat,1,2,3,4",
    ]
    (root / "labels.csv").write_text("\n".join(rows))
    data = CsvTable().read(root / "labels.csv")
    finding = data.findings[0]
    assert (finding.kind, finding.image) == ("size-mismatch", root / "b.png")
    assert "states 30 x 40 for b.png, the image has 40 x 30 (width x height); width and height are exch" in finding.what
    assert [annotated.size_hw for annotated in data.images] == [(30, 40), (40, 30), (30, 40)]


def test_read__images_that_no_row_names(write_files):
    root = write_files({"a.png": None, "b.png": None, "boxes.csv": "image,x1,y1,x2,y2,label\na.png,1,2,3,4,cat"})
    (finding,) = CsvTable().read(root / "boxes.csv").findings
    assert (finding.kind, finding.file) == ("unlisted-image", root / "b.png")


def test_find__folder_with_unusual_columns(write_files):
    root = write_files({"a.png": None, "boxes.csv": "photo,l,t,r,b,kind\na.png,1,2,3,4,cat"})
    columns = {"image": "photo", "x1": "l", "y1": "t", "x2": "r", "y2": "b", "label": "kind"}
    assert CsvTable().recognise(root) == []
    assert CsvTable().recognise(root, ReadOptions(columns=columns)) == [root / "boxes.csv"]


CORNERS = "image,x1,y1,x2,y2,label"


def box_of(columns):
    """Positions of the four numbers of a box."""
    return tuple(columns.positions[side] for side in columns.box)


@pytest.fixture
def table(tmp_path):
    """Writes a table."""

    def write(text):
        path = tmp_path / "boxes.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    ("header", "delimiter"),
    [
        (CORNERS, ","),
        ("FileName;XMin;YMin;XMax;YMax;Class", ";"),
        ("path\tleft\ttop\tright\tbottom\tcategory", "\t"),
        ('"image_path" , "x_min","y_min","x_max","y_max","class_name"', ","),
        ("\ufeffImageID,xmin,ymin,xmax,ymax,LabelName", ","),
    ],
)
def test_read_columns__common_names(table, header, delimiter):
    columns = read_columns(table(header))
    assert columns.positions == {"image": 0, "x1": 1, "y1": 2, "x2": 3, "y2": 4, "label": 5}
    assert (columns.delimiter, columns.width) == (delimiter, 6)
    assert columns.has_header
    assert columns.has_corners


@pytest.mark.parametrize(
    ("header", "box", "has_corners"),
    [
        ("image,label,x,y,w,h", (2, 3, 4, 5), False),
        ("image,label,x,y,width,height", (2, 3, 4, 5), False),
        ("image,label,x,y,width,height,w,h", (2, 3, 6, 7), False),
        ("image,label,width,height,xmin,ymin,xmax,ymax", (4, 5, 6, 7), True),
        ("image,label,left,top,width,height", (2, 3, 4, 5), False),
    ],
)
def test_read_columns__width_of_the_box_or_of_the_image(table, header, box, has_corners):
    columns = read_columns(table(header))
    assert box_of(columns) == box
    assert columns.has_corners == has_corners


def test_read_columns__other_columns(table):
    columns = read_columns(table("id,subset,iscrowd,image,x1,y1,x2,y2,label,class_name"))
    assert [columns.positions[name] for name in ("split", "difficult", "image", "label")] == [1, 2, 3, 9]


@pytest.mark.parametrize("row", ["images/a.jpg,1,2,3,4,cat", "a.PNG,,,,,", "a.jpg;x;2;3;4;cat"])
def test_read_columns__without_header(table, row):
    columns = read_columns(table(row))
    assert columns.positions == {"image": 0, "x1": 1, "y1": 2, "x2": 3, "y2": 4, "label": 5}
    assert columns.width == 6
    assert not columns.has_header
    assert [number for number, _ in read_rows(table(row), columns)] == [1]


def test_read_columns__columns_that_are_named(table):
    path = table("x1,b,c,d,e,Photo,label")
    names = {"image": "photo", "x1": "b", "y1": "c", "width": "d", "height": "E"}
    columns = read_columns(path, names)
    assert (columns.positions["image"], columns.positions["label"]) == (5, 6)
    assert (box_of(columns), columns.has_corners) == ((1, 2, 3, 4), False)


@pytest.mark.parametrize(
    ("header", "columns", "error", "message"),
    [
        (
            "file,xmin,ymax,class",
            None,
            DataError,
            r"boxes\.csv: no column for y1, x2; its header: file, xmin, ymax, class",
        ),
        ("file,xmin,ymax,class", None, DataError, r"; name it with columns \(--columns y1=NAME\)$"),
        ("1,2,3", None, DataError, "no column for image, x1, y1, x2, y2, label; its header: 1, 2, 3"),
        ("image,x,y,w,label", None, DataError, "no column for height; its header"),
        ("", None, DataError, "its header: empty"),
        ("a.jpg,1,2,3,4", None, DataError, "no column for image"),
        (CORNERS, {"colour": "x1"}, UsageError, "no column means 'colour'; there are: image, x1, y1, x2, y2, width"),
        (CORNERS, {"x1": "links"}, UsageError, r"boxes\.csv: no column is called 'links'; its header: image, x1"),
    ],
)
def test_read_columns__refused(table, header, columns, error, message):
    with pytest.raises(error, match=message):
        read_columns(table(header), columns)


def test_read_rows__lines_of_the_file(table):
    path = table(f'{CORNERS}\r\n\r\na.jpg, 1 ,2,3,4,"cat, small"\r\n,,,,,\r\nb.jpg,1,2,3,4,"two\nlines"\r\n')
    assert list(read_rows(path, read_columns(path))) == [
        (3, ["a.jpg", "1", "2", "3", "4", "cat, small"]),
        (6, ["b.jpg", "1", "2", "3", "4", "two\nlines"]),
    ]
