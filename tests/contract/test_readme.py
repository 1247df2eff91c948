import re
from pathlib import Path

import pytest

from fasterrcnn.data.findings import KINDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents__links_lead_somewhere(document):
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or (document.parent / target).exists(), target
    assert "@@" not in text


def test_readme__files_of_the_tree_exist():
    tree = README.split("## The tree", 1)[1].split("```")[1]
    named = re.findall(r"^  (?:  )?([\w/]+(?:\.py|/))", tree, flags=re.MULTILINE)
    assert len(named) >= 10
    for name in named:
        assert (ROOT / "src" / "fasterrcnn" / name).exists() or (ROOT / name).exists(), name


def test_readme__make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^make (\w+)", README, flags=re.MULTILINE)
    assert targets == ["demo", "test"]
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)


def test_readme__model_snippet_runs():
    snippet = next(s for s in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if "build_model" in s)
    # The same code on a preset that is built in a second.
    names: dict = {}
    exec(snippet.replace("resnet50-c5", "mobilenetv3-large-320-fpn"), names)
    assert len(names["detections"]) == 1
    assert names["losses"].total.isfinite()
    assert names["model"].rpn.deltas.weight.grad is not None


def test_documents__every_kind_of_finding_is_explained():
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    marks = {"error": "**{}**", "warning": "`{}`", "note": "*{}*"}
    assert [kind for kind, (severity, _) in KINDS.items() if marks[severity].format(kind) not in text] == []
