import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fasterrcnn.data import findings
from fasterrcnn.data.findings import FINDING_KINDS, Finding, only_errors, printable, raise_on_errors
from fasterrcnn.errors import DataError

ERROR = Finding("flat-box", Path("a.xml"), "object 1 (cat): box 5,5,5,20 has no area", 1, Path("a.jpg"))
WARNING = Finding("leak", Path("b.jpg"), "is in train and val")


def test_finding__words_and_json():
    assert str(ERROR) == "a.xml: object 1 (cat): box 5,5,5,20 has no area"
    assert (ERROR.severity, WARNING.severity) == ("error", "warning")
    assert json.loads(json.dumps(ERROR.to_dict())) == {
        "severity": "error",
        "kind": "flat-box",
        "file": "a.xml",
        "annotation": 1,
        "image": "a.jpg",
        "what": "object 1 (cat): box 5,5,5,20 has no area",
        "advice": FINDING_KINDS["flat-box"][1],
    }
    assert WARNING.to_dict()["annotation"] is WARNING.to_dict()["image"] is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("grün 猫.jpg", "grün 猫.jpg"),
        ("a\nb\x1b[31m", "a\\nb\\x1b[31m"),
        ("\udce4.jpg", "\\udce4.jpg"),  # a name that is not UTF-8
        ("", ""),
    ],
)
def test_printable(text, shown):
    assert printable(text) == shown
    assert str(Finding("leak", Path("x"), text)) == f"x: {shown}"


@pytest.mark.parametrize("kind", FINDING_KINDS)
def test_kinds__every_one_has_advice(kind):
    severity, advice = FINDING_KINDS[kind]
    assert severity in ("error", "warning", "note")
    assert advice
    assert advice == advice.strip(". ")
    assert "\n" not in advice


def test_kinds__every_one_that_the_code_names_exists():
    sources = Path(findings.__file__).parent.rglob("*.py")
    named = {kind for file in sources for kind in re.findall(r'Finding\(\s*"([a-z-]+)"', file.read_text("utf-8"))}
    assert named
    assert named <= FINDING_KINDS.keys()


def test_errors_of():
    assert only_errors([WARNING, ERROR, WARNING]) == [ERROR]
    assert only_errors([]) == []


def test_raise_on_errors__nothing_to_refuse():
    raise_on_errors([], Path("set"))
    raise_on_errors([WARNING] * 3, Path("set"))


def test_raise_on_errors__one_error():
    with pytest.raises(
        DataError, match=r'^1 error in set: a\.xml: object 1 .* has no area \[.*\]\. .*"drop"'
    ) as caught:
        raise_on_errors([WARNING, ERROR], Path("set"))
    assert "b.jpg" not in str(caught.value)


@pytest.mark.parametrize(("count", "end"), [(20, ""), (21, "; and 1 more"), (1000, "; and 980 more")])
def test_raise_on_errors__the_first_twenty(count, end):
    many = [Finding("flat-box", Path("a.xml"), f"object {n} is flat\n") for n in range(1, count + 1)]
    with pytest.raises(
        DataError, match=rf"^{count} errors in set: .*object 20 is flat\\n \[[^;]*\]{end}\. Correct"
    ) as caught:
        raise_on_errors(many, Path("set"))
    assert str(caught.value).count("is flat") == 20
    assert "\n" not in str(caught.value)


def test_module__needs_neither_torch_nor_numpy():
    program = "import sys, fasterrcnn.data.findings; print(*{'torch', 'numpy'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""
