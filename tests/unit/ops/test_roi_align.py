import math

import pytest
import torch
import torchvision
from torch.testing import assert_close

from fasterrcnn.ops.roi_align import roi_align

OPTIONS = {"output_size": 2, "spatial_scale": 1.0, "sampling_ratio": 2, "aligned": True}


def ramp(axis: int) -> torch.Tensor:
    """A map of 2 x 1 x 16 x 20 whose cells hold their own row (axis 0) or column (axis 1)."""
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(20.0), indexing="ij")
    return (rows, columns)[axis].expand(2, 1, 16, 20).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("sampling_ratio", [0, 1, 2, 3])
def test_roi_align__constant_map(aligned, sampling_ratio):
    rois = torch.tensor([[0.0, 1.0, 1.0, 9.0, 5.0], [1.0, 0.0, 0.0, 20.0, 16.0], [1.0, 3.0, 3.0, 3.5, 3.5]])
    options = OPTIONS | {"aligned": aligned, "sampling_ratio": sampling_ratio}
    assert_close(roi_align(torch.full((2, 3, 16, 20), 7.0), rois, **options), torch.full((3, 3, 2, 2), 7.0))


def test_roi_align__ramp_gives_bin_centres():
    # Bins of 4 x 2 pixels; their centres lie at x = 4, 8 and y = 4, 6. Column i of the map has its centre at i + 0.5.
    rois = torch.tensor([[0.0, 2.0, 3.0, 10.0, 7.0]])
    assert_close(roi_align(ramp(1), rois, **OPTIONS)[0, 0], torch.tensor([[3.5, 7.5], [3.5, 7.5]]))
    assert_close(roi_align(ramp(0), rois, **OPTIONS)[0, 0], torch.tensor([[3.5, 3.5], [5.5, 5.5]]))


def test_roi_align__not_aligned_is_half_a_cell_off():
    rois = torch.tensor([[0.0, 2.0, 3.0, 10.0, 7.0]])
    options = OPTIONS | {"aligned": False}
    assert_close(roi_align(ramp(1), rois, **options)[0, 0], torch.tensor([[4.0, 8.0], [4.0, 8.0]]))


def test_roi_align__spatial_scale():
    # The same region on a map of stride 8.
    rois = torch.tensor([[1.0, 16.0, 24.0, 80.0, 56.0]])
    options = OPTIONS | {"spatial_scale": 1 / 8}
    assert_close(roi_align(ramp(1), rois, **options)[0, 0], torch.tensor([[3.5, 7.5], [3.5, 7.5]]))


def test_roi_align__takes_the_right_image():
    features = torch.stack([torch.full((2, 8, 8), 1.0), torch.full((2, 8, 8), 2.0), torch.full((2, 8, 8), 3.0)])
    rois = torch.tensor([[2.0, 1.0, 1.0, 5.0, 5.0], [0.0, 1.0, 1.0, 5.0, 5.0], [1.0, 1.0, 1.0, 5.0, 5.0]])
    assert_close(roi_align(features, rois, **OPTIONS)[:, 0, 0, 0], torch.tensor([3.0, 1.0, 2.0]))


@pytest.mark.parametrize("channels", [1, 5])
def test_roi_align__no_regions(channels):
    features = torch.ones(2, channels, 4, 4, requires_grad=True)
    pooled = roi_align(features, torch.zeros(0, 5), **OPTIONS)
    assert pooled.shape == (0, channels, 2, 2)
    pooled.sum().backward()
    assert_close(features.grad, torch.zeros_like(features))


def test_roi_align__gradient_of_the_sum_is_one_a_bin():
    # All samples lie inside, so their weights add up to 1 in each bin and channel.
    features = torch.zeros(1, 3, 16, 20, requires_grad=True)
    rois = torch.tensor([[0.0, 2.0, 3.0, 10.0, 7.0], [0.0, 5.0, 3.0, 12.0, 14.0]])
    roi_align(features, rois, **OPTIONS).sum().backward()
    assert_close(features.grad.sum(), torch.tensor(2 * 3 * 4.0))


def test_roi_align__outside_the_map_is_zero():
    rois = torch.tensor([[0.0, 100.0, 100.0, 120.0, 120.0], [0.0, -90.0, -90.0, -40.0, -40.0]])
    assert_close(roi_align(torch.ones(1, 1, 16, 20), rois, **OPTIONS), torch.zeros(2, 1, 2, 2))


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf, 1e30])
@pytest.mark.parametrize("place", [1, 2, 3, 4])
def test_roi_align__poisoned_region_harms_no_other(poison, place):
    good = torch.tensor([[0.0, 2.0, 3.0, 10.0, 7.0]])
    bad = good.clone()
    bad[0, place] = poison
    pooled = roi_align(ramp(1), torch.cat([bad, good]), **OPTIONS)
    assert_close(pooled[1:], roi_align(ramp(1), good, **OPTIONS))


def test_roi_align__half_precision():
    rois = torch.tensor([[0.0, 2.0, 3.0, 10.0, 7.0]])
    pooled = roi_align(ramp(1).bfloat16(), rois, **OPTIONS)
    assert pooled.dtype == torch.bfloat16
    assert_close(pooled.float()[0, 0], torch.tensor([[3.5, 7.5], [3.5, 7.5]]), rtol=0.02, atol=0.02)


def test_roi_align__deterministic_on_a_gpu(monkeypatch):
    """Torchvision's kernel is not taken, and all tensors are on the device ("meta" computes nothing)."""
    monkeypatch.setattr(torchvision.ops, "roi_align", None)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    features = torch.zeros(1, 3, 16, 20, device="meta", requires_grad=True)
    pooled = roi_align(features, torch.zeros(5, 5, device="meta"), **OPTIONS)
    assert (pooled.device.type, pooled.shape) == ("meta", (5, 3, 2, 2))
    pooled.sum().backward()
    assert features.grad.shape == features.shape


def test_roi_align__on_a_gpu_it_is_torchvisions(monkeypatch):
    monkeypatch.setattr(torchvision.ops, "roi_align", lambda features, *_: features.new_ones(5, 3, 2, 2))
    pooled = roi_align(torch.zeros(1, 3, 16, 20, device="meta"), torch.zeros(5, 5, device="meta"), **OPTIONS)
    assert pooled.shape == (5, 3, 2, 2)
