import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fasterrcnn.detections import Detections
from fasterrcnn.errors import DataError, ImageError, UsageError
from fasterrcnn.inference.loading import load
from fasterrcnn.inference.predict_job.job import Job
from fasterrcnn.inference.predict_job.journal import NAME, Journal
from fasterrcnn.inference.predict_job.tasks import Task, list_sources, name_tasks
from fasterrcnn.inference.predict_job.writers import Saver, _folder_name, write_coco, write_csv
from fasterrcnn.inference.video import atomic_video


@pytest.fixture(scope="module")
def detector(checkpoint):
    return load(checkpoint, device="cpu")


@pytest.fixture
def images(tmp_path, photo):
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for number, file in enumerate(files):
        photo((64, 96), number).save(file)
    return files


def run(detector, files, output, *kinds, go_on=False, **options):
    saver = Saver(output, kinds or ("images", "coco"))
    with Journal(output, saver.is_done if go_on else None) as journal:
        tasks = [t for t in name_tasks(files, output, journal.stems) if str(t.source) not in journal.stems]
        return list(Job(detector, {"score": 0.3}, saver).run(tasks, journal, **options))


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_list_sources__kinds_once_each(tmp_path, images):
    assert list_sources([tmp_path, images[0], "0", "absent.jpg"]) == [*images, 0, Path("absent.jpg")]
    with pytest.raises(UsageError, match="name at least one"):
        list_sources([])
    with pytest.raises(DataError, match="no file matches"):
        list_sources([f"{tmp_path}/*.jpg"])


def test_name_tasks__names_never_meet(tmp_path):
    sources = [Path("a/x.jpg"), Path("b/x.png"), Path("b/X.jpg"), Path("b/x-2.jpg"), 0]
    tasks = name_tasks(sources, tmp_path / "out", {})
    assert [task.stem for task in tasks] == ["x", "x-2", "X-3", "x-2-2", "camera-0"]
    known = name_tasks(sources[1:], tmp_path / "out", {"b/x.png": "x-2"})
    assert [task.stem for task in known] == ["x-2", "X", "x-2-2", "camera-0"]
    assert [task.is_video for task in tasks] == [False] * 4 + [True]


