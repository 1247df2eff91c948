import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from fasterrcnn.ops.image import make_batch, pad_to, resized_hw, to_input


@pytest.mark.parametrize(
    ("image_hw", "limits", "expected"),
    [
        ((480, 640), (800, 1333), (800, 1066)),  # the short side decides: 640 * 800 / 480 = 1066.67
        ((640, 480), (800, 1333), (1066, 800)),
        ((100, 1000), (800, 1333), (133, 1333)),  # the long side decides
        ((1000, 100), (800, 1333), (1333, 133)),
        ((64, 64), (64, 128), (64, 64)),
        ((4000, 6000), (320, 544), (320, 480)),
        ((1, 5000), (800, 1333), (1, 1333)),  # no side vanishes
        ((1, 1), (800, 1333), (800, 800)),
    ],
)
def test_resized_hw__rule(image_hw, limits, expected):
    assert resized_hw(image_hw, *limits) == expected


@pytest.mark.parametrize("short_side", [64, 320, 480, 800])
def test_resized_hw__never_beyond_the_limits(short_side):
    for side in range(1, 2000, 7):
        height, width = resized_hw((side, 1000), short_side, 2 * short_side)
        assert min(height, width) <= short_side
        assert max(height, width) <= 2 * short_side


def test_to_input__uint8_and_float_agree():
    pixels = torch.arange(3 * 4 * 5, dtype=torch.uint8).view(3, 4, 5)
    as_bytes = to_input(pixels, (4, 5), antialias=False)
    assert_close(as_bytes, pixels.float() / 255)
    assert_close(to_input(pixels.float() / 255, (8, 10), antialias=True), to_input(pixels, (8, 10), antialias=True))
    assert to_input(torch.full((3, 2, 2), 255, dtype=torch.uint8), (2, 2), antialias=False).max() == 1


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("to_hw", [(3, 7), (9, 5), (40, 30), (1, 1)])
def test_to_input__constant_image_stays_constant(antialias, to_hw):
    resized = to_input(torch.full((3, 13, 17), 51, dtype=torch.uint8), to_hw, antialias=antialias)
    assert_close(resized, torch.full((3, *to_hw), 0.2))


def test_to_input__doubled_by_hand():
    # Bilinear, half-pixel centres: new column centres lie at 0.25, 0.75, 1.25, 1.75 of the old ones.
    row = torch.tensor([0.0, 0.4]).expand(3, 2, 2)
    resized = to_input(row, (2, 4), antialias=False)
    assert_close(resized, torch.tensor([0.0, 0.1, 0.3, 0.4]).expand(3, 2, 4))


def test_to_input__antialias_is_pillows():
    values = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(values).resize((20, 10), Image.Resampling.BILINEAR))
    resized = to_input(torch.from_numpy(values).permute(2, 0, 1), (10, 20), antialias=True)
    assert_close(resized * 255, torch.from_numpy(expected.copy()).permute(2, 0, 1).float(), rtol=0, atol=1.01)


def test_make_batch__pads_with_the_fill():
    first, second = torch.zeros(3, 5, 9), torch.ones(3, 8, 3)
    fill = (0.1, 0.2, 0.3)
    batch = make_batch([first, second], fill=fill, size_divisor=4)
    assert batch.pixels.shape == (2, 3, 8, 12)
    assert batch.sizes_hw == [(5, 9), (8, 3)]
    assert batch.padded_hw == (8, 12)
    assert len(batch) == 2
    expected = torch.tensor(fill).view(1, 3, 1, 1).repeat(2, 1, 8, 12)
    expected[0, :, :5, :9] = 0
    expected[1, :, :8, :3] = 1
    assert_close(batch.pixels, expected)


def test_make_batch__one_image_that_needs_no_padding():
    batch = make_batch([torch.ones(3, 8, 4)], fill=(0.5, 0.5, 0.5), size_divisor=4)
    assert_close(batch.pixels, torch.ones(1, 3, 8, 4))
    assert batch.pixels.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("least_hw", "expected"), [((8, 12), (8, 12)), ((16, 4), (16, 12)), ((1, 1), (8, 12)), ((9, 13), (12, 16))]
)
def test_make_batch__least_size_where_others_share_the_batch(least_hw, expected):
    fill = (0.1, 0.2, 0.3)
    batch = make_batch([torch.zeros(3, 5, 9)], fill=fill, size_divisor=4, padded_hw=least_hw)
    assert batch.padded_hw == expected
    assert batch.sizes_hw == [(5, 9)]
    wanted = torch.tensor(fill).view(1, 3, 1, 1).repeat(1, 1, *expected)
    wanted[0, :, :5, :9] = 0
    assert_close(batch.pixels, wanted, check_stride=False)


def test_make_batch__copies_its_images():
    image = torch.ones(3, 4, 4)
    batch = make_batch([image], fill=(0.0, 0.0, 0.0), size_divisor=4)
    batch.pixels.zero_()
    assert_close(image, torch.ones(3, 4, 4))


@pytest.mark.parametrize(("side", "divisor", "expected"), [(1, 32, 32), (32, 32, 32), (33, 32, 64), (7, 1, 7)])
def test_pad_to(side, divisor, expected):
    assert pad_to(side, divisor) == expected
