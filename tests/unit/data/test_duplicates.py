"""Copies that are recognised, and images that only resemble each other."""

import io
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance

from fasterrcnn.data.annotations import AnnotatedImage
from fasterrcnn.data.duplicates import (
    Fingerprint,
    connected_groups,
    differ_clearly,
    find_identical,
    find_similar,
    original_name,
    take_fingerprint,
)
from fasterrcnn.images import read_image

SIZE_HW = (300, 400)


def similar(*images) -> list[tuple[int, int]]:
    return find_similar([take_fingerprint(image) for image in images])


def compress(image, quality):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def resize(image, factor):
    return image.resize((round(image.width * factor), round(image.height * factor)))


def cut(image, share):
    """Without a margin of half that share on each side."""
    x, y = image.width * share / 2, image.height * share / 2
    return image.crop((round(x), round(y), round(image.width - x), round(image.height - y)))


def with_rectangle(image, left, top, colour=(240, 200, 20), side=0.15):
    copy = image.copy()
    x, y = left * copy.width, top * copy.height
    ImageDraw.Draw(copy).rectangle((x, y, x + side * copy.width, y + side * copy.height), fill=colour)
    return copy


def stripes(period: int) -> Image.Image:
    row = (np.arange(256) // period % 2 * 255).astype(np.uint8)
    return Image.fromarray(np.tile(row[None, :, None], (256, 1, 3)))


def test_take_fingerprint__by_hand():
    # Brighter to the right in every row: all 64 bits; darker: none.
    ramp = Image.linear_gradient("L").rotate(90).convert("RGB")
    first, second = sorted((take_fingerprint(p).gradients for p in (ramp, ramp.rotate(180))), reverse=True)
    assert (first, second) == (2**64 - 1, 0)
    thumbnail = take_fingerprint(Image.new("RGB", (7, 5), (255, 255, 255))).thumbnail
    assert (thumbnail.shape, thumbnail.dtype) == ((32, 32), np.float32)
    assert (thumbnail == 255).all()


def test_take_fingerprint__one_pixel():
    assert take_fingerprint(Image.new("RGB", (1, 1))).gradients == 0


def test_find_identical__pixels_and_size(photo):
    image = photo(SIZE_HW)
    other = image.copy()
    other.putpixel((5, 5), (0, 0, 0))
    wide, high = Image.new("RGB", (6, 2)), Image.new("RGB", (2, 6))  # the same bytes
    prints = [take_fingerprint(p) for p in (image, wide, other, image.copy(), high, wide.copy(), image)]
    assert find_identical(prints) == [[0, 3, 6], [1, 5]]
    assert find_identical([]) == find_identical(prints[:1]) == []


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "change",
    [
        lambda p: compress(p, 30),
        lambda p: compress(p, 60),
        lambda p: compress(p, 95),
        lambda p: resize(p, 0.5),
        lambda p: resize(p, 0.77),
        lambda p: resize(p, 2),
        lambda p: ImageEnhance.Brightness(p).enhance(0.85),
        lambda p: ImageEnhance.Brightness(p).enhance(1.1),
        lambda p: ImageEnhance.Contrast(p).enhance(0.9),
        lambda p: cut(p, 0.01),
        lambda p: cut(p, 0.02),
        lambda p: compress(resize(p, 0.7), 60),
    ],
)
def test_find_similar__copies(photo, change, seed):
    image = photo(SIZE_HW, seed)
    assert similar(image, change(image)) == [(0, 1)]


def test_find_similar__pairs_of_the_first_of_identical_ones(photo):
    image, other = photo(SIZE_HW), photo(SIZE_HW, 1)
    images = [other, image, compress(image, 60), image.copy(), resize(image, 0.5)]
    assert similar(*images) == [(1, 2), (1, 4), (2, 4)]
    assert similar(image, image) == []


def test_find_similar__nothing_and_one(photo):
    assert find_similar([]) == []
    assert similar(photo(SIZE_HW)) == []


def test_find_similar__flat_colours():
    colours = [(0, 0, 0), (128, 128, 128), (130, 128, 128), (255, 255, 255), (200, 30, 30)]
    assert similar(*(Image.new("RGB", (60, 40), colour) for colour in colours)) == []


def test_find_similar__nearly_flat_colours():
    noise = np.random.default_rng(0).integers(100, 104, (3, 90, 120, 3), dtype=np.uint8)
    assert similar(*map(Image.fromarray, noise)) == []


@pytest.mark.parametrize("shape", [(24, 32, 3), (300, 400, 3)])
def test_find_similar__noise(shape):
    noise = np.random.default_rng(0).integers(0, 256, (20, *shape), dtype=np.uint8)
    assert similar(*map(Image.fromarray, noise)) == []


@pytest.mark.parametrize("ground", ["photo", "flat", "ramp", "stripes"])
def test_find_similar__one_rectangle_elsewhere(photo, ground):
    grounds = {
        "photo": photo(SIZE_HW),
        "flat": Image.new("RGB", (400, 300), (90, 120, 90)),
        "ramp": Image.linear_gradient("L").resize((400, 300)).convert("RGB"),
        "stripes": stripes(32),
    }
    image = grounds[ground]
    places = [(0.1, 0.1), (0.7, 0.1), (0.1, 0.7), (0.5, 0.5)]
    assert similar(image, *(with_rectangle(image, x, y) for x, y in places)) == []


