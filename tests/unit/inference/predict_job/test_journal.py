import json

import pytest

from fasterrcnn.inference.predict_job.journal import JOURNAL, Journal, finished_entries


def image(name, **more):
    return {"file": name, "stem": name[0], "image": None, "detections": [], **more}


def frame(name, number):
    return {"file": name, "stem": name[0], "frame": number, "detections": []}


def end(name, **more):
    return {"file": name, "stem": name[0], "frames": 2, **more}


def everything(last):
    return True


def lines(folder):
    return [json.loads(line) for line in (folder / JOURNAL).read_text().splitlines()]


def test_journal__appears_at_the_end(tmp_path):
    with Journal(tmp_path / "new", None) as journal:
        journal.add(image("a.jpg"))
        assert not (tmp_path / "new" / JOURNAL).exists()
        assert list(journal.entries()) == [image("a.jpg")]
    assert [p.name for p in (tmp_path / "new").iterdir()] == [JOURNAL]
    assert lines(tmp_path / "new") == [image("a.jpg")]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, GeneratorExit])
def test_journal__interrupted(tmp_path, stop):
    with pytest.raises(stop), Journal(tmp_path, None) as journal:
        journal.add(image("a.jpg"))
        raise stop
    assert lines(tmp_path) == [image("a.jpg")]


def test_journal__continues_after_any_cut(tmp_path):
    growing = tmp_path / f".{JOURNAL}.growing"
    with pytest.raises(ValueError, match="killed"), Journal(tmp_path, None) as journal:
        for entry in (image("a.jpg"), frame("v.mp4", 0), frame("v.mp4", 1), end("v.mp4"), image("b.jpg")):
            journal.add(entry)
        raise ValueError("killed")
    content = growing.read_bytes()
    for cut in range(len(content) + 1):
        growing.write_bytes(content[:cut])
        with Journal(tmp_path, everything) as journal:
            done = set(journal.stems)
            # complete entries count, the broken one does not
            assert ("a.jpg" in done) == (cut >= content.index(b"\n"))
            assert ("v.mp4" in done) == (cut >= content.index(b'"frames"') + len('"frames": 2}'))
            if "v.mp4" not in done:
                assert not any("frame" in entry for entry in journal.entries())
                for entry in (frame("v.mp4", 0), frame("v.mp4", 1), end("v.mp4")):
                    journal.add(entry)
        assert sum("frame" in entry for entry in lines(tmp_path)) == 2
        (tmp_path / JOURNAL).unlink()


def test_journal__keeps_only_what_is_asked_for(tmp_path):
    with Journal(tmp_path, None) as journal:
        journal.add(image("a.jpg"))
    with Journal(tmp_path, everything) as journal:
        assert journal.stems == {"a.jpg": "a"}
        journal.add(image("b.jpg"))
    assert [entry["file"] for entry in lines(tmp_path)] == ["a.jpg", "b.jpg"]
    with Journal(tmp_path, lambda last: last["file"] == "b.jpg") as journal:
        assert journal.stems == {"b.jpg": "b"}
    assert [entry["file"] for entry in lines(tmp_path)] == ["b.jpg"]
    with Journal(tmp_path, None) as journal:
        assert journal.stems == {}
    assert lines(tmp_path) == []


def test_finished_entries__hostile_lines(tmp_path):
    path = tmp_path / JOURNAL
    path.write_text('[]\n"a"\n{"file": 3, "stem": "a"}\n{"file": "a"}\n\n{"file": "a", "stem": "a"}\n{"fi')
    assert list(finished_entries(path)) == [{"file": "a", "stem": "a"}]


def test_journal__of_version_0_1(tmp_path):
    old = {"file": "a.jpg", "stem": "a", "picture": "out/a.jpg", "detections": [], "saved": ["coco", "pictures"]}
    (tmp_path / JOURNAL).write_text(json.dumps(old) + "\n")
    new = {"file": "a.jpg", "stem": "a", "image": "out/a.jpg", "detections": [], "saved": ["coco", "images"]}
    assert list(finished_entries(tmp_path / JOURNAL)) == [new]
    with Journal(tmp_path, lambda last: last == new) as journal:
        assert journal.stems == {"a.jpg": "a"}
    assert lines(tmp_path) == [new]
