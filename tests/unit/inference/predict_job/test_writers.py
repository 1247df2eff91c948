import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fasterrcnn.detections import Detections
from fasterrcnn.errors import ImageError
from fasterrcnn.inference.predict_job.tasks import Task
from fasterrcnn.inference.predict_job.writers import Saver, _folder_name, write_coco, write_csv


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("cat", "cat"),
        ("../../etc", "_._etc"),
        ("a/b\\c", "a_b_c"),
        ("", "_"),
        ("..", "_"),
        ("狗 1", "狗 1"),
        ("\0", "_"),
    ],
)
def test_crops__classes_as_folders(name, folder, tmp_path):
    assert Path(_folder_name(name)).name == _folder_name(name)
    assert ".." not in Path(_folder_name(name)).parts
    if name in ("cat", "", "狗 1"):
        assert _folder_name(name) == folder


def test_saver__image_that_cannot_be_written(tmp_path):
    long = Image.new("RGB", (66_000, 2))
    none = (np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    detections = Detections(*none, ("a",), (2, 66_000), image=long)
    with pytest.raises(ImageError, match=r"long\.jpg: cannot be written"):
        Saver(tmp_path, ("images",)).save_image(Task(Path("long.png"), "long"), detections)
    assert list(tmp_path.iterdir()) == []


def test_tables__no_detections(tmp_path):
    entries = [{"file": "a.jpg", "stem": "a", "detections": []}]
    write_coco(entries, tmp_path / "r.json", [1])
    write_csv([], tmp_path / "d.csv")
    assert json.loads((tmp_path / "r.json").read_text()) == []
    assert (tmp_path / "d.csv").read_text().splitlines() == ["file,frame,time,x1,y1,x2,y2,score,label,name"]
