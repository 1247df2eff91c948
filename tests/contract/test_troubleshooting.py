"""The page of messages and remedies: made from the messages of the library, so that it cannot drift from them.

``python tests/contract/test_troubleshooting.py`` writes its table of findings anew.
"""

import re
from pathlib import Path

import pytest

import fasterrcnn
from fasterrcnn.data.findings import FINDING_KINDS

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "troubleshooting.md"
SOURCES = "\n".join(path.read_text(encoding="utf-8") for path in sorted(Path(fasterrcnn.__file__).parent.rglob("*.py")))
TABLE = re.compile(r"(?<=<!-- findings -->\n).*?(?=<!-- end -->)", re.DOTALL)


def table_of_findings() -> str:
    """A row for each kind of finding, in their order."""
    rows = [f"| `{kind}` | {severity} | {advice} |" for kind, (severity, advice) in FINDING_KINDS.items()]
    return "\n".join(["| finding | severity | what to do |", "|---|---|---|", *rows, ""])


def messages() -> list[str]:
    """The messages of the page's other table."""
    return re.findall(r"^\| `([^`]+)` \| [^|]+ \|$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_findings__are_those_of_the_library():
    page = PAGE.read_text(encoding="utf-8")
    assert TABLE.findall(page) == [table_of_findings()], f"run python {Path(__file__).name}"


def test_messages__are_thirty_or_more_with_the_findings():
    assert len(messages()) >= 20
    assert len(messages()) == len(set(messages()))
    assert len(messages()) + len(FINDING_KINDS) >= 30


@pytest.mark.parametrize("message", messages())
def test_messages__stand_in_the_source(message):
    assert all(part.strip() in SOURCES for part in message.split("..."))


if __name__ == "__main__":
    PAGE.write_text(TABLE.sub(lambda _: table_of_findings(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
