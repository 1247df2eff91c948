"""Make both notebooks from `source.py`: the same code, the text in two languages.

    python notebooks/build.py            # runs the code, which takes minutes, and writes both notebooks with their outputs
    python notebooks/build.py --text     # keeps the outputs: the code must be the same as before

The code is executed once, in the English notebook; the Spanish one has equal code and so gets the same outputs. Needs the
extra "notebooks".
"""

import argparse
import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
SOURCE = FOLDER / "source.py"
LANGUAGES = {"en": "faster_rcnn.ipynb", "es": "faster_rcnn.es.ipynb"}
CELL_SECONDS = 1800


def parse(text: str, language: str) -> list[nbformat.NotebookNode]:
    """The cells of one language.

    Args:
        text: cells begin with "# %%" (code), or with "# %% [en]" or "# %% [es]" (commented Markdown of that language).
        language: "en" or "es".
    """
    cells = []
    for marker, body in re.findall(r"^# %%(.*)\n((?:(?!# %%).*\n?)*)", text, flags=re.MULTILINE):
        spoken = marker.strip(" []")
        if spoken in ("", language):
            is_code = not spoken
            content = body.strip() if is_code else re.sub(r"^# ?", "", body.strip(), flags=re.MULTILINE)
            make = nbformat.v4.new_code_cell if is_code else nbformat.v4.new_markdown_cell
            cells.append(make(content, id=f"cell-{len(cells):02}"))
    return cells


def make(language: str) -> nbformat.NotebookNode:
    """The notebook of one language, without outputs."""
    return nbformat.v4.new_notebook(
        cells=parse(SOURCE.read_text(encoding="utf-8"), language),
        metadata={
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
    )


def execute(notebook: nbformat.NotebookNode) -> None:
    """Run all cells from top to bottom, in place; raises `nbclient.exceptions.CellExecutionError` where one fails."""
    NotebookClient(notebook, timeout=CELL_SECONDS, record_timing=False).execute()


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The cells that are run."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def copy_outputs(done: nbformat.NotebookNode, target: nbformat.NotebookNode) -> None:
    """Give each code cell the outputs of the same cell of another notebook.

    Raises:
        ValueError: the code differs.
    """
    theirs, mine = code_cells(done), code_cells(target)
    if [cell.source for cell in theirs] != [cell.source for cell in mine]:
        raise ValueError("the code has changed since it was run; run it again, without --text")
    for old, new in zip(theirs, mine, strict=True):
        new.outputs, new.execution_count = old.outputs, old.execution_count


def main() -> None:
    """Write both notebooks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", action="store_true", help="only the text has changed: keep the outputs")
    notebooks = {language: make(language) for language in LANGUAGES}
    if parser.parse_args().text:
        copy_outputs(nbformat.read(FOLDER / LANGUAGES["en"], as_version=4), notebooks["en"])
    else:
        execute(notebooks["en"])
    copy_outputs(notebooks["en"], notebooks["es"])
    for language, notebook in notebooks.items():
        nbformat.validate(notebook)
        nbformat.write(notebook, FOLDER / LANGUAGES[language])


if __name__ == "__main__":
    main()
