import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fasterrcnn.data import findings
from fasterrcnn.data.findings import (
    BOX_KINDS,
    FINDING_KINDS,
    Finding,
    not_in_list,
    only_errors,
    printable,
    raise_on_errors,
    shorten_middle,
    unseen_difference,
)
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
    assert FINDING_KINDS.keys() >= BOX_KINDS


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
    with pytest.raises(DataError) as caught:
        raise_on_errors([WARNING, ERROR], Path("set"))
    assert str(caught.value).splitlines() == [
        "1 error in set",
        "error flat-box (1): draw the box again, or delete it",
        "  a.xml: object 1 (cat): box 5,5,5,20 has no area",
        '"fasterrcnn data check DATA" shows all, and writes a repaired copy with --fix NEW',
    ]


@pytest.mark.parametrize("has_policy", [True, False])
def test_raise_on_errors__advises_only_options_that_the_caller_has(has_policy):
    with pytest.raises(DataError, match="--fix NEW") as caught:
        raise_on_errors([ERROR], Path("set"), has_policy=has_policy)
    assert ("--on-bad-box" in str(caught.value)) == has_policy


def test_raise_on_errors__three_of_each_kind():
    many = [Finding("flat-box", Path("a.xml"), f"object {n} is flat\n") for n in range(1, 1001)]
    with pytest.raises(DataError, match=r"^1,001 errors in set\nerror flat-box \(1,000\): draw") as caught:
        raise_on_errors([*many, Finding("not-finite", Path("b.xml"), "object 7")], Path("set"))
    lines = str(caught.value).splitlines()
    assert lines[2:5] == [f"  a.xml: object {n} is flat\\n" for n in (1, 2, 3)]
    assert lines[5].startswith("error not-finite (1): ")
    assert lines[6] == "  b.xml: object 7"
    assert len(lines) == 8


@pytest.mark.parametrize("kinds", [1, 3, 5, 8, 17])
def test_raise_on_errors__twenty_lines_of_two_hundred_characters(kinds):
    names = [kind for kind, (severity, _) in FINDING_KINDS.items() if severity == "error"][:kinds]
    file, words = Path("/folder" * 60) / "a.xml", "of the classes cat, dog, owl" * 50
    many = [Finding(kind, file, f"object {n}: {words}") for kind in names for n in range(9)]
    with pytest.raises(DataError) as caught:
        raise_on_errors(many, file.parent, has_policy=True)
    lines = str(caught.value).splitlines()
    assert len(lines) <= 20
    assert max(map(len, lines)) <= 200
    assert ("more kinds" in str(caught.value)) == (kinds > 8)
    assert "a.xml: object 0" in lines[2]


def test_shorten_middle():
    assert shorten_middle("abcdefghij", 10) == "abcdefghij"
    assert shorten_middle("abcdefghijk", 10) == "abc ... jk"


@pytest.mark.parametrize(
    ("first", "other", "words"),
    [
        ("caf\u00e9", "cafe\u0301", r"accents are written in two ways, 'caf\xe9' and 'cafe\u0301'"),
        ("a b", "a\u00a0b", r"characters that cannot be seen, 'a b' and 'a\xa0b'"),
        ("cat", "cat\u200b", r"characters that cannot be seen, 'cat' and 'cat\u200b'"),
        ("cat", "Cat", ""),
        ("cat", "cat", ""),
    ],
)
def test_unseen_difference(first, other, words):
    assert words in unseen_difference(first, other)
    assert bool(words) == bool(unseen_difference(first, other))


def test_not_in_list__few_classes_and_many():
    assert not_in_list("cow", ("cat", "dog")) == "'cow' is none of the classes cat, dog"
    many = tuple(f"kind {n} of animals" for n in range(80))
    assert not_in_list("zzz", many) == "'zzz' is none of the 80 classes"
    assert "none of the 80 classes (similar: 'kind 7 of" in not_in_list("knid 7 of animals", many)
    assert "accents" in not_in_list("cafe\u0301", ("caf\u00e9", *many))


def test_module__needs_neither_torch_nor_numpy():
    program = "import sys, fasterrcnn.data.findings; print(*{'torch', 'numpy'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""
