"""``fasterrcnn data check``, in processes of its own where files are hostile."""

import hashlib
import json
import os
import resource
import shutil
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fasterrcnn.data.formats import FORMATS, read_data

GIB = 2**30
SECONDS = 60  # of processor time, however busy the machine is


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (80, 100, 3), dtype=np.uint8))


def write_coco(root: Path, boxes=((10, 10, 30, 30),) * 4, *, names=("p0.png", "p1.png", "p2.png", "p3.png")) -> Path:
    """A data set of four images with a box each, in COCO style: left, top, width, height."""
    root.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number, (name, box) in enumerate(zip(names, boxes, strict=True), start=1):
        noise(number).save(root / name)
        images.append({"id": number, "file_name": name, "width": 100, "height": 80})
        annotations.append({"id": number + 10, "image_id": number, "category_id": 1, "bbox": list(box)})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    (root / "annotations.json").write_text(json.dumps(content))
    return root


def hashes(root: Path) -> dict[Path, str]:
    return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in root.rglob("*") if file.is_file()}


BAD = ((10, 10, 30, 30), (10, 10, 0, 30), (40, 40, -30, -20), (90, 10, 30, 30))


def test_check__sound_data(run, tmp_path):
    outcome = run("data", "check", write_coco(tmp_path / "set"))
    assert (outcome.code, outcome.err) == (0, "")
    first, *_, last = outcome.out.splitlines()
    assert first == "COCO, 4 images, 1 class (cat), no splits"
    assert last == "no findings: this data set is ready for training"


@pytest.mark.parametrize("quick", [(), ("--quick",)])
def test_check__errors_are_findings_and_decide_the_exit_code(run, tmp_path, quick):
    outcome = run("data", "check", write_coco(tmp_path / "set", BAD), *quick)
    assert (outcome.code, outcome.err) == (2, "")
    assert "error flat-box (1): draw the box again, or delete it" in outcome.out
    assert "annotations.json: annotation 12 (cat): box 10,10,10,40 has no area" in outcome.out
    assert outcome.out.splitlines()[-2:] == [
        "2 errors, 1 warning, 0 notes",
        "--fix NEW writes a repaired copy, with 3 changes: corners exchanged: 1, left out: 1, cut at the border: 1",
    ]


def test_check__warnings_are_no_errors(run, tmp_path):
    outcome = run("data", "check", write_coco(tmp_path / "set", (*BAD[:1], (10, 10, 0, 0), *BAD[:1], BAD[3])))
    assert (outcome.code, outcome.err) == (0, "")
    assert "\n0 errors, 2 warnings, 0 notes\n" in outcome.out


def test_check__quick_does_not_decode(run, tmp_path):
    root = write_coco(tmp_path / "set")
    (root / "p2.png").write_bytes((root / "p2.png").read_bytes()[:5000])
    assert run("data", "check", root, "--quick").code == 0
    outcome = run("data", "check", root)
    assert outcome.code == 2
    assert f"{root / 'p2.png'}: damaged image" in outcome.out


def test_check__all_shows_every_finding(run, tmp_path):
    names = [f"p{n}.png" for n in range(23)]
    root = write_coco(tmp_path / "set", [(10, 10, 0, 30)] * 23, names=names)
    assert "and 20 more (--all shows them)" in run("data", "check", root).out
    shown = run("data", "check", root, "--all").out
    assert all(f"annotation {number} (cat)" in shown for number in range(11, 34))


def test_check__model_decides_what_is_tiny(run, tmp_path):
    root = write_coco(tmp_path / "set", ((10, 10, 2.3, 1.5),) * 4)
    assert "tiny-box" not in run("data", "check", root).out
    assert "tiny-box" in run("data", "check", root, "--model", "mobilenetv3-large-320-fpn").out
    outcome = run("data", "check", root, "--model", "resnet5")
    assert outcome.code == 2
    assert outcome.is_one_line


def test_check__json_is_strict(run, tmp_path):
    outcome = run("data", "check", write_coco(tmp_path / "set", (*BAD[:3], (np.nan, 10, 20, np.inf))), "--json")

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    content = json.loads(outcome.out, parse_constant=refuse)
    assert outcome.code == 2
    assert content["counts"] == {"error": 3, "warning": 0, "note": 0}
    assert [finding["annotation"] for finding in content["findings"]] == [14, 13, 12]
    assert content["findings"][0]["what"] == "annotation 14 (cat): box nan,10,nan,inf is not finite"


