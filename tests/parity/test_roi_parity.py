"""RoIAlign, RoIPool and the choice of the pyramid level give torchvision's numbers and gradients."""

import math

import pytest
import torch
import torchvision
from torch import Tensor

from fasterrcnn.model.roi_pooling import RoIPooling, as_rois
from fasterrcnn.ops.roi_align import roi_align

MAP_HW = (13, 22)
STRIDE = 8
PIXELS_HW = (MAP_HW[0] * STRIDE, MAP_HW[1] * STRIDE)
STRIDES = (4, 8, 16, 32)
ATOL_FAR = 2e-4
"""Samples 128..256 cells from the origin are known to a few times 2**-16 cells, and values lie ~4 apart."""


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def laid_out(features: Tensor, layout: str) -> Tensor:
    if layout == "channels_last":
        return features.contiguous(memory_format=torch.channels_last)
    return features.contiguous()


def random_rois(count: int, images: int, *, seed: int) -> Tensor:
    """Regions of any shape inside maps of PIXELS_HW, in no order of images."""
    generator = torch.Generator().manual_seed(seed)
    limit = torch.tensor([PIXELS_HW[1], PIXELS_HW[0]])
    ends = torch.rand(count, 2, 2, generator=generator) * limit
    image = torch.randint(images, (count, 1), generator=generator)
    return torch.cat([image, ends.amin(dim=1), ends.amax(dim=1)], dim=1)


def odd_rois() -> Tensor:
    """Regions at, over and beyond the borders of the map, tiny, empty, and of more than the whole map."""
    height, width = PIXELS_HW
    corners = [
        [0, 0, width, height],
        [-50, -40, width + 60, height + 70],
        [-30, -20, 25, 31],  # over the top left corner
        [width - 9, height - 13, width + 40, height + 25],  # over the bottom right corner
        [-200, 10, -120, 60],  # left of the map
        [width + 100, 10, width + 180, 60],  # right of it
        [10, -300, 60, -200],
        [10, height + 90, 60, height + 150],
        [40, 30, 40.5, 30.25],  # tiny
        [40, 30, 40, 30],  # empty
        [60, 50, 55, 40],  # inside out
        [-STRIDE, -STRIDE, 0, 0],  # samples between -1 and 0 cells, which count as cell 0
        # No sample at exactly the far border, where one rounding decides between inside and outside.
        [width - 7, height - 7, width + 9, height + 9],
        [3, 0, 4, height],  # one pixel wide, as high as the map
    ]
    return torch.tensor([[i % 2, *corner] for i, corner in enumerate(corners)], dtype=torch.float32)


def check_roi_align(
    features: Tensor, rois: Tensor, layout: str, sampling_ratio: int, aligned: bool, *, output_size: int = 7
) -> None:
    ours, theirs = (laid_out(features, layout).clone().requires_grad_() for _ in range(2))
    actual = roi_align(
        ours,
        rois,
        output_size=output_size,
        spatial_scale=1 / STRIDE,
        sampling_ratio=sampling_ratio,
        aligned=aligned,
    )
    expected = torchvision.ops.roi_align(theirs, rois, output_size, 1 / STRIDE, sampling_ratio, aligned)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    upstream = normal(*expected.shape, seed=99)
    actual.backward(upstream)
    expected.backward(upstream)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("aligned", [False, True], ids=["original", "aligned"])
@pytest.mark.parametrize("sampling_ratio", [1, 2, 3])
@pytest.mark.parametrize("which", ["inside", "odd"])
def test_roi_align(layout: str, aligned: bool, sampling_ratio: int, which: str) -> None:
    rois = random_rois(40, 3, seed=0) if which == "inside" else odd_rois()
    check_roi_align(normal(3, 5, *MAP_HW, seed=1), rois, layout, sampling_ratio, aligned)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_roi_align__no_regions(layout: str) -> None:
    check_roi_align(normal(2, 5, *MAP_HW, seed=2), torch.zeros(0, 5), layout, 2, False)


@pytest.mark.parametrize("map_hw", [(1, 1), (1, 9), (31, 2)])
@pytest.mark.parametrize("aligned", [False, True], ids=["original", "aligned"])
def test_roi_align__narrow_maps(map_hw: tuple[int, int], aligned: bool) -> None:
    rois = torch.cat([random_rois(30, 2, seed=3), odd_rois()])
    check_roi_align(normal(2, 4, *map_hw, seed=4), rois, "channels_last", 2, aligned)


@pytest.mark.parametrize("output_size", [1, 2, 14])
def test_roi_align__other_output_sizes(output_size: int) -> None:
    rois = random_rois(20, 2, seed=5)
    check_roi_align(normal(2, 3, *MAP_HW, seed=6), rois, "channels_last", 2, True, output_size=output_size)


