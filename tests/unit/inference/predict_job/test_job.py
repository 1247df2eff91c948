import csv
import json

import numpy as np
import pytest

from fasterrcnn.inference.detector import load
from fasterrcnn.inference.predict_job.job import Job
from fasterrcnn.inference.predict_job.journal import JOURNAL, Journal
from fasterrcnn.inference.predict_job.tasks import Task, name_tasks
from fasterrcnn.inference.predict_job.writers import Saver
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


def run(detector, files, output, *kinds, skip_existing=False, **options):
    saver = Saver(output, kinds or ("images", "coco"))
    with Journal(output, saver.is_done if skip_existing else None) as journal:
        tasks = [task for task in name_tasks(files, output, journal.stems) if str(task.source) not in journal.stems]
        return list(Job(detector, {"score": 0.3}, saver).run(tasks, journal, **options))


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_run__saves_every_kind_of_file(detector, images, tmp_path):
    out = tmp_path / "out"
    events = run(detector, images, out, "images", "coco", "csv", "yolo", "crops")
    assert [event.error for event in events] == [None] * 3
    objects = sum(len(event.entry["detections"]) for event in events)
    assert objects > 3
    files = names(out)
    assert {f"{n}.jpg" for n in range(3)} | {f"labels/{n}.txt" for n in range(3)} <= set(files)
    assert sum(name.startswith("crops/") for name in files) == objects
    assert sum(len((out / "labels" / f"{n}.txt").read_text().splitlines()) for n in range(3)) == objects
    rows = json.loads((out / "results.json").read_text())
    assert len(rows) == objects
    assert {row["image_id"] for row in rows} <= {1, 2, 3}
    with (out / "detections.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["file"] for row in table] == [row["file_name"] for row in rows]
    assert [float(row["x2"]) - float(row["x1"]) for row in table] == pytest.approx([row["bbox"][2] for row in rows])
    assert [json.loads(line)["file"] for line in (out / JOURNAL).read_text().splitlines()] == [str(p) for p in images]


@pytest.mark.slow
def test_run__worker_processes_detect_the_same(detector, images, tmp_path):
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


def test_run__continues_after_an_interruption(detector, images, tmp_path):
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
    assert len(run(detector, images, out, skip_existing=True)) == 2
    assert (out / "0.jpg").stat().st_mtime_ns == written
    assert names(out) == names(whole)
    assert (out / "results.json").read_bytes() == (whole / "results.json").read_bytes()
    assert run(detector, images, out, skip_existing=True) == []
    (out / "1.jpg").unlink()
    assert [event.task.stem for event in run(detector, images, out, skip_existing=True)] == ["1"]
    assert len(run(detector, images, out, "images", "yolo", skip_existing=True)) == 3  # labels are new


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
    assert run(detector, [tmp_path / "clip.mp4"], tmp_path / "out", skip_existing=True) == []


def test_run__interrupted_video_keeps_its_frames(detector, tmp_path, photo):
    pytest.importorskip("av")
    write_video(tmp_path / "clip.mp4", photo)
    out = tmp_path / "out"
    saver = Saver(out, ("images", "coco"))
    with pytest.raises(KeyboardInterrupt), Journal(out, None) as journal:
        events = Job(detector, {"score": 0.3}, saver).run([Task(tmp_path / "clip.mp4", "clip")], journal)
        next(events), next(events)
        events.close()
        raise KeyboardInterrupt
    assert names(out) == ["clip-part.mp4", JOURNAL, "results.json"]
    assert len(list(detector.predict(out / "clip-part.mp4"))) == 2
    assert len((out / JOURNAL).read_text().splitlines()) == 3
    assert len(run(detector, [tmp_path / "clip.mp4"], out, skip_existing=True)) == 7
    assert len((out / JOURNAL).read_text().splitlines()) == 7


def test_run__broken_videos_and_images(detector, tmp_path, images):
    pytest.importorskip("av")
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    events = run(detector, [tmp_path / "clip.mp4", tmp_path / "absent.png", images[0]], tmp_path / "out")
    assert [event.error is None for event in events] == [False, True, False]
    assert names(tmp_path / "out") == ["0.jpg", JOURNAL, "results.json"]
