import numpy as np
import pytest

from fasterrcnn.data.formats import read_data
from fasterrcnn.data.formats.base import ReadOptions
from fasterrcnn.data.formats.csv_table import CsvTable
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


@pytest.mark.parametrize(
    ("header", "stated", "columns"),
    [
        ("image,x,y,w,h,label", "xyxy", "x, y, w, h, which are xywh"),
        ("image,left,top,width,height,label", "xyxy", "left, top, width, height, which are xywh"),
        ("image,cx,cy,w,h,label", "xyxy", "cx, cy, w, h, which are cxcywh"),
        ("image,x_center,y_center,w,h,label", "xywh", "x_center, y_center, w, h, which are cxcywh"),
    ],
)
def test_read__box_format_that_the_columns_contradict(read, header, stated, columns):
    with pytest.raises(UsageError, match=rf"box_format \(--box-format\) {stated} does not fit the columns {columns}; "):
        read(f"{header}\na.png,1,2,3,4,cat", box_format=stated)


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_read__decimal_commas(read, delimiter):
    rows = [["1,5", "2", "30,25", "4,0", "cat"], ["", "", "", "", ""], ["1.000,5", "2", "3", "4", "cat"]]
    data = read("\n".join(delimiter.join(row) for row in [HEADER.split(","), *(["a.png", *cells] for cells in rows)]))
    assert boxes_of(data) == [[[1.5, 2, 30.25, 4], "cat"]]
    assert [(line, what) for _, line, what in found(data)] == [
        (4, "line 4: the box must be four numbers, not 1.000.5,2,3,4")
    ]


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
    options = ReadOptions(images=(root / "../images",)) if ".." in image else ReadOptions()
    data = CsvTable().read(root / "train.csv", options)
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
    assert CsvTable().recognise(root) == [root]
    assert CsvTable().recognise(root / "two.txt") == []
    (root / "one.csv").unlink()
    assert CsvTable().recognise(root) == []


@pytest.mark.parametrize(
    ("text", "options", "error", "message"),
    [
        ("file,xmin,ymax,class\n", {}, DataError, "no column for y1, x2; its header"),
        (f"{HEADER}\n", {"columns": {"x1": "links"}}, UsageError, "no column is called 'links'"),
        (f"{HEADER}\n", {}, DataError, r"CSV \(.*\): no image that could be used; first: .*: it has no row below"),
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
    assert CsvTable().recognise(root, ReadOptions(columns=columns)) == [root]


OPEN_IMAGES = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsGroupOf"
SHARES = f"{OPEN_IMAGES}\na,x,/m/1,1,0.25,0.5,0.1,0.4,1\nb,x,/m/2,1,0,1,0,1,0"


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ('image_id,width,height,bbox,source\na,40,30,"[10.0, 20.0, 4.0, 6.0]",usask_1\n', [[10, 20, 14, 26]]),
        ("image_id;bbox;class\na;10 20 4 6;cat\n", [[10, 20, 14, 26]]),
        ("cat,10,20,4,6,a.png,40,30\n", [[10, 20, 14, 26]]),
        ("label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height\n"
         "cat,10,20,4,6,a.png,40,30", [[10, 20, 14, 26]]),
        ("Image Name,Class ID,X-Center,Y-Center,Width,Height\na.png,3,10,20,4,6\n", [[8, 17, 12, 23]]),
        ("TRAIN,gs://bucket/x/a.png,cat,0.25,0.1,,,0.5,0.4,,\n", [[10, 3, 20, 12]]),
        ("gs://bucket/a.png,cat,0.25,0.1,0.5,0.1,0.5,0.4,0.25,0.4\n", [[10, 3, 20, 12]]),
        (SHARES, [[10, 3, 20, 12], [0, 0, 40, 30]]),
        (f"{OPEN_IMAGES}\na,x,/m/1,1,10,20,3,12,0", [[10, 3, 20, 12]]),
    ],
)  # fmt: skip
def test_read__tables_of_tools(read, text, boxes):
    data = read(text)
    assert [box for box, _ in boxes_of(data)] == boxes
    assert found(data) == []


