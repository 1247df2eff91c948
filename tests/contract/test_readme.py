import re
from pathlib import Path

import pytest

from fasterrcnn.data.findings import FINDING_KINDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SPANISH = (ROOT / "README.es.md").read_text(encoding="utf-8")
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents__links_lead_somewhere(document):
    text = document.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", text):
        if target.startswith("http"):
            continue
        file = document.parent / target if target else document
        assert file.exists(), target
        assert not anchor or anchor in anchors_of(file), f"{target}#{anchor}"
    assert "@@" not in text


def anchors_of(document: Path) -> set[str]:
    """Names of the headings in links, as web pages of repositories make them."""
    headings = re.findall(r"^#+ (.*)$", without_blocks(document.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def blocks_without_comments(text: str) -> list[list[str]]:
    """Lines of every fenced block. Of the tree, only the files it names: what stands beside them is prose."""
    blocks = []
    for block in re.findall(r"^```.*?^```", text, flags=re.DOTALL | re.MULTILINE):
        if block.startswith("```\nsrc/"):
            blocks.append(sorted(re.findall(r"(?:^ *|   )([\w/]+(?:\.py|/)) ", block, flags=re.MULTILINE)))
        else:
            blocks.append([re.sub(r"\s+#\s.*$", "", line) for line in block.splitlines()])
    return blocks


def test_readme__spanish_twin_has_the_same_commands():
    english, spanish = blocks_without_comments(README), blocks_without_comments(SPANISH)
    assert len(english) >= 5
    for ours, theirs in zip(english, spanish, strict=True):
        assert theirs == ours


def test_readme__spanish_twin_has_the_same_structure():
    english, spanish = (re.findall(r"^#+ ", without_blocks(text), flags=re.MULTILINE) for text in (README, SPANISH))
    assert len(english) >= 5
    assert spanish == english


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
    assert [kind for kind, (severity, _) in FINDING_KINDS.items() if marks[severity].format(kind) not in text] == []
