from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fasterrcnn.data.checks.images import (
    ImageFacts,
    check_listing,
    check_other_files,
    decode_images,
    frame_hw,
    is_of_stored_image,
    read_headers,
    same_aspect_ratio,
)
from fasterrcnn.images import ImageHeader

BOX = [10, 10, 40, 40]


def decode(data):
    return decode_images(data, lambda records, total: records)


def headers(data):
    return read_headers(data.images)


@pytest.fixture
def painted(tmp_path, annotated_of, data_of):
    """A data set of images that are written to a folder: arrays, or copies of files; some with a box, in splits."""

    def make(images, boxes=None, splits=None, size_hw=(80, 100)):
        records = []
        for number, (name, content) in enumerate(images.items(), start=1):
            path = tmp_path / name
            if isinstance(content, bytes):
                path.write_bytes(content)
            elif content is not None:
                Image.fromarray(content).save(path)
            own = [BOX] if boxes is None else boxes.get(name, [])
            records.append(replace(annotated_of(number, own, size_hw=size_hw), path=path))
        named = None if splits is None else {s: [records[i] for i in rows] for s, rows in splits.items()}
        return data_of(*records, splits=named)

    return make


def noise(seed, height=80, width=100):
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def blobs(seed, height=80, width=100):
    coarse = np.random.default_rng(seed).integers(0, 255, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("method", [decode, headers])
def test_images__nothing_there(painted, method):
    assert method(painted({})) == ImageFacts()


@pytest.mark.parametrize("method", [decode, headers])
def test_images__sound_images(painted, method):
    data = painted({f"{n}.png": noise(n) for n in range(40)})
    facts = method(data)
    assert facts.findings == []
    assert facts.sizes_hw == {annotated.path: (80, 100) for annotated in data.images}


@pytest.mark.parametrize("method", [decode, headers])
def test_images__files_that_are_no_images(painted, method):
    data = painted({"a.png": noise(0), "b.png": b"no image", "c.png": None})
    facts = method(data)
    assert [(f.kind, f.file.name, f.image.name) for f in facts.findings] == [
        ("unreadable-image", "b.png", "b.png"),
        ("unreadable-image", "c.png", "c.png"),
    ]
    assert str(facts.findings[1]).count("c.png") == 1
    assert len(facts.sizes_hw) == 1


def test_images__truncated_image_is_found_by_decoding(painted, tmp_path):
    Image.fromarray(noise(0)).save(tmp_path / "whole.png")
    half = (tmp_path / "whole.png").read_bytes()[:5000]
    data = painted({"a.png": noise(1), "half.png": half})
    (finding,) = decode(data).findings
    assert (finding.kind, finding.image.name) == ("unreadable-image", "half.png")
    assert "damaged" in finding.what
    assert headers(data).findings == []


def test_images__not_enough_memory(painted, monkeypatch):
    def fail(image):
        raise MemoryError

    monkeypatch.setattr("fasterrcnn.data.checks.images.take_fingerprint", fail)
    (finding,) = decode(painted({"a.png": noise(0)})).findings
    assert finding.what == "there is not enough memory for it"


@pytest.mark.parametrize("method", [decode, headers])
@pytest.mark.parametrize(
    ("stated_hw", "words"),
    [
        ((80, 90), "states 90 x 80 for a.png, the image has 100 x 80 (width x height)"),
        ((100, 80), "(width x height); width and height are exchanged, or the image was rotated"),
    ],
)
def test_images__another_size_than_the_annotations_state(painted, method, stated_hw, words):
    facts = method(painted({"a.png": noise(0)}, size_hw=stated_hw))
    (finding,) = facts.findings
    assert (finding.kind, finding.file.name, finding.image.name) == ("size-mismatch", "1.xml", "a.png")
    assert finding.what.endswith(words)
    assert list(facts.sizes_hw.values()) == [(80, 100)]


@pytest.mark.parametrize(
    ("boxes", "stated_hw", "true_hw", "expected"),
    [
        ([BOX], (80, 100), (80, 100), (80, 100)),
        ([[10, 10, 90, 70]], (80, 100), (40, 50), (80, 100)),  # made smaller after it was annotated
        ([[10, 10, 50, 40]], (80, 100), (40, 50), (40, 50)),
        ([[10, 10, 50, 40]], (40, 50), (80, 100), (40, 50)),  # enlarged
        ([[10, 10, 90, 40]], (40, 50), (80, 100), (80, 100)),
        ([BOX], (80, 90), (80, 100), (80, 100)),  # another shape
        ([BOX], (100, 80), (80, 100), (80, 100)),
        ([[np.nan, np.inf, 90, 70], BOX], (80, 100), (40, 50), (40, 50)),
        ([], (80, 100), (40, 50), (40, 50)),
    ],
)
def test_frame_hw(annotated_of, boxes, stated_hw, true_hw, expected):
    assert frame_hw(annotated_of(1, boxes, size_hw=stated_hw), true_hw) == expected


def test_same_aspect_ratio__within_rounding():
    assert same_aspect_ratio((480, 640), (333, 444))
    assert same_aspect_ratio((480, 640), (241, 320))
    assert not same_aspect_ratio((480, 640), (480, 660))


def test_framed__images_that_cannot_be_opened_keep_their_size(data_of, annotated_of):
    data = data_of(annotated_of(1, [BOX]), annotated_of(2, [BOX]))
    framed = ImageFacts(sizes_hw={data.images[1].path: (60, 60)}).framed(data)
    assert [annotated.size_hw for annotated in framed.images] == [(80, 100), (60, 60)]


def test_images__the_same_image_twice(painted):
    data = painted({"a.png": noise(0), "b.png": noise(1), "c.png": noise(0), "d.png": noise(0)}, {"a.png": [BOX]})
    assert [(f.kind, f.file.name, f.what) for f in decode(data).findings] == [
        ("same-image", "c.png", "the same image as a.png, with other boxes"),
        ("same-image", "d.png", "the same image as a.png, with other boxes"),
    ]


def test_images__the_same_image_in_two_splits(painted):
    data = painted({"a.png": noise(0), "b.png": noise(1), "c.png": noise(0)}, splits={"train": [0, 1], "val": [2]})
    (finding,) = decode(data).findings
    assert (finding.kind, finding.file.name) == ("leak", "c.png")
    assert finding.what == "in 'val': the same image as a.png in 'train'"


def test_images__nearly_the_same_image_matters_between_splits_only(painted):
    images = {"a.png": blobs(0), "b.png": blobs(1), "c.jpg": blobs(0)}
    (finding,) = decode(painted(images, splits={"train": [0, 1], "val": [2]})).findings
    assert (finding.kind, finding.image.name) == ("leak", "c.jpg")
    assert finding.what == "in 'val': nearly the same image as a.png in 'train'"
    assert decode(painted(images)).findings == []


def test_images__nearly_the_same_with_other_objects_is_no_leak(painted):
    images = {"a.png": blobs(0), "c.jpg": blobs(0)}
    splits = {"train": [0], "val": [1]}
    assert decode(painted(images, {"a.png": [BOX], "c.jpg": [[60, 50, 90, 70]]}, splits)).findings == []
    (finding,) = decode(painted(images, {"a.png": [BOX], "c.jpg": [BOX, [60, 50, 90, 70]]}, splits)).findings
    assert finding.kind == "leak"


def test_check_listing__versions_of_one_image(data_of, annotated_of):
    names = [f"{name}_jpg.rf.{number:032x}.jpg" for number, name in enumerate(["cat", "cat", "dog", "cat"])]
    images = [
        replace(annotated_of(n, [BOX]), path=Path(folder) / name)
        for n, (name, folder) in enumerate(zip(names, ["train", "train", "train", "val"], strict=True))
    ]
    (finding,) = check_listing(data_of(splits={"train": images[:3], "val": images[3:]}))
    assert (finding.kind, finding.image) == ("leak", Path("val") / names[3])
    assert finding.what == f"in 'val': another version of the image of {names[0]} in 'train'"
    assert check_listing(data_of(splits={"train": images[:3]})) == []


def test_images__a_file_that_is_listed_twice(painted, data_of):
    (annotated,) = painted({"a.png": noise(0)}).images
    (finding,) = decode(data_of(annotated, replace(annotated, image_id=2))).findings
    assert (finding.kind, finding.what) == ("same-image", "is listed twice")
    data = data_of(splits={"train": [annotated], "val": [replace(annotated, image_id=2)]})
    assert decode(data).findings == []  # reported by check_listing already
    (finding,) = check_listing(data)
    assert (finding.kind, finding.what) == ("leak", "is in the splits 'train' and 'val'")


def test_images__empty_images_of_one_colour_or_a_gradient_are_no_copies(painted):
    flat = np.full((80, 100, 3), 90, np.uint8)
    slope = np.broadcast_to(np.linspace(0, 255, 100)[None, :, None], (80, 100, 3)).astype(np.uint8)
    images = {"a.png": flat, "b.png": flat, "c.png": slope, "d.png": slope, "e.jpg": slope}
    splits = {"train": [0, 2], "val": [1, 3, 4]}
    assert decode(painted(images, boxes={}, splits=splits)).findings == []
    assert [f.image.name for f in decode(painted(images, splits=splits)).findings][:2] == ["b.png", "d.png"]


def test_check_listing__trainval_is_train_and_val(data_of, annotated_of):
    a, b, c = (annotated_of(n, [BOX]) for n in (1, 2, 3))
    assert check_listing(data_of(splits={"train": [a], "val": [b], "trainval": [a, b], "test": [c]})) == []
    (finding,) = check_listing(data_of(splits={"train": [a, c], "trainval": [a, c], "test": [c]}))
    assert (finding.kind, finding.file.name) == ("leak", "3.png")


def test_images__progress_sees_every_image(painted):
    data = painted({f"{n}.png": noise(n) for n in range(3)})
    passed = []

    def track(records, total):
        for annotated in records:
            passed.append((annotated.path.name, total))
            yield annotated

    decode_images(data, track)
    assert passed == [("0.png", 3), ("1.png", 3), ("2.png", 3)]


def test_decode_images__few_grey_levels_are_reported_once(painted):
    twelve_bits = np.linspace(0, 4095, 8000).astype(np.uint16).reshape(80, 100)
    data = painted({"a.png": twelve_bits, "b.png": twelve_bits[::-1], "c.png": noise(3)})
    (finding,) = (finding for finding in decode(data).findings if finding.kind == "few-levels")
    assert finding.image == data.images[0].path
    values = (
        "uses 16 of 256 grey levels (values 3 to 4091, as of 12-bit data in a 16-bit file), and so does 1 other image"
    )
    assert finding.what == f"{values}; --pixel-range 3 4091 shows them"


def test_decode_images__enough_grey_levels(painted):
    full = np.linspace(0, 65535, 8000).astype(np.uint16).reshape(80, 100)
    assert decode(painted({"a.png": full, "b.png": noise(3)})).findings == []


def test_decode_images__only_the_first_frame_is_read(painted, tmp_path):
    first, second = (Image.fromarray(noise(seed)) for seed in (1, 2))
    first.save(tmp_path / "a.tif", save_all=True, append_images=[second])
    (finding,) = decode(painted({"a.tif": None})).findings
    assert (finding.kind, finding.what) == ("several-frames", "has 2 pages or frames")


def test_check_other_files__what_lies_beside_the_images(painted, tmp_path):
    data = painted({"a.png": noise(1)})
    assert check_other_files(data) == []
    for name in ("drawing.svg", "a.txt", "._a.png"):
        (tmp_path / name).touch()
    (finding,) = check_other_files(data)
    assert (finding.kind, finding.what) == ("other-files", "not images by their names: ._a.png, drawing.svg")


@pytest.mark.parametrize(
    ("stated_hw", "boxes", "orientation", "expected"),
    [
        ((80, 100), [[5, 5, 95, 75]], 6, True),
        ((100, 80), [[5, 5, 75, 95]], 6, False),  # of the upright image
        ((80, 100), [[5, 5, 75, 95]], 6, False),  # they fit the upright image only
        ((80, 100), [[5, 5, 95, 75]], 1, False),
        ((80, 80), [[5, 5, 75, 75]], 6, False),  # square
        ((80, 100), [], 8, True),
    ],
)
def test_is_of_stored_image(annotated_of, stated_hw, boxes, orientation, expected):
    stored_hw = (80, 80) if stated_hw == (80, 80) else (80, 100)
    size_hw = stored_hw[::-1] if orientation in (6, 8) else stored_hw
    header = ImageHeader(size_hw, orientation)
    assert is_of_stored_image(annotated_of(1, boxes, size_hw=stated_hw), header) == expected
