"""What the documents promise: Python blocks run, commands exist with their options."""

import importlib
import os
import pickle
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import reference_detectron2
import reference_mmdetection
import torch
from cyclopts import CycloptsError, MissingArgumentError
from PIL import Image
from tests.e2e.small import CHANNELS, PRESET, small_config

import fasterrcnn
from fasterrcnn.build import assemble
from fasterrcnn.cli.main import app
from fasterrcnn.demo.scenes import CLASSES, write_scenes
from fasterrcnn.weights import native

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>.*) -->\n+)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
SUBSTITUTES = {"resnet50-c5": "mobilenetv3-large-320-fpn"}  # a preset that is built in a second
SMALL = {"preset": PRESET, "backbone": {"neck_channels": CHANNELS}, "regions": {"widths": [CHANNELS]}}
TINY = {"model": SMALL, "weights": None, "epochs": 1, "short_side": 64, "logger": "none"}
CELLS = dict(zip(CLASSES, ("RBC", "WBC", "Platelets", "Neutrophil", "Eosinophil"), strict=False))


@dataclass(frozen=True)
class Block:
    """A fenced block; `reason` states why it is not run."""

    document: Path
    line: int
    kind: str
    text: str
    reason: str | None


def blocks_of(document: Path) -> list[Block]:
    text = document.read_text(encoding="utf-8")
    return [
        Block(document, text[: found.start("text")].count("\n") + 1, found["kind"], found["text"], found["reason"])
        for found in BLOCK.finditer(text)
    ]


def commands_of(document: Path) -> list[str]:
    """Lines of blocks that call the command line, without prompts and comments."""
    lines = [line for block in blocks_of(document) if not block.kind for line in block.text.splitlines()]
    calls = (re.match(r"(?:\$ |time |torchrun .*-m )?(fasterrcnn .*)", line) for line in lines)
    inline = re.findall(r"`(fasterrcnn [a-z]+(?: [a-z]+)?)", document.read_text(encoding="utf-8"))
    return [call[1] for call in calls if call] + inline


WITH_PYTHON = [path for path in DOCUMENTS if any(block.kind == "python" for block in blocks_of(path))]
WITH_COMMANDS = [path for path in DOCUMENTS if commands_of(path)]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_blocks__are_found():
    assert {"README.md", "docs/index.md", "docs/components.md", "docs/data.md"} <= set(map(name_of, WITH_PYTHON))
    assert sum(len(commands_of(path)) for path in WITH_COMMANDS) > 50