def test_read__box_in_one_cell_of_corners(read):
    data = read('image,bbox,label\na.png,"(1, 2, 3, 4)",cat\nb.png,[],cat', box_format="xyxy")
    assert boxes_of(data) == [[[1, 2, 3, 4], "cat"]]
    assert [len(annotated.boxes) for annotated in data.images] == [1, 0]


@pytest.mark.parametrize("cell", ["[1, 2, 3]", "[1, 2, 3, 4, 5]", "[a, b, c, d]", "{'x': 1}"])
def test_read__box_in_one_cell_that_is_none(read, cell):
    ((kind, line, what),) = found(read(f'image,bbox,label\na.png,"{cell}",cat\nb.png,"[1,2,3,4]",cat'))
    assert (kind, line) == ("unreadable-annotations", 2)
    assert what.startswith("line 2: the box must be four numbers, not ")


def test_read__shares_of_a_table_that_may_have_pixels_are_not_changed(read):
    assert boxes_of(read(f"{HEADER}\na.png,0.1,0.2,0.3,0.5,cat"))[0][0] == pytest.approx([0.1, 0.2, 0.3, 0.5])


def test_read__names_and_groups_of_open_images(write_files):
    names = '/m/1,Cat\n/m/2,"Sea lion, grey"\n'
    tables = {"validation-annotations-bbox.csv": SHARES, "class-descriptions-boxable.csv": names}
    root = write_files({"a.png": None, "b.png": None, **tables})
    data = CsvTable().read(root)
    assert data.classes == ("Cat", "Sea lion, grey")
    assert [annotated.difficult.tolist() for annotated in data.split("val")] == [[True], [False]]


@pytest.mark.parametrize("place", ["", "labels", "labels/validation-annotations-bbox.csv"])
def test_read__names_of_open_images_in_another_folder(write_files, place):
    names = {"metadata/oidv7-class-descriptions.csv": "LabelName,DisplayName\n/m/1,Cat\n/m/2,Dog\n"}
    root = write_files({"labels/validation-annotations-bbox.csv": SHARES, "a.png": None, "b.png": None, **names})
    assert CsvTable().read(root / place, ReadOptions(images=(root,))).classes == ("Cat", "Dog")


def test_read__broken_names_of_open_images(write_files):
    names = {"class-descriptions.csv": "/m/1,Löwe".encode("cp1252")}
    root = write_files({"validation-annotations-bbox.csv": SHARES, "a.png": None, "b.png": None, **names})
    data = CsvTable().read(root)
    assert data.classes == ("/m/1", "/m/2")
    assert "not UTF-8 text" in found(data)[0][2]


@pytest.mark.parametrize(
    ("labels", "names", "first"),
    [
        (["0", "1", "dog"], ["cat", "dog", "dog"], 0),
        (["1.0", "1"], ["dog", "dog"], 0),
        (["1", "3"], ["cat", "owl"], 1),
        (["3"], [], 0),
        (["-1", "0", "nan", "cat"], ["cat", "cat"], 0),
    ],
)
def test_read__numbers_of_classes_that_are_given(read, labels, names, first):
    data = read("\n".join([HEADER, *(f"a.png,1,2,3,4,{label}" for label in labels)]), classes=("cat", "dog", "owl"))
    assert [name for _, name in boxes_of(data)] == names
    assert f"classes are numbers: they count the names that are given from {first}, so {first} is cat" in data.notes
    assert [kind for kind, *_ in found(data)] == ["unknown-class"] * (len(labels) - len(names))


def test_read__numbers_that_are_names(read):
    data = read(f"{HEADER}\na.png,1,2,3,4,1\na.png,1,2,3,4,7", classes=("7", "1"))
    assert [name for _, name in boxes_of(data)] == ["1", "7"]
    assert data.notes == ["images found in ."]


