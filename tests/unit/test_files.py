import pytest

from fasterrcnn.files import written_whole


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