def test_roi_align__adaptive_sampling() -> None:
    check_roi_align(normal(2, 3, *MAP_HW, seed=7), random_rois(20, 2, seed=8), "channels_last", 0, True)


def test_roi_align__view_of_a_larger_map() -> None:
    whole = normal(2, 6, 20, 30, seed=9)
    rois = random_rois(20, 2, seed=10)
    part = whole[:, 1:5, 2:15, 3:25]
    actual = roi_align(part, rois, output_size=7, spatial_scale=1 / STRIDE, sampling_ratio=2, aligned=False)
    expected = torchvision.ops.roi_align(part.contiguous(), rois, 7, 1 / STRIDE, 2, False)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


# ---- over the levels of a pyramid


def pyramid(image_hw: tuple[int, int], images: int, levels: int) -> dict[str, Tensor]:
    sizes = [(image_hw[0] // stride, image_hw[1] // stride) for stride in STRIDES[:levels]]
    return {str(i): normal(images, 4, *size, seed=20 + i) for i, size in enumerate(sizes)}


def regions_of_all_levels(image_hw: tuple[int, int]) -> Tensor:
    """From a pixel to the whole image, and squares whose sides are exactly at the borders between levels."""
    generator = torch.Generator().manual_seed(30)
    ends = torch.rand(100, 2, 2, generator=generator) * torch.tensor([image_hw[1], image_hw[0]])
    ends = torch.cat([ends.amin(dim=1), ends.amax(dim=1)], dim=1)
    ends[:40, 2:] = ends[:40, :2] + (ends[:40, 2:] - ends[:40, :2]) / 8
    sides = [1, 55.99, 56, 111.999, 112, 223.99, 224, 447.9, 448, 500]
    squares = torch.tensor([[2.0, 3.0, 2.0 + side, 3.0 + side] for side in sides])
    squares = torch.cat([squares, torch.tensor([[0.0, 0.0, 111.99995, 111.99995]])])  # within 1e-6 octaves
    empty = torch.tensor([[5.0, 5.0, 5.0, 5.0], [9.0, 4.0, 9.0, 80.0]])
    return torch.cat([squares, ends, empty])


def test_roi_pooling__levels() -> None:
    regions = regions_of_all_levels((512, 768))
    finest, coarsest = (int(math.log2(stride)) for stride in (STRIDES[0], STRIDES[-1]))
    expected = torchvision.ops.poolers.LevelMapper(finest, coarsest)([regions])
    assert len(expected.unique()) == len(STRIDES)
    torch.testing.assert_close(RoIPooling(7, STRIDES).levels(as_rois([regions])), expected)


@pytest.mark.parametrize("levels", [1, 2, 4])
def test_roi_pooling__as_multi_scale_roi_align(levels: int) -> None:
    image_hw = (512, 768)
    maps = pyramid(image_hw, 2, levels)
    regions = regions_of_all_levels(image_hw)
    parts = [regions[::3], torch.cat([regions[1::3], regions[2::3]])]
    pooler = torchvision.ops.MultiScaleRoIAlign(list(maps), 7, 2)
    expected = pooler(maps, parts, [image_hw, image_hw])
    extra = torch.zeros(2, 4, 8, 12)  # P6, from which no region is taken
    actual = RoIPooling(7, STRIDES[:levels])([*maps.values(), extra], as_rois(parts))
    torch.testing.assert_close(actual, expected, rtol=0, atol=ATOL_FAR)


def test_roi_pooling__two_maps_of_one_stride() -> None:
    maps = [normal(1, 4, 8, 12, seed=40), normal(1, 4, 8, 12, seed=41)]
    regions = regions_of_all_levels((256, 384))
    pooler = torchvision.ops.MultiScaleRoIAlign(["0", "1"], 7, 2)
    expected = pooler({"0": maps[0], "1": maps[1]}, [regions], [(256, 384)])
    actual = RoIPooling(7, (32, 32))(maps, as_rois([regions]))
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_roi_pooling__an_image_without_regions() -> None:
    maps = pyramid((256, 256), 3, 4)
    parts = [torch.zeros(0, 4), torch.tensor([[10.0, 10.0, 90.0, 70.0]]), torch.zeros(0, 4)]
    expected = torchvision.ops.MultiScaleRoIAlign(list(maps), 7, 2)(maps, parts, [(256, 256)] * 3)
    actual = RoIPooling(7, STRIDES)(list(maps.values()), as_rois(parts))
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [0, 25])
def test_roi_pooling__pool(count: int) -> None:
    features, rois = normal(2, 3, *MAP_HW, seed=50), random_rois(count, 2, seed=51)
    expected = torchvision.ops.RoIPool(7, 1 / STRIDE)(features, rois)
    actual = RoIPooling(7, (STRIDE,), method="pool")([features], rois)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)
