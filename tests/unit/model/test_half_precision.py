import pytest
import torch
from torch.testing import assert_close

from fasterrcnn.model.roi_pooling import RoIPooling
from fasterrcnn.ops.roi_align import roi_align

ROIS = torch.tensor([[0.0, 301.3, 10.0, 517.2, 90.0]])


@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_roi_align__half_precision_moves_no_region(sampling_ratio):
    # The map counts its columns, in steps that bfloat16 holds: a moved region would show.
    features = torch.arange(128.0).expand(1, 8, 32, 128).contiguous(memory_format=torch.channels_last)
    options = {"output_size": 2, "spatial_scale": 0.25, "sampling_ratio": sampling_ratio, "aligned": True}
    exact = roi_align(features, ROIS, **options)
    half = roi_align(features.bfloat16(), ROIS, **options)
    assert half.dtype == torch.bfloat16
    assert_close(half.float(), exact, atol=0.5, rtol=0)  # half of bfloat16's step at 128


def test_roi_pool__half_precision():
    features = torch.arange(128.0).expand(1, 4, 32, 128).contiguous()
    pooling = RoIPooling(2, (4,), method="pool")
    assert_close(pooling([features.bfloat16()], ROIS).float(), pooling([features], ROIS), atol=0.5, rtol=0)


def test_roi_pooling__strides_that_skip_a_level():
    with pytest.raises(ValueError, match="strides double from level to level"):
        RoIPooling(7, (8, 32))
