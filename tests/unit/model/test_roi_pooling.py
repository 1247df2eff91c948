import pytest
import torch
from torch.testing import assert_close

from fasterrcnn.model.roi_pooling import RoIPooling, as_rois

FPN = (4, 8, 16, 32)


def square(side: float, image: int = 0) -> list[float]:
    return [image, 0.0, 0.0, side, side]


def numbered_maps(strides, batch=1, image=256):
    """Constant maps; each is filled with its stride."""
    return [torch.full((batch, 2, image // stride, image // stride), float(stride)) for stride in strides]


def test_levels__by_hand():
    # 224 belongs to stride 16; half of it to 8, twice to 32; the border itself belongs to the coarser map.
    sides = [1, 55, 56, 111, 112, 223, 224, 447, 448, 5000]
    pooling = RoIPooling(7, FPN)
    levels = pooling.levels(torch.tensor([square(side) for side in sides]))
    assert levels.tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3]


def test_levels__area_decides():
    rois = torch.tensor([[0.0, 0.0, 0.0, 448.0, 112.0], [0.0, 10.0, 10.0, 122.0, 122.0]])
    assert RoIPooling(7, FPN).levels(rois).tolist() == [2, 1]


def test_levels__start_at_stride_8():
    rois = torch.tensor([square(50), square(223), square(224), square(600)])
    assert RoIPooling(7, (8, 16, 32)).levels(rois).tolist() == [0, 0, 1, 2]


def test_levels__two_maps_of_one_stride():
    assert RoIPooling(7, (32, 32)).levels(torch.tensor([square(50), square(600)])).tolist() == [0, 0]


def test_levels__region_without_area():
    assert RoIPooling(7, FPN).levels(torch.tensor([square(0)])).tolist() == [0]


@pytest.mark.parametrize("method", ["align", "pool"])
def test_roi_pooling__order_is_kept(method):
    sides = [448, 20, 224, 120, 30, 500]
    rois = torch.tensor([square(side) for side in sides])
    pooled = RoIPooling(2, FPN, method)(numbered_maps(FPN, image=512), rois)
    assert pooled.shape == (6, 2, 2, 2)
    assert pooled.amax(dim=(1, 2, 3)).tolist() == [32, 4, 16, 8, 4, 32]


@pytest.mark.parametrize("method", ["align", "pool"])
@pytest.mark.parametrize("strides", [(16,), FPN])
def test_roi_pooling__no_regions(method, strides):
    pooled = RoIPooling(7, strides, method)(numbered_maps(strides), torch.zeros(0, 5))
    assert pooled.shape == (0, 2, 7, 7)


@pytest.mark.parametrize("strides", [(16,), FPN])
def test_roi_pooling__poisoned_region_harms_no_other(strides):
    rois = torch.tensor([square(20), square(float("nan")), square(500)])
    pooled = RoIPooling(2, strides)(numbered_maps(strides, image=512), rois)
    assert pooled[[0, 2]].amax(dim=(1, 2, 3)).tolist() == [strides[0], strides[-1]]


def test_roi_pooling__one_level_takes_everything():
    rois = torch.tensor([square(8), square(250)])
    assert_close(RoIPooling(2, (16,))(numbered_maps((16,)), rois), torch.full((2, 2, 2, 2), 16.0))


def test_roi_pooling__maps_beyond_the_strides_are_not_used():
    maps = [*numbered_maps((8, 16)), torch.full((1, 2, 4, 4), float("nan"))]
    pooled = RoIPooling(2, (8, 16))(maps, torch.tensor([square(8), square(250)]))
    assert pooled.amax(dim=(1, 2, 3)).tolist() == [8, 16]


def test_roi_pool__four_by_four_map_by_hand():
    # Regions are rounded to whole cells, both ends included; each bin is the maximum of its cells.
    features = torch.arange(16.0).view(1, 1, 4, 4)
    pooling = RoIPooling(2, (1,), "pool")
    whole, part, rounded = pooling([features], torch.tensor([square(3), [0, 1, 1, 2, 2], [0, 0.4, 0.4, 2.6, 2.6]]))
    assert_close(whole[0], torch.tensor([[5.0, 7.0], [13.0, 15.0]]))
    assert_close(part[0], torch.tensor([[5.0, 6.0], [9.0, 10.0]]))
    assert_close(rounded[0], whole[0])


def test_roi_pool__stride():
    features = torch.arange(16.0).view(1, 1, 4, 4)
    pooled = RoIPooling(2, (16,), "pool")([features], torch.tensor([square(48)]))
    assert_close(pooled[0, 0], torch.tensor([[5.0, 7.0], [13.0, 15.0]]))


def test_roi_align__column_ramp():
    features = torch.arange(16.0).view(1, 1, 1, 16).expand(1, 1, 16, 16)
    # Bins of 4 pixels = 2 cells at stride 2; their centres lie at cells 2 and 4, half a cell less when aligned.
    rois = torch.tensor([[0.0, 2.0, 2.0, 10.0, 10.0]])
    aligned = RoIPooling(2, (2,), aligned=True)([features], rois)
    shifted = RoIPooling(2, (2,), aligned=False)([features], rois)
    assert_close(aligned[0, 0, 0], torch.tensor([1.5, 3.5]))
    assert_close(shifted[0, 0, 0], torch.tensor([2.0, 4.0]))


def test_as_rois__numbers_the_images():
    first, second = torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([[5.0, 6.0, 7.0, 8.0]] * 2)
    rois = as_rois([first, torch.zeros(0, 4), second])
    assert_close(rois[:, 0], torch.tensor([0.0, 2.0, 2.0]))
    assert_close(rois[:, 1:], torch.cat([first, second]))


def test_as_rois__empty():
    assert as_rois([torch.zeros(0, 4), torch.zeros(0, 4)]).shape == (0, 5)