def test_run__everything_that_can_be_saved(detector, images, tmp_path):
    out = tmp_path / "out"
    events = run(detector, images, out, "images", "coco", "csv", "yolo", "crops")
    assert [event.error for event in events] == [None] * 3
    objects = sum(len(event.entry["detections"]) for event in events)
    assert objects > 3
    found = names(out)
    assert {f"{n}.jpg" for n in range(3)} | {f"labels/{n}.txt" for n in range(3)} <= set(found)
    assert sum(name.startswith("crops/") for name in found) == objects
    assert sum(len((out / "labels" / f"{n}.txt").read_text().splitlines()) for n in range(3)) == objects
    rows = json.loads((out / "results.json").read_text())
    assert len(rows) == objects
    assert {row["image_id"] for row in rows} <= {1, 2, 3}
    with (out / "detections.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["file"] for row in table] == [row["file_name"] for row in rows]
    assert [float(row["x2"]) - float(row["x1"]) for row in table] == pytest.approx([row["bbox"][2] for row in rows])
    assert [json.loads(line)["file"] for line in (out / NAME).read_text().splitlines()] == [str(p) for p in images]


def test_run__worker_processes_find_the_same(detector, images, tmp_path):
    images.append(tmp_path / "absent.png")
    alone = run(detector, images, tmp_path / "alone")
    shared = run(detector, images, tmp_path / "shared", workers=2, threads=1)
    for ours, theirs in zip(shared, alone, strict=True):
        assert ours.error == theirs.error
        if ours.error is None:
            assert [d["name"] for d in ours.entry["detections"]] == [d["name"] for d in theirs.entry["detections"]]
            boxes = [[d["box"] for d in event.entry["detections"]] for event in (ours, theirs)]
            np.testing.assert_allclose(*boxes, atol=1e-3)
    assert names(tmp_path / "alone") == names(tmp_path / "shared")


def test_run__goes_on_after_an_interruption(detector, images, tmp_path):
    out, whole = tmp_path / "out", tmp_path / "whole"
    run(detector, images, whole)
    saver = Saver(out, ("images", "coco"))
    with pytest.raises(KeyboardInterrupt), Journal(out, None) as journal:
        events = Job(detector, {"score": 0.3}, saver).run(name_tasks(images, out, {}), journal)
        next(events)
        events.close()
        raise KeyboardInterrupt
    assert {row["file_name"] for row in json.loads((out / "results.json").read_text())} == {str(images[0])}
    written = (out / "0.jpg").stat().st_mtime_ns
    assert len(run(detector, images, out, go_on=True)) == 2
    assert (out / "0.jpg").stat().st_mtime_ns == written
    assert names(out) == names(whole)
    assert (out / "results.json").read_bytes() == (whole / "results.json").read_bytes()
    assert run(detector, images, out, go_on=True) == []
    (out / "1.jpg").unlink()
    assert [event.task.stem for event in run(detector, images, out, go_on=True)] == ["1"]
    assert len(run(detector, images, out, "images", "yolo", go_on=True)) == 3  # labels are new


def write_video(path, photo, count=6):
    with atomic_video(path, 10.0, part=path) as video:
        for number in range(count):
            video.write(photo((65, 97), number), number / 10)


def test_run__video(detector, tmp_path, photo):
    pytest.importorskip("av")
    write_video(tmp_path / "clip.mp4", photo)
    events = run(detector, [tmp_path / "clip.mp4"], tmp_path / "out", "images", "coco", "yolo", "crops")
    assert [event.entry.get("frame") for event in events] == [0, 1, 2, 3, 4, 5, None]
    assert events[-1].entry["frames"] == 6
    assert len(list(detector.predict(tmp_path / "out" / "clip.mp4"))) == 6
    assert "labels/clip/000003.txt" in names(tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {row["frame"] for row in rows} <= set(range(6))
    assert all(row["image_id"] == row["frame"] + 1 for row in rows)
    assert run(detector, [tmp_path / "clip.mp4"], tmp_path / "out", go_on=True) == []


def test_run__video_that_is_stopped_keeps_what_is_done(detector, tmp_path, photo):
    pytest.importorskip("av")
    write_video(tmp_path / "clip.mp4", photo)
    out = tmp_path / "out"
    saver = Saver(out, ("images", "coco"))
    with pytest.raises(KeyboardInterrupt), Journal(out, None) as journal:
        events = Job(detector, {"score": 0.3}, saver).run([Task(tmp_path / "clip.mp4", "clip")], journal)
        next(events), next(events)
        events.close()
        raise KeyboardInterrupt
    assert names(out) == ["clip-part.mp4", NAME, "results.json"]
    assert len(list(detector.predict(out / "clip-part.mp4"))) == 2
    assert len((out / NAME).read_text().splitlines()) == 3
    assert len(run(detector, [tmp_path / "clip.mp4"], out, go_on=True)) == 7
    assert len((out / NAME).read_text().splitlines()) == 7


def test_run__broken_videos_and_images(detector, tmp_path, images):
    pytest.importorskip("av")
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    events = run(detector, [tmp_path / "clip.mp4", tmp_path / "absent.png", images[0]], tmp_path / "out")
    assert [event.error is None for event in events] == [False, True, False]
    assert names(tmp_path / "out") == ["0.jpg", NAME, "results.json"]


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
    found = Detections(*none, ("a",), (2, 66_000), image=long)
    with pytest.raises(ImageError, match=r"long\.jpg: cannot be written"):
        Saver(tmp_path, ("images",)).image(Task(Path("long.png"), "long"), found)
    assert list(tmp_path.iterdir()) == []


def test_tables__nothing_found(tmp_path):
    entries = [{"file": "a.jpg", "stem": "a", "detections": []}]
    write_coco(entries, tmp_path / "r.json", [1])
    write_csv([], tmp_path / "d.csv")
    assert json.loads((tmp_path / "r.json").read_text()) == []
    assert (tmp_path / "d.csv").read_text().splitlines() == ["file,frame,time,x1,y1,x2,y2,score,label,name"]
