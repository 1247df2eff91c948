import ast
from pathlib import Path

import pytest

import fasterrcnn

SOURCES = sorted(Path(fasterrcnn.__file__).parent.rglob("*.py"))
MAX_FILE_LINES, MAX_FUNCTION_LINES = 300, 60


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.stem)
def test_budgets__files_and_functions_can_be_read_in_one_sitting(file):
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_FILE_LINES
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    too_long = {f.name: f.end_lineno - f.lineno + 1 for f in functions if f.end_lineno - f.lineno >= MAX_FUNCTION_LINES}
    assert not too_long
