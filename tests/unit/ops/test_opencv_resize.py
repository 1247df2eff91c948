import pytest
import torch
from torch.nn import functional as F

from fasterrcnn.ops.opencv_resize import resize_bilinear


def levels(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(0)).byte()


SIZES = [((48, 64), (80, 107)), ((100, 150), (50, 75)), ((33, 50), (16, 24)), ((1, 5), (3, 9)), ((5, 1), (2, 7))]


@pytest.mark.parametrize(("size_hw", "to_hw"), SIZES)
def test_resize__within_a_level_of_exact_arithmetic(size_hw, to_hw):
    pixels = levels(*size_hw)
    exact = F.interpolate(pixels[None].double(), size=to_hw, mode="bilinear", align_corners=False)[0]
    assert float((resize_bilinear(pixels, to_hw).double() - exact).abs().max()) <= 1.0


@pytest.mark.parametrize(("size_hw", "to_hw"), SIZES)
def test_resize__the_bytes_of_opencv(size_hw, to_hw):
    cv2 = pytest.importorskip("cv2")
    pixels = levels(*size_hw)
    expected = cv2.resize(pixels.permute(1, 2, 0).numpy(), to_hw[::-1], interpolation=cv2.INTER_LINEAR)
    assert torch.equal(resize_bilinear(pixels, to_hw), torch.from_numpy(expected).permute(2, 0, 1))


def test_resize__by_hand():
    row = torch.tensor([[[0, 100]]], dtype=torch.uint8)  # places -0.25, 0.25, 0.75, 1.25
    assert resize_bilinear(row, (1, 4)).tolist() == [[[0, 25, 75, 100]]]
    assert resize_bilinear(row, (1, 1)).tolist() == [[[50]]]
    # An outer row has itself for both neighbours, and what is cut off twice is a level: not asked here.
    assert resize_bilinear(row.mT.contiguous(), (4, 1)).flatten().tolist()[1:3] == [25, 75]


def test_resize__reads_four_pixels_however_much_it_shrinks():
    """A white dot between the places that are read is not seen; Pillow would average it in."""
    pixels = torch.zeros(1, 1, 40, dtype=torch.uint8)
    pixels[0, 0, 12] = 255
    assert not resize_bilinear(pixels, (1, 4)).any()