def test_check__fix_writes_a_copy_and_a_list_of_changes(run, tmp_path):
    root = write_coco(tmp_path / "set", BAD)
    before = hashes(root)
    outcome = run("data", "check", root, "--fix", tmp_path / "fixed")
    assert outcome.code == 2  # of the data that was checked
    assert hashes(root) == before
    lines = (tmp_path / "fixed" / "changes.txt").read_text().splitlines()
    assert lines[0] == f"3 changes, made to a copy of {root}"
    assert sorted(line.rpartition("; ")[2] for line in lines[1:4]) == [
        "corners exchanged: 10,20,40,40",
        "cut at the border",
        "left out",
    ]
    assert outcome.err == f"wrote a repaired copy to {tmp_path / 'fixed'}: 3 changes, see changes.txt\n"
    boxes = [record.boxes.tolist() for record in read_data(tmp_path / "fixed").images]
    assert boxes == [[[10, 10, 40, 40]], [], [[10, 20, 40, 40]], [[90, 10, 100, 40]]]
    assert run("data", "check", tmp_path / "fixed").code == 0


def test_check__fix_into_a_folder_with_files(run, tmp_path):
    root = write_coco(tmp_path / "set")
    outcome = run("data", "check", root, "--fix", root)
    assert outcome.code == 2
    assert outcome.is_one_line
    assert "not empty" in outcome.err


def test_check__fix_with_nothing_left(run, tmp_path):
    root = write_coco(tmp_path / "set")
    for file in root.glob("*.png"):
        file.write_bytes(b"no image")
    outcome = run("data", "check", root, "--fix", tmp_path / "fixed")
    assert outcome.code == 2
    assert outcome.err == f"error: {root}: no image can be kept, so there is no copy to write\n"
    assert not (tmp_path / "fixed").exists()


def test_check__report(run, tmp_path):
    outcome = run("data", "check", write_coco(tmp_path / "set", BAD), "--report", tmp_path / "page.html")
    assert outcome.err == f"wrote {tmp_path / 'page.html'}\n"
    assert "has no area" in (tmp_path / "page.html").read_text()


# ---- hostile files


def limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (GIB, GIB))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))