def test_find_similar__faint_object_on_a_faint_ground():
    ground = np.tile(np.linspace(100, 130, 400).astype(np.uint8)[None, :, None], (300, 1, 3))
    images = []
    for left in (20, 200):
        pixels = ground.copy()
        pixels[100:200, left : left + 80] += 5
        images.append(Image.fromarray(pixels))
    assert similar(*images) == []
    assert similar(images[0], resize(images[0], 0.5)) == [(0, 1)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("side", [0.08, 0.15, 0.3])
def test_find_similar__object_moved_by_a_tenth(photo, seed, side):
    image = photo(SIZE_HW, seed)
    frames = [with_rectangle(image, 0.3 + 0.1 * step, 0.4, side=side) for step in range(3)]
    assert similar(*frames) == []


def test_find_similar__the_same_hash_is_not_enough():
    assert take_fingerprint(stripes(64)).gradients == take_fingerprint(with_rectangle(stripes(64), 0.3, 0.3)).gradients
    assert similar(stripes(64), with_rectangle(stripes(64), 0.3, 0.3)) == []


def test_find_similar__order_does_not_matter(photo):
    images = [photo(SIZE_HW, seed) for seed in range(6)]
    images += [cut(compress(image, 50), 0.01) for image in images]
    expected = [(index, index + 6) for index in range(6)]
    assert similar(*images) == expected
    assert similar(*images[::-1]) == sorted((11 - j, 11 - i) for i, j in expected)


def test_find_similar__many_images():
    count = 6000
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**63, count, dtype=np.uint64)
    thumbnails = random.uniform(0, 255, (count, 32, 32)).astype(np.float32)
    thumbnails[-1], hashes[-1] = thumbnails[0] * 0.5 + 3, hashes[0] ^ np.uint64(0b1011)
    prints = [Fingerprint(bytes([i % 256, i // 256]), int(hashes[i]), thumbnails[i]) for i in range(count)]
    start = time.process_time()
    assert find_similar(prints) == [(0, count - 1)]
    assert time.process_time() - start < 30


def test_find_similar__road_signs(shared_data):
    paths = sorted((shared_data / "road_signs" / "JPEGImages").glob("road[1-4]?.jpg"))
    paths += [shared_data / "road_signs" / "JPEGImages" / f"road{number}.jpg" for number in (145, 146, 147)]
    names = [path.stem for path in paths]
    prints = [take_fingerprint(read_image(path)) for path in paths]
    assert [[names[i] for i in group] for group in find_identical(prints)] == [
        ["road42", "road48"],
        ["road145", "road147"],
    ]
    # road33 and road34 are one traffic light, once red and once green.
    assert find_similar(prints) == []


def test_find_similar__blood_cells(shared_data):
    paths = sorted((shared_data / "bccd" / "BCCD" / "JPEGImages").glob("BloodImage_000[0-9][0-9].jpg"))
    prints = [take_fingerprint(read_image(path)) for path in paths]
    # The same cells, refocused.
    assert [(paths[i].stem, paths[j].stem) for i, j in find_similar(prints)] == [
        ("BloodImage_00037", "BloodImage_00038")
    ]


def with_objects(boxes, labels, size_hw=(100, 200)) -> AnnotatedImage:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return AnnotatedImage(Path("a"), 1, size_hw, array, np.array(labels, np.int64), np.zeros(len(array), np.bool_))


KING, QUEEN = [20, 10, 40, 50], [120, 10, 140, 50]


@pytest.mark.parametrize(
    ("boxes", "labels", "differ"),
    [
        ([KING, QUEEN], [0, 1], False),
        ([QUEEN, KING], [1, 0], False),  # in another order
        ([KING], [0], False),  # one was not annotated
        ([], [], False),
        ([KING, KING], [0, 1], True),  # the queen stands elsewhere
        ([KING, QUEEN], [0, 2], True),  # another piece stands there
        ([KING, [124, 12, 144, 52]], [0, 1], False),  # drawn less exactly
        ([KING, [np.nan, 10, 140, 50]], [0, 1], True),
    ],
)
def test_differ_clearly(boxes, labels, differ):
    board, other = with_objects([KING, QUEEN], [0, 1]), with_objects(boxes, labels)
    assert differ_clearly(board, other) == differ_clearly(other, board) == differ
    half = with_objects(np.array(boxes).reshape(-1, 4) / 2, labels, (50, 100))
    assert differ_clearly(board, half) == differ


@pytest.mark.parametrize(
    ("name", "original"),
    [
        ("dog_jpg.rf.0123456789abcdef0123456789abcdef.jpg", "dog_jpg"),
        ("a.b.rf.AbCdEfGh12.png", "a.b"),
        ("dog.jpg", None),
        ("dog.rf.jpg", None),
        (".rf.0123456789abcdef.jpg", None),
    ],
)
def test_original_name(name, original):
    assert original_name(Path("train") / name) == original


def test_groups_of__by_hand():
    assert connected_groups(7, [(5, 1), (3, 2), (2, 6)]) == [[0], [1, 5], [2, 3, 6], [4]]
    assert connected_groups(5, [(4, 3), (2, 3), (2, 0)]) == [[0, 2, 3, 4], [1]]
    assert connected_groups(4, [[0, 2, 3], [1]]) == [[0, 2, 3], [1]]
    assert connected_groups(3, []) == [[0], [1], [2]]
    assert connected_groups(0, []) == []
    assert connected_groups(2, [(0, 0), ()]) == [[0], [1]]


@given(st.integers(1, 12), st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=12))
def test_groups_of__are_the_connected_components(count, links):
    links = [(i % count, j % count) for i, j in links]
    reached = np.eye(count, dtype=bool)
    for i, j in links:
        reached[i, j] = reached[j, i] = True
    reached = np.linalg.matrix_power(reached.astype(int), count) > 0
    groups = connected_groups(count, links)
    assert sorted(i for group in groups for i in group) == list(range(count))
    assert groups == sorted(sorted(group) for group in groups)
    for group in groups:
        assert np.flatnonzero(reached[group[0]]).tolist() == group
