"""The command line in this process."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fasterrcnn.cli.main import main
from fasterrcnn.demo.scenes import write_scenes


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def is_one_line(self) -> bool:
        """Whether the whole output is one line that begins with "error:"."""
        return self.out == "" and self.err.startswith("error: ") and self.err.count("\n") == 1


@pytest.fixture
def run(capsys, tmp_path, monkeypatch) -> Callable[..., Outcome]:
    """Runs a command in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        output = capsys.readouterr()
        return Outcome(caught.value.code, output.out, output.err.replace("\n    ", " "))  # wrapped lines

    return run


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Pascal VOC set of three training scenes, one to validate and two to test."""
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, train=3, val=1, test=2, seed=0, size_hw=(96, 96))
    return folder