def check(root: Path, *options: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run the command with little memory and work; it must end with code 2, and without a traceback."""
    command = [*prefix, sys.executable, "-m", "fasterrcnn", "data", "check", str(root), *options]
    # One thread needs less address space.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, env=environment, check=False)
    assert done.returncode == 2, done
    assert "Traceback" not in done.stderr + done.stdout
    return done


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    message = done.stderr.replace("\n    ", " ")
    assert message.count("\n") == 1
    return message


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_check__no_data_set(run, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").write_text("nothing")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("notes", "no annotated images found"),
        ("missing", "no such file or folder"),
        ("empty", "no annotated images found"),
    ):
        outcome = run("data", "check", tmp_path / name)
        assert outcome.code == 2
        assert outcome.is_one_line
        assert message in outcome.err


def test_check__half_a_coco_file(run, tmp_path):
    file = write_coco(tmp_path / "set") / "annotations.json"
    file.write_text(file.read_text()[:-150])
    outcome = run("data", "check", file)
    assert outcome.code == 2
    assert outcome.is_one_line
    assert f"{file}: broken JSON" in outcome.err


def test_check__six_columns(run, tmp_path):
    root = tmp_path / "set"
    (root / "labels").mkdir(parents=True)
    (root / "images").mkdir()
    (root / "data.yaml").write_text("train: images\nnames: [cat]\n")
    for number in range(4):
        noise(number).save(root / "images" / f"{number}.png")
        (root / "labels" / f"{number}.txt").write_text("0 0.5 0.5 0.2 0.2" + " 0.9" * (number == 2) + "\n")
    outcome = run("data", "check", root)
    assert outcome.code == 2
    assert f"{root / 'labels' / '2.txt'}: line 1 (0 0.5 0.5 0.2 0.2 0.9): " in outcome.out
    assert outcome.out.endswith("\n1 error, 0 warnings, 0 notes\n")


def test_check__xml_bomb(tmp_path):
    root = tmp_path / "set"
    (root / "Annotations").mkdir(parents=True)
    (root / "JPEGImages").mkdir()
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    bomb = f'<!DOCTYPE b [<!ENTITY l0 "lol">{entities}]><annotation><object><name>&l9;</name></object></annotation>'
    sides = "<xmin>10</xmin><ymin>10</ymin><xmax>40</xmax><ymax>40</ymax>"
    good = f"<annotation><object><name>cat</name><bndbox>{sides}</bndbox></object></annotation>"
    for number in range(4):
        noise(number).save(root / "JPEGImages" / f"{number}.png")
        (root / "Annotations" / f"{number}.xml").write_text(bomb if number == 2 else good)
    done = check(root)
    assert f"{root / 'Annotations' / '2.xml'}: declares XML entities" in done.stdout
    assert done.stdout.endswith("\n1 error, 0 warnings, 0 notes\n")


def huge(path: Path) -> None:
    path.write_bytes(png(60_000, 60_000))


def text_bomb(path: Path) -> None:
    bomb = zlib.compress(b"\0" * (200 * 2**20))
    path.write_bytes(png(100, 80, *[chunk(b"zTXt", b"Comment\0\0" + bomb)] * 20))


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket may have 107 characters
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


def folder(path: Path) -> None:
    path.mkdir()


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


HOSTILE = (huge, text_bomb, fifo, device, unix_socket, folder, loop)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(
    "plants",
    [HOSTILE, *(pytest.param((plant,), marks=pytest.mark.slow) for plant in HOSTILE)],
    ids=lambda plants: "-".join(plant.__name__ for plant in plants),
)
def test_check__hostile_images(tmp_path, plants):
    files = [f"p{number}.png" for number in range(len(plants) + 3)]
    root = write_coco(tmp_path / "set", ((10, 10, 30, 30),) * len(files), names=files)
    hostile = [root / name for name in files[2 : 2 + len(plants)]]
    for path, plant in zip(hostile, plants, strict=True):
        path.unlink()
        plant(path)
    done = check(root, "--all")
    assert done.stderr == ""
    assert [path.name for path in hostile if path.name not in done.stdout] == []
    assert f"{len(plants)} error{'s' * (len(plants) > 1)}, " in done.stdout


def test_check__without_permission_to_read(tmp_path):
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:  # who may read everything
        if shutil.which("setpriv") is None:
            pytest.skip("runs as root, and there is no setpriv to give up its rights")
        prefix = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
    root = write_coco(tmp_path / "set")
    (root / "p2.png").chmod(0)
    assert f"{root / 'p2.png'}: " in check(root, prefix=prefix).stdout
    (root / "annotations.json").chmod(0)
    assert "annotations.json" in one_line(check(root / "annotations.json", prefix=prefix))


def test_check__names_that_are_not_utf8(run, tmp_path):
    root = write_coco(tmp_path / "set")
    (root / os.fsdecode(b"caf\xe9\x1b[31m\n.png")).write_bytes(b"no image")
    (root / "p2.png").write_bytes(b"no image")
    done = check(root, "--report", str(tmp_path / "page.html"))
    assert "caf\\udce9\\x1b[31m\\n.png: no annotation file lists it" in done.stdout
    assert "caf\\udce9" in (tmp_path / "page.html").read_text()
    json.loads(run("data", "check", root, "--json").out)


def test_check__loads_no_torch(tmp_path):
    program = (
        "import sys\nfrom fasterrcnn.cli.main import app\n"
        f"app(['data', 'check', {str(write_coco(tmp_path / 'set'))!r}, '--report', {str(tmp_path / 'page.html')!r}])\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, capture_output=True).returncode == 0


def test_wrong_format__lists_every_format(run, tmp_path):
    root = write_coco(tmp_path / "set")
    check = run("data", "check", root, "--format", "x")
    convert = run("data", "convert", root, "--to", "x", "--output", tmp_path / "new")
    assert (check.code, convert.code) == (2, 2)
    assert all(name in check.err for name in FORMATS)
    assert all(name in convert.err for name, form in FORMATS.items() if form.can_write)
