import pytest
import torch
from torch.testing import assert_close

from fasterrcnn.model.anchors import AnchorGenerator, cell_anchors, grid_anchors

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


def test_cell_anchors__ratio_is_height_over_width():
    cell = cell_anchors([8.0], [4.0], rounded=False)
    assert_close(cell, torch.tensor([[-2.0, -8.0, 2.0, 8.0]]))


def test_cell_anchors__ratio_by_ratio_size_by_size():
    cell = cell_anchors([8.0, 16.0], [0.25, 1.0], rounded=False)
    sides = torch.tensor([[16.0, 4.0], [32.0, 8.0], [8.0, 8.0], [16.0, 16.0]])
    assert_close(cell, torch.cat([-sides / 2, sides / 2], dim=1))


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0, 3.7])
def test_cell_anchors__keep_the_area(ratio):
    x1, y1, x2, y2 = cell_anchors([40.0], [ratio], rounded=False)[0]
    assert_close((x2 - x1) * (y2 - y1), torch.tensor(1600.0))
    assert_close((y2 - y1) / (x2 - x1), torch.tensor(ratio))


def test_cell_anchors__rounded():
    # 32 at ratio 1/2: 45.25 x 22.63, so half sides of 22.63 and 11.31
    assert_close(cell_anchors([32.0], [0.5], rounded=True), torch.tensor([[-23.0, -11.0, 23.0, 11.0]]))


def test_grid_anchors__four_by_four():
    cell = torch.tensor([[-1.0, -2.0, 1.0, 2.0], [-3.0, -3.0, 3.0, 3.0]])
    grid = grid_anchors(cell, (4, 4), (8, 16))
    assert grid.shape == (32, 4)
    for y in range(4):
        for x in range(4):
            for k in range(2):
                shift = torch.tensor([16.0 * x, 8.0 * y, 16.0 * x, 8.0 * y])
                assert_close(grid[(y * 4 + x) * 2 + k], cell[k] + shift)


def test_grid_anchors__outline_of_a_64_pixel_image():
    # 4 x 4 cells of 16 pixels: the first lies around the corner (0, 0), the last around (48, 48).
    grid = grid_anchors(cell_anchors([32.0], [1.0], rounded=False), (4, 4), (16, 16))
    assert_close(grid[0], torch.tensor([-16.0, -16.0, 16.0, 16.0]))
    assert_close(grid[5], torch.tensor([0.0, 0.0, 32.0, 32.0]))
    assert_close(grid[15], torch.tensor([32.0, 32.0, 64.0, 64.0]))


@pytest.mark.parametrize("grid_hw", [(0, 0), (0, 3), (3, 0)])
def test_grid_anchors__empty_map(grid_hw):
    assert grid_anchors(torch.zeros(3, 4), grid_hw, (8, 8)).shape == (0, 4)


def test_grid_anchors__one_cell():
    cell = cell_anchors([32.0], [1.0], rounded=False)
    assert_close(grid_anchors(cell, (1, 1), (64, 64)), cell)
