import pytest

from fasterrcnn.data.formats.base import ReadOptions
from fasterrcnn.data.formats.csv_columns import read_columns, read_rows
from fasterrcnn.errors import DataError, UsageError

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
    columns = read_columns(path, ReadOptions(columns=names))
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
        (CORNERS, {"colour": "x1"}, UsageError, "no column means 'colour'; there are: image, x1, y1, x2, y2, cx, cy"),
        (CORNERS, {"x1": "links"}, UsageError, r"boxes\.csv: no column is called 'links'; its header: image, x1"),
    ],
)
def test_read_columns__refused(table, header, columns, error, message):
    with pytest.raises(error, match=message):
        read_columns(table(header), ReadOptions(columns=columns))


def test_read_rows__lines_of_the_file(table):
    path = table(f'{CORNERS}\r\n\r\na.jpg, 1 ,2,3,4,"cat, small"\r\n,,,,,\r\nb.jpg,1,2,3,4,"two\nlines"\r\n')
    assert list(read_rows(path, read_columns(path))) == [
        (3, ["a.jpg", "1", "2", "3", "4", "cat, small"]),
        (6, ["b.jpg", "1", "2", "3", "4", "two\nlines"]),
    ]
