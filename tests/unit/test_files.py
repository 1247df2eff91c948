import os

import pytest

from fasterrcnn.errors import UsageError
from fasterrcnn.files import (
    atomic_folder,
    atomic_write,
    cache_folder,
    search_folders,
    subfolders,
    temporary_files,
    write_bytes,
    write_text,
)


def test_atomic_write__old_content_until_the_end(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("one")
        assert not path.exists()
        assert temporary.suffix == ".txt"
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as temporary:
        temporary.write_text("two")
        raise KeyboardInterrupt
    assert path.read_text() == "one"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_atomic_write__errors_name_the_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"), atomic_write(tmp_path / "file" / "a.txt"):
        pass
    with pytest.raises(OSError, match=r"a\.txt") as caught, atomic_write(tmp_path / "a.txt"):
        raise OSError(28, "No space left on device")
    assert caught.value.errno == 28


def test_write_bytes__parts_and_what_was_there_before(tmp_path):
    path = tmp_path / "new" / "file"
    write_bytes(path, b"first")
    write_bytes(path, b"sec", memoryview(b"ond"))
    assert path.read_bytes() == b"second"
    assert os.listdir(path.parent) == ["file"]


def test_write_bytes__names_the_file_that_cannot_be_written(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=r"folder") as caught:
        write_bytes(tmp_path / "folder", b"x")
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


def test_temporary_files__what_a_killed_process_left(tmp_path):
    with atomic_write(tmp_path / "a.safetensors", shared=True) as temporary:
        temporary.write_text("half")
        (tmp_path / ".hidden").write_text("somebody's own")
        (tmp_path / "b.12").write_text("as well")
        assert temporary_files(tmp_path) == [temporary]
    assert temporary_files(tmp_path) == []


def test_atomic_write__nothing_written_leaves_the_file(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    with atomic_write(tmp_path / "a.txt"):
        pass
    assert (tmp_path / "a.txt").read_text() == "one"


def test_write_text__names_that_are_not_utf8(tmp_path):
    write_text(tmp_path / "a.txt", "caf\udce9 ü\n")
    assert (tmp_path / "a.txt").read_bytes() == "caf\\udce9 ü\n".encode()


def test_atomic_folder__complete_or_not_at_all(tmp_path):
    folder = tmp_path / "new" / "folder"
    with pytest.raises(KeyboardInterrupt), atomic_folder(folder) as temporary:
        (temporary / "a").touch()
        raise KeyboardInterrupt
    assert os.listdir(folder.parent) == []
    folder.mkdir()  # an empty one is taken
    with atomic_folder(folder) as temporary:
        (temporary / "a").touch()
        assert os.listdir(folder) == []
    assert (os.listdir(folder), os.listdir(folder.parent)) == (["a"], ["folder"])
    with pytest.raises(UsageError, match=r"folder exists and is not empty"), atomic_folder(folder):
        pass


def test_subfolders__no_hidden_ones_and_no_files(tmp_path):
    for name in ("b", "a", ".git", "__MACOSX"):
        (tmp_path / name).mkdir()
    (tmp_path / "c").touch()
    assert subfolders(tmp_path) == [tmp_path / "a", tmp_path / "b"]
    assert subfolders(tmp_path / "missing") == []


def test_search_folders__the_first_level_that_has_some(tmp_path):
    for name in ("a/b/c", "d/e"):
        (tmp_path / name).mkdir(parents=True)

    def find(*names):
        return [place.relative_to(tmp_path).as_posix() for place in search_folders(tmp_path, named(names))]

    def named(names):
        return lambda folder: [folder] if folder.name in names else []

    assert find(tmp_path.name, "a") == ["."]
    assert find("e", "b", "a") == ["a", "d/e"]
    assert find("c") == []