def test_read__sets_of_automl(read):
    rows = ["VALIDATE,gs://x/a.png,cat,0,0,,,1,1,,", "TRAIN,gs://x/b.png,dog,0,0,,,1,1,,", "UNASSIGNED,gs://x/a.png"]
    data = read("\n".join(rows))
    assert {name: [len(r.boxes) for r in records] for name, records in data.splits.items()} == {
        "train": [1],
        "val": [1],
        "all": [0],
    }
    assert data.classes == ("dog", "cat")
    assert found(data) == []


def test_read__table_with_a_single_class(read):
    data = read("image,x1,y1,x2,y2,source\na.png,1,2,3,4,me")
    assert data.classes == ("object",)
    assert "boxes.csv has no column for the class: every box is an 'object'" in data.notes
    data = read("image,x1,y1,x2,y2,kind\na.png,1,2,3,4,me", classes=("wheat",))
    assert boxes_of(data) == [[[1, 2, 3, 4], "wheat"]]
    with pytest.raises(
        DataError, match=r"no column for label; .*--columns label=NAME\), or the only class \(--class-n"
    ):
        read("image,x1,y1,x2,y2,kind\na.png,1,2,3,4,me")


def test_read__classes_in_the_order_of_training(write_files):
    tables = {
        f"{split}_labels.csv": f"{HEADER}\na.png,1,2,3,4,{name}" for split, name in (("test", "ace"), ("train", "ten"))
    }
    data = CsvTable().read(write_files({"images/a.png": None} | {f"data/{n}": text for n, text in tables.items()}))
    assert data.classes == ("ten", "ace")
    assert list(data.splits) == ["train", "test"]


def test_read__table_of_all_beside_those_of_the_splits(write_files):
    tables = dict.fromkeys(("labels.csv", "train_labels.csv", "test_labels.csv"), f"{HEADER}\na.png,1,2,3,4,cat")
    root = write_files({"a.png": None, **tables})
    assert CsvTable().recognise(root) == [root]
    data = CsvTable().read(root)
    assert list(data.splits) == ["train", "test"]
    (finding,) = [f for f in data.findings if f.kind == "unlisted-annotations"]
    assert finding.file == root / "labels.csv"


def test_read__table_that_cannot_be_read_beside_others(write_files):
    good, bad = f"{HEADER}\na.png,1,2,3,4,cat", f"{HEADER}\na.png,1,2,3,4,grün"
    root = write_files({"a.png": None, "train.csv": good, "val.csv": bad.encode("cp1252")})
    data = CsvTable().read(root)
    assert list(data.splits) == ["train"]
    assert "not UTF-8 text" in found(data)[0][2]


def test_find__tables_that_are_no_splits_of_each_other(write_files):
    root = write_files({"a.png": None, "one.csv": f"{HEADER}\n", "two.CSV": f"{HEADER}\n", "._two.csv": f"{HEADER}\n"})
    assert CsvTable().recognise(root) == [root / "one.csv", root / "two.CSV"]
    with pytest.raises(DataError, match=r"2 data sets in CSV format; name one: .*one\.csv, .*two\.CSV$"):
        read_data(root)


@pytest.mark.parametrize("place", ["t.csv", "x/t.csv", "x/y/t.csv", "x/y/z/t.csv"])
def test_find__table_in_a_folder_below(write_files, place):
    root = write_files({"images/a.png": None, place: f"{HEADER}\na.png,1,2,3,4,cat"})
    assert len(read_data(root).images) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "photo,l,t,r,b,kind\n",
            r"found\. .*x\.csv: no column for image, .*, label; its header: photo, l, t.*image=NAME\)$",
        ),
        (f"{HEADER}\n".encode("utf-16"), r"x\.csv: UTF-16 text; save it as UTF-8$"),
    ],
)
def test_near_miss__unknown_columns_and_encodings(write_files, text, message):
    root = write_files({"a.png": None, "x.csv": text, "metrics.csv": "a"})
    with pytest.raises(DataError, match=message):
        read_data(root)


def test_read__rows_without_an_image(read):
    with pytest.raises(DataError, match=r"no image that could be used; first: .*line 2: no image is named$"):
        read(f"{HEADER}\n,1,2,3,4,cat")
