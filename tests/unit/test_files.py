import os

import pytest

from fasterrcnn.files import cache_folder, unfinished_in, write_whole, written_by_many, written_whole


def test_written_whole__old_content_until_the_end(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with written_whole(path) as unfinished:
        unfinished.write_text("one")
        assert not path.exists()
        assert unfinished.suffix == ".txt"
    with pytest.raises(KeyboardInterrupt), written_whole(path) as unfinished:
        unfinished.write_text("two")
        raise KeyboardInterrupt
    assert path.read_text() == "one"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_written_whole__errors_name_the_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"), written_whole(tmp_path / "file" / "a.txt"):
        pass
    with pytest.raises(OSError, match=r"a\.txt") as caught, written_whole(tmp_path / "a.txt"):
        raise OSError(28, "No space left on device")
    assert caught.value.errno == 28


def test_write_whole__parts_and_what_was_there_before(tmp_path):
    path = tmp_path / "new" / "file"
    write_whole(path, b"first")
    write_whole(path, b"sec", memoryview(b"ond"))
    assert path.read_bytes() == b"second"
    assert os.listdir(path.parent) == ["file"]


def test_write_whole__names_the_file_that_cannot_be_written(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=r"folder") as caught:
        write_whole(tmp_path / "folder", b"x")
    assert caught.value.filename == str(tmp_path / "folder")
    assert os.listdir(tmp_path) == ["folder"]


def test_cache_folder__from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTERRCNN_CACHE", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("FASTERRCNN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "fasterrcnn"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "fasterrcnn"


def test_unfinished_in__what_a_killed_process_left(tmp_path):
    with written_by_many(tmp_path / "a.safetensors") as unfinished:
        unfinished.write_text("half")
        (tmp_path / ".hidden").write_text("somebody's own")
        (tmp_path / "b.12").write_text("as well")
        assert unfinished_in(tmp_path) == [unfinished]
    assert unfinished_in(tmp_path) == []
