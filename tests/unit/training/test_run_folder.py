import getpass
import json
import platform
import shutil
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from fasterrcnn.data.annotations import AnnotatedImage
from fasterrcnn.errors import ImageError
from fasterrcnn.training.data import fingerprint
from fasterrcnn.training.run_folder import describe_environment


@pytest.fixture
def records(tmp_path, photo) -> list[AnnotatedImage]:
    """Images in two folders, two of them of the same name; the last has no objects."""
    made = []
    for number, name in enumerate(["a/one.png", "b/one.png", "b/two.png"]):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        photo((20, 30), number).save(path)
        boxes = np.array([[1, 2, 9, 8], [3, 3, 20, 15]], np.float32)[: 2 if number < 2 else 0]
        labels = np.arange(len(boxes))
        made.append(AnnotatedImage(path, number + 1, (20, 30), boxes, labels, np.zeros(len(boxes), np.bool_)))
    return made


def moved(record: AnnotatedImage, folder: Path) -> AnnotatedImage:
    folder.mkdir(parents=True)
    return replace(record, path=Path(shutil.copy(record.path, folder)), image_id=99, source=folder / "x.json")


def test_fingerprint__sixteen_hexadecimal_digits(records):
    assert len(fingerprint(records)) == 16
    assert int(fingerprint(records), 16) >= 0
    assert len(fingerprint([])) == 16


def test_fingerprint__not_of_order_nor_place(records, tmp_path):
    expected = fingerprint(records)
    assert fingerprint(records[::-1]) == expected
    elsewhere = [moved(record, tmp_path / "elsewhere" / str(number)) for number, record in enumerate(records)]
    assert fingerprint(elsewhere) == expected


def test_fingerprint__of_the_images_bytes(records, photo):
    expected = fingerprint(records)
    content = bytearray(records[0].path.read_bytes())
    content[-1] ^= 1
    records[0].path.write_bytes(content)
    assert fingerprint(records) != expected


@pytest.mark.parametrize(
    "change",
    [
        lambda r: replace(r, boxes=r.boxes + np.float32(0.01)),
        lambda r: replace(r, boxes=r.boxes[:, [1, 0, 3, 2]]),
        lambda r: replace(r, labels=r.labels + 1),
        lambda r: replace(r, difficult=~r.difficult),
        lambda r: replace(r, size_hw=(30, 20)),
        lambda r: replace(r, path=r.path.rename(r.path.with_name("other.png"))),
        lambda r: r.select(np.array([True, False])),
        lambda r: r.select(np.array([False, False])),
    ],
    ids=["boxes", "sides", "labels", "difficult", "size", "name", "one object", "no object"],
)
def test_fingerprint__of_everything_that_is_learned_from(records, change):
    expected = fingerprint(records)
    assert fingerprint([change(records[0]), *records[1:]]) != expected


def test_fingerprint__of_which_image_has_which_objects(records):
    first, second, third = records
    swapped = [replace(first, boxes=third.boxes, labels=third.labels, difficult=third.difficult), second]
    given = [replace(third, boxes=first.boxes, labels=first.labels, difficult=first.difficult)]
    assert fingerprint(swapped + given) != fingerprint(records)


def test_fingerprint__of_how_often_a_image_is_there(records):
    assert len({fingerprint(records), fingerprint([*records, records[0]]), fingerprint(records[:2])}) == 3


def test_fingerprint__missing_image(records):
    records[1].path.unlink()
    with pytest.raises(
        ImageError, match=r"b/one\.png: cannot be read \(No such file or directory\); put the file back"
    ):
        fingerprint(records)


def test_describe_environment__versions_and_machine():
    found = describe_environment()
    assert found["torch"] == metadata.version("torch")
    assert found["python"] == platform.python_version()
    assert found["threads"] == torch.get_num_threads()
    assert found["cpu"]
    assert found["memory_gib"] is None or found["memory_gib"] > 0
    assert len(found["cuda"]) == torch.cuda.device_count()


def test_describe_environment__package_that_is_absent(monkeypatch):
    def version(name: str) -> str:
        if name == "timm":
            raise metadata.PackageNotFoundError(name)
        return "1.2.3"

    monkeypatch.setattr("fasterrcnn.training.run_folder.metadata.version", version)
    assert describe_environment()["timm"] is None
    assert describe_environment()["torchvision"] == "1.2.3"


def test_describe_environment__variables_that_are_set(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    variables = describe_environment()["variables"]
    assert variables["OMP_NUM_THREADS"] == "3"
    assert "CUDA_VISIBLE_DEVICES" not in variables


def test_describe_environment__plain_values():
    found = describe_environment()
    assert json.loads(json.dumps(found)) == found
    assert yaml.safe_load(yaml.safe_dump(found)) == found


def test_describe_environment__has_no_names_of_people_or_computers(monkeypatch):
    monkeypatch.setenv("HOME", "/home/jane.doe")
    monkeypatch.setenv("USER", "jane.doe")
    monkeypatch.setenv("HOSTNAME", "janes-laptop")
    text = json.dumps(describe_environment())
    for private in (getpass.getuser(), platform.node(), str(Path.home()), str(Path.cwd()), "janes-laptop"):
        assert private not in text
