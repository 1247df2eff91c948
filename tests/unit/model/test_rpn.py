import pytest
import torch
from torch.testing import assert_close

from fasterrcnn.model.anchors import AnchorGenerator
from fasterrcnn.model.rpn import RegionProposalNetwork


def marked_rpn(channels: int, per_cell: int) -> RegionProposalNetwork:
    """Copies the features; anchor k of a cell gets logit 100 k + feature, and delta j of it 1000 k + 10 j + feature."""
    rpn = RegionProposalNetwork(channels, per_cell)
    with torch.no_grad():
        rpn.convs[0].weight.zero_()
        rpn.convs[0].weight[torch.arange(channels), torch.arange(channels), 1, 1] = 1
        rpn.objectness.weight.fill_(1 / channels)
        rpn.objectness.bias.copy_(100.0 * torch.arange(per_cell))
        rpn.deltas.weight.fill_(1 / channels)
        rpn.deltas.bias.copy_((1000.0 * torch.arange(per_cell)[:, None] + 10.0 * torch.arange(4)).flatten())
    return rpn


def test_rpn__order_is_that_of_the_anchors():
    height, width, per_cell = 3, 4, 2
    features = torch.arange(float(height * width)).view(1, 1, height, width).repeat(2, 5, 1, 1)
    features[1] += 50
    (logits,), (deltas,) = marked_rpn(5, per_cell)([features])
    assert logits.shape == (2, height * width * per_cell)
    for y in range(height):
        for x in range(width):
            for k in range(per_cell):
                index = (y * width + x) * per_cell + k
                feature = float(y * width + x)
                assert_close(logits[:, index], torch.tensor([feature, feature + 50]) + 100 * k)
                assert_close(deltas[0, index], feature + 1000 * k + 10 * torch.arange(4.0))


def test_rpn__as_many_outputs_as_anchors():
    sizes = [(4, 6), (2, 3), (1, 2)]
    generator = AnchorGenerator(sizes=((8.0, 16.0),) * 3, ratios=((0.5, 1.0, 2.0),) * 3)
    rpn = RegionProposalNetwork(8, generator.per_cell)
    logits, deltas = rpn([torch.zeros(2, 8, *size) for size in sizes])
    anchors = generator(sizes, (32, 48), torch.device("cpu"))
    assert [level.shape for level in logits] == [(2, len(level)) for level in anchors]
    assert [level.shape for level in deltas] == [(2, len(level), 4) for level in anchors]


@pytest.mark.parametrize("convs", [1, 2])
def test_rpn__memory_format_changes_nothing(convs):
    rpn = RegionProposalNetwork(8, 3, convs=convs)
    features = torch.rand(2, 8, 3, 4)
    logits, deltas = rpn([features])
    last_logits, last_deltas = rpn([features.contiguous(memory_format=torch.channels_last)])
    assert_close(logits, last_logits)
    assert_close(deltas, last_deltas)


def test_rpn__starts_undecided():
    (logits,), (deltas,) = RegionProposalNetwork(8, 3)([torch.zeros(1, 8, 2, 2)])
    assert_close(logits, torch.zeros(1, 12))
    assert_close(deltas, torch.zeros(1, 12, 4))
    assert len(RegionProposalNetwork(8, 3, convs=2).convs) == 2
