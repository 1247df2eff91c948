"""Messages of ``fasterrcnn data ...``: what is wrong, with options that the command has."""

import json
import re
import subprocess
import sys

import pytest
from PIL import Image

VOC = (
    "<annotation><object><name>cat</name><bndbox><xmin>{}</xmin><ymin>2</ymin><xmax>30</xmax><ymax>20</ymax></bndbox>"
    "</object></annotation>"
)


@pytest.fixture
def voc(tmp_path):
    """Writes a Pascal VOC set of images with a box each, whose left sides are given; None stands for a broken file."""

    def write(lefts):
        root = tmp_path / "set"
        for number, left in enumerate(lefts):
            for folder in ("JPEGImages", "Annotations"):
                (root / folder).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 30), (number * 9, 0, 0)).save(root / "JPEGImages" / f"{number}.png")
            text = "<annotation>" if left is None else VOC.format(left)
            (root / "Annotations" / f"{number}.xml").write_text(text)
        return root

    return write


@pytest.fixture
def no_labels(tmp_path):
    """A YOLO set whose labels lie where nobody searches them."""
    root = tmp_path / "set"
    for folder in ("images", "annotations"):
        (root / folder).mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (40, 30), (number * 9, 0, 0)).save(root / "images" / f"{number}.png")
        (root / "annotations" / f"{number}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (root / "data.yaml").write_text("train: images\nnames: [cat]\n")
    return root


COMMANDS = {
    "check": (),
    "stats": (),
    "anchors": (),
    "show": ("-o", "views.jpg"),
    "convert": ("--to", "coco", "-o", "new"),
    "split": ("-o", "new"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_data__broken_annotations_alone_are_an_error_everywhere(run, voc, command):
    outcome = run("data", command, voc([None, None]), *COMMANDS[command])
    assert outcome.code == 2
    assert "no image can be used" in outcome.out + outcome.err


@pytest.mark.parametrize("command", COMMANDS)
def test_data__no_labels_is_an_error_everywhere(run, no_labels, command):
    outcome = run("data", command, no_labels, *COMMANDS[command])
    assert outcome.code == 2
    assert "labels" in outcome.out + outcome.err
    assert "error" in outcome.out + outcome.err


@pytest.mark.parametrize("command", ["convert", "split"])
def test_data__advises_no_option_that_is_not_there(run, voc, command):
    outcome = run("data", command, voc([2, 2, None, 2]), *COMMANDS[command])
    assert outcome.code == 2
    assert re.match(r"error: 1 error in \S+set\nerror unreadable-annotations \(1\): ", outcome.err)
    assert "on-bad-box" not in outcome.err
    assert '"fasterrcnn data check DATA" shows all, and writes a repaired copy with --fix NEW' in outcome.err


@pytest.mark.parametrize("command", ["stats", "anchors", "show"])
def test_data__numbers_without_what_could_not_be_read(run, voc, command):
    root = voc([2, 2, None, 2])
    outcome = run("data", command, root, *COMMANDS[command])
    assert outcome.code == 0
    notes = [line for line in outcome.err.splitlines() if line.startswith("note: 1 error")]
    assert notes == [
        "note: 1 error (unreadable-annotations: 1); what is concerned takes no part; see fasterrcnn data check",
    ]
    (root / "Annotations" / "2.xml").write_text(VOC.format(2))
    assert "takes no part" not in run("data", command, root, *COMMANDS[command]).err


def test_split__keeps_a_split(run, voc, tmp_path):
    root = voc([2] * 12)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for name, numbers in (("train", range(8)), ("test", range(8, 12))):
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text("".join(f"{n}\n" for n in numbers))
    outcome = run("data", "split", root, "--keep", "test", "--val", "0.25", "-o", tmp_path / "new")
    assert (outcome.code, outcome.err) == (0, "")
    assert "splits train 6 / val 2 / test 4" in outcome.out
    names = json.loads((tmp_path / "new" / "annotations" / "instances_test.json").read_text())["images"]
    assert sorted(image["file_name"] for image in names) == ["10.png", "11.png", "8.png", "9.png"]
    outcome = run("data", "split", root, "--keep", "test", "--test", "0.2", "-o", tmp_path / "other")
    assert outcome.is_one_line
    assert "(--keep)" in outcome.err


def test_split__two_shares_mean_what_they_are(run, voc, tmp_path):
    outcome = run("data", "split", voc([2] * 10), "--train", "0.8", "--val", "0.2", "-o", tmp_path / "new")
    assert "splits train 8 / val 2\n" in outcome.out


def test_main__whose_output_nobody_reads_ends_in_silence(voc):
    command = [sys.executable, "-m", "fasterrcnn", "data", "stats", str(voc([2, 2]))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_main__long_messages_are_wrapped(capsys, monkeypatch):
    from fasterrcnn.cli.main import main
    from fasterrcnn.errors import DataError

    for text, count in (("word " * 100, 3), ("x" * 500, 3), ("line\n" * 50, 20), ("short", 1)):

        def fail(*arguments, text=text, **options):
            raise DataError(text)

        monkeypatch.setattr("fasterrcnn.cli.main.app", fail)
        with pytest.raises(SystemExit):
            main(["train"])
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == count
        assert max(map(len, lines)) <= 200
        assert lines[0].startswith("error: ")
