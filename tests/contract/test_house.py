"""The rules of the house, counted in the source: names, import circles, sizes of files and functions, words."""

import ast
import io
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import fasterrcnn
from fasterrcnn.cli.main import app

ROOT = Path(__file__).parents[2]
PACKAGE = Path(fasterrcnn.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
PLACES = {path: path.relative_to(PACKAGE).as_posix() for path in SOURCES}
MAX_FILES, MAX_LINES = 200, 33_750  # of which 7,000 lines are 18 data formats, each in a file of its own
MAX_FILE_LINES, MIN_FILE_LINES, MAX_FUNCTION_LINES = 400, 30, 60
GENERIC_NAMES = {"found", "one", "known", "usual", "most", "thing", "things"}
ALLOWED_LINES = {
    'EARLIER_BODY = "trunk"': "files of version 0.1 are still read",
    '_OLD_WORDS = {"picture": "image", "pictures": "images"}': "prediction journals of version 0.1 are still read",
    'rng = Random(f"seed {self.seed}, epoch {view}, picture {image.image_id}")': (
        "the random changes of an image stay those of runs begun with version 0.1"
    ),
    'old = {"file": "a.jpg", "stem": "a", "picture": "out/a.jpg", "detections": [], "saved": ["coco", "pictures"]}': (
        "an entry of such a journal, for the test that reads it"
    ),
    '(folder / "data.txt").write_text((folder / "data.txt").read_text().replace("images", "pictures"))': (
        "a run folder of version 0.1, for the test that resumes it"
    ),
    **dict.fromkeys(
        (
            "- `fasterrcnn predict --save images` (was `pictures`); records of earlier jobs are still continued.",
            "- `fasterrcnn explain --ground-truth` and `fasterrcnn.explain(..., ground_truth=...)` (was `truth`).",
            "- `load`, `fit`, `Detector` and others take `log=`, a function that gets messages (was `say=`, `tell=`).",
            "- The column `kind` of `detections.csv` and `objects.csv` of an evaluation (was `verdict`).",
            "- `Detections.load_image()` (was `picture()`).",
        ),
        "the changelog names what was renamed",
    ),
}
"""Lines with a word that is not used, and why each has to stay; at most 10."""


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def public_names(tree: ast.Module) -> Iterator[str]:
    """Names that a module defines at its top: functions, classes and values."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def test_names__no_public_name_in_two_modules():
    places = defaultdict(list)
    for path, tree in TREES.items():
        for name in public_names(tree):
            is_command = PLACES[path].startswith("cli/") and name.islower()
            if not name.startswith("_") and path != PACKAGE / "__init__.py" and not is_command:
                places[name].append(PLACES[path])
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_names__variables_are_named_for_what_they_hold():
    generic = defaultdict(set)
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            is_bound = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            name = node.id if is_bound else node.arg if isinstance(node, ast.arg) else ""
            if name in GENERIC_NAMES:
                generic[PLACES[path]].add(name)
    assert dict(generic) == {}


def imports_of(tree: ast.Module, modules: set[str]) -> set[str]:
    """Modules of the library that a file imports, also inside functions and for type checking only."""
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            candidates = [f"{node.module}.{alias.name}" for alias in node.names]
            imported |= {name if name in modules else node.module for name in candidates}
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
    return imported & modules


def test_imports__no_circle_between_files():
    names = {path: ".".join(("fasterrcnn", *path.relative_to(PACKAGE).with_suffix("").parts)) for path in SOURCES}
    modules = {path: name.removesuffix(".__init__") for path, name in names.items()}
    # The package's entrance names every public module lazily; nothing may depend on it.
    graph = {
        modules[path]: imports_of(tree, set(modules.values())) - {modules[path], "fasterrcnn"}
        for path, tree in TREES.items()
        if path != PACKAGE / "__init__.py"
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import circle: {' -> '.join(error.args[1])}")


def test_sizes__of_the_whole():
    assert len(SOURCES) <= MAX_FILES
    assert sum(len(lines_of(path)) for path in SOURCES) <= MAX_LINES


def holds_behaviour(tree: ast.Module) -> bool:
    """Whether a file is more than values, tables and protocols: it has a function with a body of some length."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return any(len(function.body) > 1 for function in functions)


@pytest.mark.parametrize("path", SOURCES, ids=PLACES.get)
def test_sizes__files_and_functions(path):
    count = len(lines_of(path))
    assert count <= MAX_FILE_LINES
    assert count >= MIN_FILE_LINES or path.stem in ("__init__", "__main__") or not holds_behaviour(TREES[path])
    functions = [node for node in ast.walk(TREES[path]) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {function.name: (function.end_lineno or 0) - function.lineno + 1 for function in functions}
    assert {name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES} == {}


def banned_words() -> set[str]:
    """The first column of the glossary's last table."""
    table = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").rpartition("| not | but |")[2]
    cells = re.findall(r"^\| ([^|]+) \|", table, flags=re.MULTILINE)
    return {word for cell in cells for word in re.sub(r"\(.*?\)", "", cell).replace(" ", "").split(",")} - {"---"}


def banned_in(line: str, banned: set[str]) -> list[str]:
    """Words of a line, also as parts of snake_case and CamelCase names, that are not used."""
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", line)]
    pairs = zip(["", *words], words, strict=False)
    return [word for before, word in pairs if word in banned and not (word.startswith("truth") and before == "ground")]


def test_words__the_check_itself():
    banned = banned_words()
    assert {"picture", "truth", "look", "told"} <= banned
    assert banned_in("ground truth, ground_truth_boxes, GroundTruth, storefront", banned) == []
    assert banned_in("a picture of pictureBoxes and TRUTH_TABLE", banned) == ["picture", "picture", "truth"]


def texts() -> list[Path]:
    """Everything in English that people read, but the table of the words itself."""
    folders = [(PACKAGE, ("py", "html", "js", "css", "cpp")), (ROOT / "tests", ("py",)), (ROOT / "docs", ("md",))]
    folders += [(ROOT / "benchmarks", ("py",))]
    files = [path for folder, kinds in folders for kind in kinds for path in folder.rglob(f"*.{kind}")]
    files += [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "notebooks" / "source.py"]
    return sorted(set(files) - {ROOT / "docs" / "glossary.md", Path(__file__)})


@pytest.mark.parametrize("path", texts(), ids=lambda path: str(path.relative_to(ROOT)))
def test_words__of_the_field(path):
    banned = banned_words()
    lines = [line.strip() for line in lines_of(path) if line.strip() not in ALLOWED_LINES]
    assert [line for line in lines if banned_in(line, banned)] == []


def test_words__few_exceptions_and_all_needed():
    assert len(ALLOWED_LINES) <= 10
    stripped = {line.strip() for path in texts() for line in lines_of(path)}
    assert set(ALLOWED_LINES) <= stripped


def commands(prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command of the command line, groups included."""
    yield prefix
    here = app
    for name in prefix:
        here = here[name]
    for name in here:
        if not name.startswith("-"):
            yield from commands((*prefix, name))


@pytest.mark.parametrize("command", list(commands()), ids=" ".join)
def test_words__of_the_help(command):
    printed = io.StringIO()
    with redirect_stdout(printed), suppress(SystemExit):
        app([*command, "--help"])
    assert "Usage" in printed.getvalue()
    assert [line for line in printed.getvalue().splitlines() if banned_in(line, banned_words())] == []


def test_shapes__are_checked_wherever_they_are_annotated(pytestconfig):
    checked = tuple(
        name.strip().removeprefix("fasterrcnn.").replace(".", "/")
        for option in pytestconfig.getini("addopts")
        if option.startswith("--jaxtyping-packages=")
        for name in option.partition("=")[2].split(",")[:-1]
    )
    assert checked
    unchecked = [
        place
        for path, place in PLACES.items()
        if "from jaxtyping import" in path.read_text(encoding="utf-8")
        and not any(place == f"{name}.py" or place.startswith(f"{name}/") for name in checked)
    ]
    assert unchecked == []
