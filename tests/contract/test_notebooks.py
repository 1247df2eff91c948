"""The notebooks are what `notebooks/build.py` makes of `notebooks/source.py`; executed, their own assertions hold."""

import importlib.util
import os
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason='needs the extra "notebooks"')

FOLDER = Path(__file__).parents[2] / "notebooks"
LANGUAGES = ("en", "es")
OUTLINE = (
    "1. Anchor Box Generator",
    "2. RPN",
    "3. Proposals Generator",
    "4. RoI Pooling",
    "5. Faster R-CNN",
    "5.1",
    "5.2",
    "5.3",
)
MAX_BYTES = 3_000_000


def _build():
    specification = importlib.util.spec_from_file_location("build_notebooks", FOLDER / "build.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


build = _build()


@pytest.fixture(scope="module")
def notebooks():
    return {language: nbformat.read(FOLDER / build.LANGUAGES[language], as_version=4) for language in LANGUAGES}


def _text(notebook) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("language", LANGUAGES)
def test_notebooks__are_made_of_the_source(notebooks, language):
    nbformat.validate(notebooks[language])
    made = build.make(language)
    assert [(cell.cell_type, cell.source) for cell in notebooks[language].cells] == [
        (cell.cell_type, cell.source) for cell in made.cells
    ]


def test_notebooks__have_the_same_code_in_both_languages(notebooks):
    code = [[cell.source for cell in build.code_cells(notebooks[language])] for language in LANGUAGES]
    assert code[0] == code[1]
    assert len(code[0]) > 15


def test_notebooks__have_a_text_in_each_language_for_every_text(notebooks):
    kinds = [[cell.cell_type for cell in notebooks[language].cells] for language in LANGUAGES]
    assert kinds[0] == kinds[1]
    numbers = [re.findall(r"<details>|</details>|^#+ (?:\d[.\d]*)?|^\|", _text(notebooks[x]), re.M) for x in LANGUAGES]
    assert numbers[0] == numbers[1]


@pytest.mark.parametrize("language", LANGUAGES)
def test_notebooks__follow_the_outline(notebooks, language):
    headings = re.findall(r"^#+ (\d.*)$", _text(notebooks[language]), flags=re.MULTILINE)
    places = [next(i for i, heading in enumerate(headings) if heading.startswith(start)) for start in OUTLINE]
    assert places == list(range(len(OUTLINE)))


@pytest.mark.parametrize("language", LANGUAGES)
def test_notebooks__every_stage_has_a_image_a_shape_a_number_and_a_question(notebooks, language):
    stages: dict[str, dict[str, bool]] = {}
    for cell in notebooks[language].cells:
        if cell.cell_type == "markdown":
            found = re.search(r"^##+ (\d(?:\.\d)?)", cell.source, flags=re.MULTILINE)
            name = found[1] if found else next(reversed(stages), "")
            stage = stages.setdefault(name, {})
            stage["question"] = stage.get("question", False) or "<details>" in cell.source
            continue
        stage = stages.setdefault(next(reversed(stages), ""), {})
        for what, sign in (("image", "show("), ("shape", ".shape"), ("number", "assert ")):
            stage[what] = stage.get(what, False) or sign in cell.source
    for number in ("1", "2", "3", "4", "5.1", "5.2", "5.3"):
        name = "5" if number == "5.1" and "5.1" not in stages else number
        assert all(stages[name].values()), (name, stages[name])
        assert len(stages[name]) == 4


@pytest.mark.parametrize("language", LANGUAGES)
def test_notebooks__were_run_to_the_end(notebooks, language):
    cells = build.code_cells(notebooks[language])
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        assert not any(output.output_type == "error" for output in cell.outputs)
        if re.search(r"^(?:print|show)\(", cell.source, flags=re.MULTILINE):
            assert cell.outputs, cell.source
        shown = sum("image/jpeg" in output.get("data", {}) for output in cell.outputs)
        assert shown == len(re.findall(r"^ *show\(", cell.source, flags=re.MULTILINE))


@pytest.mark.parametrize("language", LANGUAGES)
def test_notebooks__outputs_are_small_and_name_no_machine(notebooks, language):
    assert (FOLDER / build.LANGUAGES[language]).stat().st_size < MAX_BYTES
    for cell in build.code_cells(notebooks[language]):
        for output in cell.outputs:
            assert output.get("name") != "stderr", output
            printed = output.get("text", "") + output.get("data", {}).get("text/plain", "")
            assert not re.search(r"/(?:home|tmp|work|usr|root|opt|Users|content)/|[A-Z]:\\|site-packages", printed), (
                printed
            )
            assert os.environ.get("USER", "root") not in printed.split()


def test_build__other_code_does_not_keep_old_outputs(notebooks):
    changed = build.make("es")
    build.code_cells(changed)[0].source += "\nprint(1)"
    with pytest.raises(ValueError, match="has changed"):
        build.copy_outputs(notebooks["en"], changed)


def test_build__text_of_the_other_language_is_left_out():
    cells = build.parse("# %% [en]\n# Yes\n#\n# more\n\n# %% [es]\n# Sí\n\n# %%\nx = 1\n\n\n# %%\ny = 2\n", "es")
    assert [(cell.cell_type, cell.source) for cell in cells] == [
        ("markdown", "Sí"),
        ("code", "x = 1"),
        ("code", "y = 2"),
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_notebooks__run_from_top_to_bottom():
    notebook = build.make("en")  # the code of the other language is the same
    build.execute(notebook)  # a failing assertion of a cell raises
    assert all(cell.execution_count for cell in build.code_cells(notebook))
