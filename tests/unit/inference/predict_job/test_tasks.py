from pathlib import Path

import pytest

from fasterrcnn.errors import DataError, UsageError
from fasterrcnn.inference.predict_job.tasks import list_sources, name_tasks, notes_on


def test_list_sources__each_once(tmp_path, photo):
    images = [tmp_path / f"{number}.png" for number in range(3)]
    for number, image in enumerate(images):
        photo((64, 96), number).save(image)
    assert list_sources([tmp_path, images[0], "0", "absent.jpg"]) == [*images, 0, Path("absent.jpg")]
    with pytest.raises(UsageError, match="name at least one"):
        list_sources([])
    with pytest.raises(DataError, match="no file matches"):
        list_sources([f"{tmp_path}/*.jpg"])


def test_name_tasks__every_name_once(tmp_path):
    sources = [Path("a/x.jpg"), Path("b/x.png"), Path("b/X.jpg"), Path("b/x-2.jpg"), 0]
    tasks = name_tasks(sources, tmp_path / "out", {})
    assert [task.stem for task in tasks] == ["x", "x-2", "X-3", "x-2-2", "camera-0"]
    again = name_tasks(sources[1:], tmp_path / "out", {"b/x.png": "x-2"})
    assert [task.stem for task in again] == ["x-2", "X", "x-2-2", "camera-0"]
    assert [task.is_video for task in tasks] == [False] * 4 + [True]


def test_name_tasks__mistakes(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(UsageError, match="holds images that are read; give another output folder"):
        name_tasks([tmp_path / "a.png"], tmp_path, {})
    with pytest.raises(UsageError, match=r"a\.png is a file, not a folder"):
        name_tasks([0], tmp_path / "a.png", {})


def test_notes_on__what_takes_no_part(tmp_path, photo):
    photo((8, 8)).save(tmp_path / "a.png")
    assert notes_on([tmp_path, "0"], [tmp_path / "a.png", 0]) == []
    (tmp_path / "drawing.svg").touch()
    photo((8, 8)).save(tmp_path / "b.tif", save_all=True, append_images=[photo((8, 8), 1)])
    assert notes_on([tmp_path], [tmp_path / "a.png", tmp_path / "b.tif"]) == [
        f"{tmp_path}: left out, because their names are not those of images: drawing.svg",
        f"only the first page or frame is read: {tmp_path / 'b.tif'} has 2",
    ]
