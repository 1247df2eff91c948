import torch
from torch.testing import assert_close

from fasterrcnn.weights.transfer import rearrange_class_rows, same_names


def rows(classes: int) -> dict[str, torch.Tensor]:
    """Every row holds its owner: the class's number, background's last; a delta's class and number."""
    logits = torch.arange(classes + 1.0)
    deltas = (10 * torch.arange(float(classes))[:, None] + torch.arange(4)).flatten()
    return {
        "box_head.class_logits.weight": logits[:, None].expand(-1, 5),
        "box_head.class_logits.bias": logits,
        "box_head.box_deltas.weight": deltas[:, None].expand(-1, 5),
        "box_head.box_deltas.bias": deltas,
        "rpn.deltas.bias": torch.ones(3),
    }


def fresh(classes: int) -> dict[str, torch.Tensor]:
    return {key: torch.full_like(value, -1) for key, value in rows(classes).items()}


def test_same_names__by_name_whatever_the_order_and_the_spelling():
    assert same_names(["cat", "dog", "traffic light"], ["Traffic_Light", "owl", "dog"]) == {0: 2, 2: 1}
    assert same_names(["cat"], ["dog"]) == same_names([], ["dog"]) == same_names(["cat"], []) == {}
    assert same_names(["a", "A"], ["a"]) == {0: 0}


def test_rearrange__rows_follow_their_names_and_background_stays_last():
    state = rearrange_class_rows(rows(3), {0: 2, 2: 1}, fresh(4))
    assert state["box_head.class_logits.bias"].tolist() == [2, -1, 1, -1, 3]
    assert state["box_head.box_deltas.bias"].tolist() == [20, 21, 22, 23, *[-1] * 4, 10, 11, 12, 13, *[-1] * 4]
    assert_close(state["box_head.class_logits.weight"][:, 4], state["box_head.class_logits.bias"])
    assert_close(state["box_head.box_deltas.weight"][:, 0], state["box_head.box_deltas.bias"])
    assert_close(state["rpn.deltas.bias"], torch.ones(3))


def test_rearrange__no_class_in_common():
    assert rearrange_class_rows(rows(3), {}, fresh(2)).keys() == {"rpn.deltas.bias"}


def test_rearrange__leaves_both_sides_as_they_were():
    old, new = rows(2), fresh(2)
    rearrange_class_rows(old, {0: 0}, new)
    assert_close(old, rows(2))
    assert_close(new, fresh(2))


def test_rearrange__another_width_or_too_few_rows_is_left_to_be_refused():
    old = rows(3)
    old["box_head.class_logits.weight"] = torch.ones(4, 7)
    old["box_head.box_deltas.bias"] = torch.ones(3)
    state = rearrange_class_rows(old, {0: 2}, fresh(3))
    assert state["box_head.class_logits.weight"].shape == (4, 7)
    assert state["box_head.box_deltas.bias"].shape == (3,)
