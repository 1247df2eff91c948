import math
from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

from fasterrcnn.config import InputConfig
from fasterrcnn.errors import UsageError
from fasterrcnn.inference.tiling import Tile, TilingOptions, crop_tile, cut_sides, to_image_coordinates
from fasterrcnn.structures import RawDetections

INPUT = InputConfig(short_side=60, long_side=100)


def raw_detections(boxes) -> RawDetections:
    xyxy = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    return RawDetections(xyxy, torch.linspace(0.9, 0.1, len(xyxy)), torch.zeros(len(xyxy), dtype=torch.int64))


def test_tiles__whole_image_alone():
    assert TilingOptions().tiles((120, 90), INPUT) == [Tile((0, 0, 90, 120), (80, 60))]
    assert TilingOptions(tile=120).tiles((120, 90), INPUT) == TilingOptions().tiles((120, 90), INPUT)


@pytest.mark.parametrize("image_hw", [(300, 400), (1, 4000), (4000, 1), (101, 100), (100, 350), (777, 333)])
@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5, 0.9])
def test_tiles__cover_the_image_and_overlap(image_hw, overlap):
    whole, *tiles = TilingOptions(tile=100, overlap=overlap).tiles(image_hw, INPUT)
    assert whole.whole
    assert not any(tile.whole for tile in tiles)
    height, width = image_hw
    assert {tile.hw for tile in tiles} == {(min(100, height), min(100, width))}
    for axis, side in ((0, width), (1, height)):
        starts = sorted({tile.region[axis] for tile in tiles})
        assert starts[0] == 0
        assert starts[-1] + min(100, side) == side
        steps = [b - a for a, b in pairwise(starts)]
        assert all(step <= math.floor(100 * (1 - overlap) + 1e-9) for step in steps)


def test_tiles__scale_of_the_training_images():
    input_config = INPUT.model_copy(update={"scale": 0.7})
    assert {tile.input_hw for tile in TilingOptions(tile=100).tiles((300, 400), input_config)[1:]} == {(70, 70)}
    # 0.2 would leave 20 pixels of a tile: less than half of 60.
    coarse = INPUT.model_copy(update={"scale": 0.2})
    for input_config in (INPUT, coarse):
        assert {tile.input_hw for tile in TilingOptions(tile=100).tiles((300, 400), input_config)[1:]} == {
            (80, 80)
        }  # 60 : 75


def test_tiles__capacity():
    input_config = INPUT.model_copy(update={"scale": 1.0})
    tiles = TilingOptions(tile=200).tiles((400, 400), input_config)
    assert tiles[0].capacity == 1
    assert {tile.capacity for tile in tiles[1:]} == {math.ceil(200 * 200 / (60 * 80))}


def test_tiles__augmented_versions_follow_each_other():
    tiling = TilingOptions(tile=100, mirror=True, scales=(0.5,))
    tiles = tiling.tiles((300, 400), INPUT)
    assert tiling.passes_per_region == 4
    regions = [tile.region for tile in tiles]
    assert [regions[i] for i in range(0, len(tiles), 4)] == list(dict.fromkeys(regions))
    assert [(tile.mirrored, tile.input_hw) for tile in tiles[4:8]] == [
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
def test_tiling_options__invalid(options, message):
    with pytest.raises(UsageError, match=message):
        TilingOptions(**options)


def test_crop_tile__mirrored_and_resized():
    pixels = torch.arange(48, dtype=torch.uint8).view(1, 6, 8).expand(3, 6, 8)
    crop = crop_tile(pixels, Tile((2, 1, 6, 4), (3, 4), mirrored=True), InputConfig())
    assert_close(crop, pixels[:, 1:4, 2:6].flip(-1).float() / 255)
    assert crop_tile(pixels, Tile((0, 0, 8, 6), (3, 4)), InputConfig(antialias=True)).shape == (3, 3, 4)


def test_to_image_coordinates__mirrored_tile_at_half_size():
    tile = Tile((100, 50, 180, 110), (30, 40), mirrored=True, whole=False)
    in_image = to_image_coordinates(raw_detections([[0, 0, 10, 30]]), tile)
    # mirrored in 40 pixels: 30..40; twice as large: 60..80; moved by (100, 50)
    assert_close(in_image.boxes, torch.tensor([[160.0, 50, 180, 110]]))
    assert to_image_coordinates(raw_detections([]), tile).boxes.shape == (0, 4)


def test_cut_sides__inner_edges_only():
    boxes = raw_detections([[100, 60, 150, 90], [120, 50, 199, 100], [130, 70, 140, 149.5]]).boxes
    tile = Tile((100, 50, 200, 150), (60, 60), whole=False)
    inner = cut_sides(boxes, tile, (300, 400))
    assert inner.tolist() == [[True, False, False, False], [False, True, True, False], [False, False, False, True]]
    at_the_border = Tile((100, 50, 200, 150), (60, 60), whole=False)
    assert cut_sides(boxes, at_the_border, (150, 200)).tolist() == [
        [True, False, False, False],
        [False, True, False, False],
        [False, False, False, False],
    ]
    assert cut_sides(boxes[:0], tile, (300, 400)).shape == (0, 4)
