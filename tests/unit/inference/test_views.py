import math
from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

from fasterrcnn.config import InputConfig
from fasterrcnn.errors import UsageError
from fasterrcnn.inference.tiling import Looks, View, cut_sides, take, to_image
from fasterrcnn.structures import RawDetections

SIZE = InputConfig(short_side=60, long_side=100)


def found(boxes) -> RawDetections:
    xyxy = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    return RawDetections(xyxy, torch.linspace(0.9, 0.1, len(xyxy)), torch.zeros(len(xyxy), dtype=torch.int64))


def test_looks__whole_image_alone():
    assert Looks()((120, 90), SIZE) == [View((0, 0, 90, 120), (80, 60))]
    assert Looks(tile=120)((120, 90), SIZE) == Looks()((120, 90), SIZE)


@pytest.mark.parametrize("image_hw", [(300, 400), (1, 4000), (4000, 1), (101, 100), (100, 350), (777, 333)])
@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5, 0.9])
def test_looks__tiles_cover_the_image_and_overlap(image_hw, overlap):
    whole, *tiles = Looks(tile=100, overlap=overlap)(image_hw, SIZE)
    assert whole.whole
    assert not any(view.whole for view in tiles)
    height, width = image_hw
    assert {view.hw for view in tiles} == {(min(100, height), min(100, width))}
    for axis, side in ((0, width), (1, height)):
        starts = sorted({view.region[axis] for view in tiles})
        assert starts[0] == 0
        assert starts[-1] + min(100, side) == side
        steps = [b - a for a, b in pairwise(starts)]
        assert all(step <= math.floor(100 * (1 - overlap) + 1e-9) for step in steps)


def test_looks__tiles_have_the_scale_of_the_training_images():
    known = SIZE.model_copy(update={"scale": 0.7})
    assert {view.input_hw for view in Looks(tile=100)((300, 400), known)[1:]} == {(70, 70)}
    # 0.2 would leave 20 pixels of a tile: less than half of 60.
    coarse = SIZE.model_copy(update={"scale": 0.2})
    for size in (SIZE, coarse):
        assert {view.input_hw for view in Looks(tile=100)((300, 400), size)[1:]} == {(80, 80)}  # 60 : 75


def test_looks__crowded_tiles():
    known = SIZE.model_copy(update={"scale": 1.0})
    views = Looks(tile=200)((400, 400), known)
    assert views[0].crowd == 1
    assert {view.crowd for view in views[1:]} == {math.ceil(200 * 200 / (60 * 80))}


def test_looks__augmented_looks_follow_each_other():
    looks = Looks(tile=100, mirror=True, scales=(0.5,))
    views = looks((300, 400), SIZE)
    assert looks.views_of_a_region == 4
    regions = [view.region for view in views]
    assert [regions[i] for i in range(0, len(views), 4)] == list(dict.fromkeys(regions))
    assert [(v.mirrored, v.input_hw) for v in views[4:8]] == [
        (False, (80, 80)),
        (True, (80, 80)),
        (False, (40, 40)),
        (True, (40, 40)),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 0}, "tile must be at least 1 pixel, not 0"),
        ({"overlap": 0.95}, r"overlap must lie in 0\.\.0\.9, not 0\.95"),
        ({"overlap": -0.1}, "overlap must lie in"),
        ({"scales": (0.1,)}, r"a size must lie in 0\.5\.\.4\.0, not 0\.1"),
    ],
)
def test_looks__options_that_cannot_work(options, message):
    with pytest.raises(UsageError, match=message):
        Looks(**options)


def test_take__region_mirrored_and_resized():
    pixels = torch.arange(48, dtype=torch.uint8).view(1, 6, 8).expand(3, 6, 8)
    seen = take(pixels, View((2, 1, 6, 4), (3, 4), mirrored=True), InputConfig())
    assert_close(seen, pixels[:, 1:4, 2:6].flip(-1).float() / 255)
    assert take(pixels, View((0, 0, 8, 6), (3, 4)), InputConfig(antialias=True)).shape == (3, 3, 4)


def test_to_image__mirrored_tile_at_half_size():
    view = View((100, 50, 180, 110), (30, 40), mirrored=True, whole=False)
    seen = to_image(found([[0, 0, 10, 30]]), view)
    # mirrored in 40 pixels: 30..40; twice as large: 60..80; moved by (100, 50)
    assert_close(seen.boxes, torch.tensor([[160.0, 50, 180, 110]]))
    assert to_image(found([]), view).boxes.shape == (0, 4)


def test_cut_sides__inner_edges_only():
    boxes = found([[100, 60, 150, 90], [120, 50, 199, 100], [130, 70, 140, 149.5]]).boxes
    view = View((100, 50, 200, 150), (60, 60), whole=False)
    inner = cut_sides(boxes, view, (300, 400))
    assert inner.tolist() == [[True, False, False, False], [False, True, True, False], [False, False, False, True]]
    at_the_border = View((100, 50, 200, 150), (60, 60), whole=False)
    assert cut_sides(boxes, at_the_border, (150, 200)).tolist() == [
        [True, False, False, False],
        [False, True, False, False],
        [False, False, False, False],
    ]
    assert cut_sides(boxes[:0], view, (300, 400)).shape == (0, 4)
