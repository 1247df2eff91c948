import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fasterrcnn.model.backbones.norms import FrozenBatchNorm2d, Norm
from fasterrcnn.model.box_head import BoxHead, StageBody, fully_connected_body


@pytest.mark.parametrize("regions", [0, 1, 5])
@pytest.mark.parametrize("classes", [1, 7])
def test_box_head__shapes(regions, classes):
    head = BoxHead(fully_connected_body(4, 7, (16, 8)), 8, classes)
    logits, deltas = head(torch.rand(regions, 4, 7, 7))
    assert logits.shape == (regions, classes + 1)
    assert deltas.shape == (regions, classes, 4)


def test_box_head__rows_of_the_deltas_belong_to_classes():
    head = BoxHead(nn.Flatten(), 3, 2)
    with torch.no_grad():
        head.box_deltas.bias.copy_(torch.arange(8.0))
    _, deltas = head(torch.zeros(1, 3, 1, 1))
    assert_close(deltas, torch.arange(8.0).view(1, 2, 4))


def test_fully_connected_body__layers():
    body = fully_connected_body(4, 7, (16, 8))
    assert [type(layer) for layer in body] == [nn.Flatten, nn.Linear, nn.ReLU, nn.Linear, nn.ReLU]
    assert body[1].in_features == 4 * 49


def test_fully_connected_body__convolutions_and_norms():
    body = fully_connected_body(4, 7, (8,), convs=2, norm=Norm())
    kinds = [nn.Conv2d, FrozenBatchNorm2d, nn.ReLU] * 2 + [nn.Flatten, nn.Linear, nn.ReLU]
    assert [type(layer) for layer in body] == kinds
    assert body[0].bias is None
    assert fully_connected_body(4, 7, (8,), convs=1)[0].bias is not None
    assert body(torch.rand(3, 4, 7, 7)).shape == (3, 8)


def test_stage_body__is_the_mean_over_the_map():
    pooled = torch.arange(2 * 3 * 4.0).view(2, 3, 2, 2)
    assert_close(StageBody(nn.Identity())(pooled), pooled.mean(dim=(2, 3)))
    assert StageBody(nn.Identity())(torch.zeros(0, 3, 2, 2)).shape == (0, 3)
