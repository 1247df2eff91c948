import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torch.testing import assert_close

from fasterrcnn.ops.image import make_batch, pad_to, resize_as_opencv, to_input


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


PIXELS = torch.randint(0, 256, (3, 60, 91), generator=torch.Generator().manual_seed(1)).byte()


def test_to_input__pillows_bytes():
    image = Image.fromarray(PIXELS.permute(1, 2, 0).numpy())
    expected = np.asarray(image.resize((36, 24), Image.Resampling.BILINEAR))
    found = to_input(PIXELS, (24, 36), antialias=False, method="pillow")
    assert torch.equal((found * 255).round().byte(), torch.from_numpy(expected.copy()).permute(2, 0, 1))
    assert float(found.max()) <= 1


def test_to_input__opencvs_bytes():
    found = to_input(PIXELS, (24, 36), antialias=False, method="opencv")
    assert torch.equal((found * 255).round().byte(), resize_as_opencv(PIXELS, (24, 36)))


@pytest.mark.parametrize("resize", ["torch", "pillow", "opencv"])
def test_to_input__same_size_and_floats(resize):
    assert torch.equal(to_input(PIXELS, (60, 91), antialias=False, method=resize), PIXELS.float() / 255)
    floats = to_input(PIXELS.float() / 255, (24, 36), antialias=False, method=resize)
    assert floats.shape == (3, 24, 36)
    assert floats.dtype == torch.float32


def levels(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(0)).byte()


SIZES = [((48, 64), (80, 107)), ((100, 150), (50, 75)), ((33, 50), (16, 24)), ((1, 5), (3, 9)), ((5, 1), (2, 7))]


@pytest.mark.parametrize(("size_hw", "to_hw"), SIZES)
def test_resize__within_a_level_of_exact_arithmetic(size_hw, to_hw):
    pixels = levels(*size_hw)
    exact = F.interpolate(pixels[None].double(), size=to_hw, mode="bilinear", align_corners=False)[0]
    assert float((resize_as_opencv(pixels, to_hw).double() - exact).abs().max()) <= 1.0


@pytest.mark.parametrize(("size_hw", "to_hw"), SIZES)
def test_resize__the_bytes_of_opencv(size_hw, to_hw):
    cv2 = pytest.importorskip("cv2")
    pixels = levels(*size_hw)
    expected = cv2.resize(pixels.permute(1, 2, 0).numpy(), to_hw[::-1], interpolation=cv2.INTER_LINEAR)
    assert torch.equal(resize_as_opencv(pixels, to_hw), torch.from_numpy(expected).permute(2, 0, 1))


def test_resize__by_hand():
    row = torch.tensor([[[0, 100]]], dtype=torch.uint8)  # places -0.25, 0.25, 0.75, 1.25
    assert resize_as_opencv(row, (1, 4)).tolist() == [[[0, 25, 75, 100]]]
    assert resize_as_opencv(row, (1, 1)).tolist() == [[[50]]]
    # An outer row has itself for both neighbours, and what is cut off twice is a level: not asked here.
    assert resize_as_opencv(row.mT.contiguous(), (4, 1)).flatten().tolist()[1:3] == [25, 75]


def test_resize__reads_four_pixels_however_much_it_shrinks():
    """A white dot between the places that are read is not seen; Pillow would average it in."""
    pixels = torch.zeros(1, 1, 40, dtype=torch.uint8)
    pixels[0, 0, 12] = 255
    assert not resize_as_opencv(pixels, (1, 4)).any()
