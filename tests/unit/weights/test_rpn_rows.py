import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from fasterrcnn.config import AnchorConfig
from fasterrcnn.weights.transfer import nearest_anchors, rearrange_rpn_rows


def anchors(sizes, ratios, levels: int = 1) -> AnchorConfig:
    return AnchorConfig(sizes=(tuple(sizes),) * levels, ratios=(tuple(ratios),) * levels)


def state_of(count: int) -> dict[str, torch.Tensor]:
    """Every number encodes which anchor (hundreds) and which of its four deltas it belongs to."""
    objectness = 100.0 * torch.arange(count)
    deltas = (objectness[:, None] + torch.arange(4)).flatten()
    return {
        "rpn.objectness.weight": objectness[:, None, None, None].expand(count, 8, 1, 1),
        "rpn.objectness.bias": objectness,
        "rpn.deltas.weight": deltas[:, None, None, None].expand(4 * count, 8, 1, 1),
        "rpn.deltas.bias": deltas,
        "rpn.convs.0.weight": torch.ones(8, 8, 3, 3),
    }


OLD = anchors([32, 64], [0.5, 1, 2])  # ratio by ratio: 32 and 64 of ratio 0.5 come first


def test_nearest_anchors__identity():
    assert nearest_anchors(OLD, OLD) == list(range(6))


def test_nearest_anchors__permuted():
    assert nearest_anchors(OLD, anchors([64, 32], [2, 0.5, 1])) == [5, 4, 1, 0, 3, 2]


def test_nearest_anchors__more_of_them():
    assert nearest_anchors(OLD, anchors([30, 66, 200], [0.5, 1, 2])) == [0, 1, 1, 2, 3, 3, 4, 5, 5]


def test_nearest_anchors__fewer_of_them():
    assert nearest_anchors(OLD, anchors([60], [0.9, 2.2])) == [3, 5]


def test_nearest_anchors__ratio_decides_where_a_whole_level_shrinks():
    old = AnchorConfig(sizes=((32.0,), (512.0,)), ratios=((0.5, 1.0, 2.0),) * 2)
    new = AnchorConfig(sizes=((4.0,), (300.0,)), ratios=((0.6, 0.9, 2.5),) * 2)
    assert nearest_anchors(old, new) == [0, 1, 2]


def test_nearest_anchors__all_levels_count():
    old = AnchorConfig(sizes=((32.0,), (64.0,)), ratios=((0.5, 2.0),) * 2)
    # A little nearer to the first on one level, much nearer to the second on the other.
    new = AnchorConfig(sizes=((32.0,), (64.0,)), ratios=((0.9,), (2.0,)))
    assert nearest_anchors(old, new) == [1]


@given(st.permutations(range(4)), st.permutations(range(3)))
def test_nearest_anchors__any_order_is_undone(size_order, ratio_order):
    sizes, ratios = (16.0, 40.0, 100.0, 250.0), (0.4, 1.0, 3.0)
    shuffled = anchors([sizes[i] for i in size_order], [ratios[i] for i in ratio_order], levels=2)
    expected = [4 * r + s for r in ratio_order for s in size_order]
    assert nearest_anchors(anchors(sizes, ratios, levels=2), shuffled) == expected


def test_rearrange__rows_of_objectness_and_deltas_go_together():
    new = anchors([64], [2, 1])
    chosen = rearrange_rpn_rows(state_of(6), OLD, new)
    assert_close(chosen["rpn.objectness.bias"], torch.tensor([500.0, 300.0]))
    assert_close(chosen["rpn.deltas.bias"], torch.tensor([500.0, 501, 502, 503, 300, 301, 302, 303]))
    assert chosen["rpn.objectness.weight"].shape == (2, 8, 1, 1)
    assert_close(chosen["rpn.deltas.weight"][:, 3, 0, 0], chosen["rpn.deltas.bias"])
    assert_close(chosen["rpn.convs.0.weight"], torch.ones(8, 8, 3, 3))


def test_rearrange__same_anchors_same_tensors():
    state = state_of(6)
    assert rearrange_rpn_rows(state, OLD, OLD.model_copy(update={"rounded": False})) is state


def test_rearrange__rows_of_other_anchors_stay():
    state = state_of(5)
    chosen = rearrange_rpn_rows(state, OLD, anchors([64], [2, 1]))
    assert all(chosen[key] is state[key] for key in state)


def test_rearrange__other_number_of_levels():
    state = state_of(6)
    assert rearrange_rpn_rows(state, OLD, anchors([64], [2, 1], levels=2)) is state