def test_blocks__every_fence_is_closed():
    for document in DOCUMENTS:
        fences = re.findall(r"^```", document.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert len(fences) == 2 * len(blocks_of(document)), document


@pytest.mark.parametrize("document", WITH_COMMANDS, ids=name_of)
def test_commands__exist_with_their_options(document):
    text = document.read_text(encoding="utf-8")
    assert [
        command for command in commands_of(document) if not is_accepted(command, named_only=f"`{command}" in text)
    ] == []


def is_accepted(command: str, *, named_only: bool) -> bool:
    """Whether the command line takes it; one that a sentence only names needs no arguments."""
    try:
        app.parse_args(shlex.split(command, comments=True)[1:], exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return named_only and isinstance(error, MissingArgumentError)
    return True


def test_commands__mistakes_are_seen():
    assert is_accepted("fasterrcnn train DATA --set epochs=3 model.regions.box_loss=giou", named_only=False)
    assert is_accepted("fasterrcnn explain", named_only=True)
    for wrong in ("fasterrcnn explain", "fasterrcnn data fix x", "fasterrcnn predict w p -o o --nothing"):
        assert not is_accepted(wrong, named_only=False), wrong


def test_benchmarks__exist_and_take_their_arguments(monkeypatch, capsys):
    """Each `python benchmarks/...` of a document; a program that a sentence only names has to be there."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    texts = [path.read_text(encoding="utf-8") for path in (*DOCUMENTS, ROOT / "README.es.md", ROOT / "CHANGELOG.md")]
    assert [
        name for text in texts for name in re.findall(r"benchmarks/\w+\.py", text) if not (ROOT / name).exists()
    ] == []
    calls = {call for text in texts for call in re.findall(r"python benchmarks/(\w+)\.py([^`\n]*)", text)}
    assert len(calls) > 10
    for name, words in sorted(calls):
        parser = importlib.import_module(name).make_parser()
        try:
            parser.parse_args(shlex.split(words))
        except SystemExit:
            pytest.fail(f"{name}.py{words}: {capsys.readouterr().err}")


def write_cells(folder: Path) -> None:
    """A data set of drawn scenes whose signs are called cells, with photo.jpg among its test images."""
    write_scenes(folder, train=4, val=2, test=2, seed=0, size_hw=(96, 128))
    for file in (folder / "Annotations").iterdir():
        text = file.read_text(encoding="utf-8")
        for sign, cell in CELLS.items():
            text = text.replace(f"<name>{sign}</name>", f"<name>{cell}</name>")
        file.write_text(text, encoding="utf-8")
    listing = folder / "ImageSets" / "Main" / "test.txt"
    name = listing.read_text(encoding="utf-8").split()[0]
    for place, suffix in (("Annotations", "xml"), ("JPEGImages", "jpg")):
        (folder / place / f"{name}.{suffix}").rename(folder / place / f"photo.{suffix}")
    listing.write_text(listing.read_text(encoding="utf-8").replace(name, "photo"), encoding="utf-8")


def fit_tiny(fit: Callable[..., Any], data: Any, **options: Any) -> Any:
    """The call of a document, for seconds instead of minutes."""
    return fit(data, **{**options, **TINY})


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that documents speak of."""
    folder = tmp_path_factory.mktemp("documents")
    write_cells(folder / "data" / "cells")
    config = small_config(sorted(CELLS.values()))
    (folder / "runs" / "cells").mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        native.save_checkpoint(folder / "runs" / "cells" / "best.safetensors", assemble(config).eval(), config)
    shutil.copy(folder / "data" / "cells" / "JPEGImages" / "photo.jpg", folder)
    (folder / "photos").mkdir()
    for name in ("a", "b"):
        Image.open(folder / "photo.jpg").rotate(0 if name == "a" else 180).save(folder / "photos" / f"{name}.jpg")
    return folder


def write_others(folder: Path) -> None:
    """Files of Detectron2 and MMDetection with random weights."""
    tensors = reference_detectron2.random_tensors(reference_detectron2.Config("FPN"))
    arrays = {key: value.float().numpy() for key, value in tensors.items()}
    (folder / "model_final.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "test"}))
    config = reference_mmdetection.Config("fpn")
    state = {key: value.float() for key, value in reference_mmdetection.random_tensors(config).items()}
    meta = {"dataset_meta": {"classes": tuple("abcdef")}}
    torch.save({"meta": meta, "state_dict": state}, folder / "epoch_12.pth")


QUICK = ("README.md", "docs/components.md", "docs/data.md", "docs/performance.md")
RUN = [path if name_of(path) in QUICK else pytest.param(path, marks=pytest.mark.slow) for path in WITH_PYTHON]


@pytest.mark.parametrize("document", RUN, ids=name_of)
def test_python__runs(document, workshop, tmp_path, monkeypatch, capsys):
    blocks = [block for block in blocks_of(document) if block.kind == "python"]
    text = "".join(block.text for block in blocks)
    shutil.copytree(workshop, tmp_path, dirs_exist_ok=True)
    if 'output="runs/cells"' in text:
        shutil.rmtree(tmp_path / "runs" / "cells")
    if "model_final.pkl" in text:
        write_others(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fasterrcnn, "fit", partial(fit_tiny, fasterrcnn.fit))
    names: dict[str, Any] = {"fasterrcnn": fasterrcnn}
    for block in blocks:
        if block.reason is not None:
            continue
        code = block.text
        for ours, small in SUBSTITUTES.items():
            code = code.replace(ours, small)
        place = f"{name_of(document)} (block at line {block.line})"
        exec(compile("\n" * (block.line - 1) + code, place, "exec"), names)
    assert os.listdir(tmp_path)


def test_python__what_is_not_run_states_why():
    """The list of all blocks that are not run; it is to stay short."""
    reasons = {
        (name_of(b.document), b.line): b.reason for path in DOCUMENTS for b in blocks_of(path) if b.reason is not None
    }
    assert all(reasons.values())
    assert len(reasons) <= 3
