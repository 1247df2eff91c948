import pytest

from fasterrcnn.errors import UsageError
from fasterrcnn.model.backbones.timm_backbone import TimmBackbone


@pytest.mark.parametrize("name", ["resnet18", "regnety_002", "tf_efficientnet_lite0"])
def test_stages__the_first_is_a_small_part(name):
    body = TimmBackbone(name, (8, 16, 32))
    counts = [sum(p.numel() for p in stage.parameters()) for stage in body.stages()]
    assert len(counts) >= 5
    assert counts[0] < 0.05 * sum(counts)
    assert sum(counts) == sum(p.numel() for p in body.parameters())


def test_timm_backbone__transformers_are_refused():
    with pytest.raises(UsageError, match="swin_tiny_patch4_window7_224"):
        TimmBackbone("swin_tiny_patch4_window7_224", (8, 16, 32))
