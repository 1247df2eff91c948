"""Options of reading: with every format, each one has an effect or is refused; none is ignored in silence."""

import re
from dataclasses import fields

import numpy as np
import pytest
from PIL import Image

from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage
from fasterrcnn.data.formats import FORMATS, read_data, write_data
from fasterrcnn.data.formats.base import ReadOptions
from fasterrcnn.errors import FasterRCNNError, UsageError

OPTIONS = {
    "images": "elsewhere",
    "classes": ["owl", "cat"],
    "columns": {"label": "kind"},
    "box_format": "xywh",
    "split": "val",
}
"""A value for each option of `read_data` that a format may refuse."""

NAMES = [field.name for field in fields(ReadOptions)]
WRITABLE = [name for name, form in FORMATS.items() if form.can_write]


@pytest.fixture
def pets(tmp_path):
    """A data set of one image of 40 x 30 with two cats, in memory."""
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    boxes = np.array([[1, 2, 11, 22], [20, 5, 36, 25]], np.float32)
    image = AnnotatedImage(tmp_path / "a.png", 1, (30, 40), boxes, np.zeros(2, np.int64), np.zeros(2, np.bool_))
    return AnnotatedData(tmp_path, "test", ("cat",), {"train": [image]})


def test_options__every_one_has_a_value_here():
    assert set(NAMES) <= OPTIONS.keys()
    assert all(form.options <= set(NAMES) for form in FORMATS.values())


@pytest.mark.parametrize("option", NAMES)
@pytest.mark.parametrize("name", FORMATS)
def test_options__refused_where_the_format_cannot_use_them(tmp_path, monkeypatch, name, option):
    """Whatever the files are: the refusal comes before they are read."""
    form = FORMATS[name]
    if option in form.options:
        pytest.skip("it is used")
    monkeypatch.setattr(type(form), "recognise", lambda self, root, options: [root])
    monkeypatch.setattr(type(form), "read", lambda self, place, options: pytest.fail("ignored"))
    (tmp_path / "elsewhere").mkdir()
    users = [other.title for other in FORMATS.values() if option in other.options]
    with pytest.raises(UsageError, match=rf"{option} \(--.*\) does not apply to {re.escape(form.title)}") as caught:
        read_data(tmp_path, format=name, **{option: OPTIONS[option]})
    assert all(title in str(caught.value) for title in users)


@pytest.mark.parametrize("name", WRITABLE)
def test_images__another_folder_is_used_by_every_format(tmp_path, pets, name):
    root = tmp_path / name
    write_data(pets, root, name)
    (tmp_path / "elsewhere").mkdir()
    (written,) = root.rglob("*.png")
    written.rename(tmp_path / "elsewhere" / written.name)
    (image,) = read_data(root, images=tmp_path / "elsewhere").images
    assert image.path.parent.name == "elsewhere"
    with pytest.raises(FasterRCNNError):
        read_data(root, images=tmp_path / "absent")


@pytest.mark.parametrize("name", WRITABLE)
def test_classes__give_the_labels_or_are_refused(tmp_path, pets, name):
    write_data(pets, tmp_path / name, name)
    if "classes" not in FORMATS[name].options:
        with pytest.raises(UsageError, match="does not apply"):
            read_data(tmp_path / name, classes=["owl", "cat"])
        return
    assert read_data(tmp_path / name, classes=["owl", "cat"]).classes == ("owl", "cat")


@pytest.mark.parametrize("option", NAMES)
@pytest.mark.parametrize("kind", ["list", "read already"])
def test_options__of_data_in_memory(tmp_path, pets, kind, option):
    rows = [{"image": tmp_path / "a.png", "boxes": [[1, 2, 3, 4]], "labels": ["cat"]}]
    (tmp_path / "elsewhere").mkdir()
    if kind == "list" and option in ("classes", "box_format"):
        data = read_data(rows, **{option: OPTIONS[option]})
        assert data.classes == ("owl", "cat") or data.images[0].boxes.tolist() == [[1, 2, 4, 6]]
        return
    with pytest.raises(UsageError, match=rf"{option} \(--.*\) does not apply to (a list|data that was read)"):
        read_data(rows if kind == "list" else pets, **{option: OPTIONS[option]})
