import pytest
import torch
from torch.testing import assert_close

from fasterrcnn.model.anchors import AnchorGenerator

CPU = torch.device("cpu")
TWO_LEVELS = AnchorGenerator(sizes=((16.0,), (64.0,)), ratios=((1.0,), (1.0,)), strides=(8, 32), rounded=False)


def test_anchor_generator__levels_have_their_own_sizes_and_strides():
    fine, coarse = TWO_LEVELS([(2, 3), (1, 1)], (16, 24), CPU)
    assert fine.shape == (6, 4)
    assert_close(fine[0], torch.tensor([-8.0, -8.0, 8.0, 8.0]))
    assert_close(fine[5], torch.tensor([8.0, 0.0, 24.0, 16.0]))  # row 1, column 2
    assert_close(coarse, torch.tensor([[-32.0, -32.0, 32.0, 32.0]]))


def test_anchor_generator__levels_have_their_own_ratios():
    generator = AnchorGenerator(sizes=((8.0,), (8.0,)), ratios=((4.0,), (0.25,)), strides=(8, 8), rounded=False)
    tall, wide = generator([(1, 1), (1, 1)], (8, 8), CPU)
    assert_close(tall, torch.tensor([[-2.0, -8.0, 2.0, 8.0]]))
    assert_close(wide, torch.tensor([[-8.0, -2.0, 8.0, 2.0]]))


def test_anchor_generator__stride_from_the_padded_image():
    generator = AnchorGenerator(sizes=((8.0,),), ratios=((1.0,),), strides=None)
    (grid,) = generator([(2, 3)], (33, 96), CPU)
    assert_close(grid[1] - grid[0], torch.tensor([32.0, 0.0, 32.0, 0.0]))  # 96 // 3
    assert_close(grid[3] - grid[0], torch.tensor([0.0, 16.0, 0.0, 16.0]))  # 33 // 2


def test_anchor_generator__per_cell():
    generator = AnchorGenerator(sizes=((8.0, 16.0),) * 2, ratios=((0.5, 1.0, 2.0),) * 2)
    assert generator.per_cell == 6
    assert [len(level) for level in generator([(2, 2), (1, 1)], (32, 32), CPU)] == [24, 6]


def test_anchor_generator__rounded():
    generator = AnchorGenerator(sizes=((32.0,),), ratios=((0.5,),), strides=(16,))
    assert_close(generator([(1, 1)], (16, 16), CPU)[0], torch.tensor([[-23.0, -11.0, 23.0, 11.0]]))


@pytest.mark.parametrize(("ratios", "strides"), [(((1.0,),), (8, 16)), (((1.0,),) * 3, (8, 16)), (((1.0,),) * 2, (8,))])
def test_anchor_generator__levels_differ(ratios, strides):
    with pytest.raises(ValueError, match="different numbers of levels"):
        AnchorGenerator(sizes=((8.0,), (16.0,)), ratios=ratios, strides=strides)


def test_anchor_generator__uneven_levels():
    with pytest.raises(ValueError, match="same number of anchors per cell"):
        AnchorGenerator(sizes=((8.0,), (16.0, 20.0)), ratios=((1.0,), (1.0,)))


def test_anchor_generator__wrong_number_of_maps():
    with pytest.raises(ValueError, match="3 feature maps for anchors of 2 levels"):
        TWO_LEVELS([(2, 2), (1, 1), (1, 1)], (16, 16), CPU)
