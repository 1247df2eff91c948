import pytest

from fasterrcnn.data.formats.rows import box_to_xyxy
from fasterrcnn.errors import UsageError


@pytest.fixture
def image(write_files):
    return write_files({"a.png": None}) / "a.png"


def test_read__unknown_format(image):
    unchecked = getattr(box_to_xyxy, "__wrapped__", box_to_xyxy)
    with pytest.raises(UsageError, match="no box format 'xyhw'; there are: xyxy, xywh, cxcywh"):
        unchecked([1, 2, 3, 4], "xyhw")
