import pytest
import torch
from torch.testing import assert_close

from fasterrcnn.model.proposals import ProposalGenerator

ANCHORS = torch.tensor(
    [
        [0.0, 0.0, 10.0, 10.0],
        [1.0, 0.0, 11.0, 10.0],  # IoU 90 / 110 with the first
        [20.0, 20.0, 40.0, 40.0],
        [-50.0, -50.0, -40.0, -40.0],  # outside
    ]
)
LOGITS = torch.tensor([[1.0, 2.0, 0.0, 5.0]])
STILL = torch.zeros(1, 4, 4)


def generate(logits=LOGITS, anchors=ANCHORS, sizes=((64, 64),), **changes):
    generator = ProposalGenerator(**{"candidates": 10, "proposals": 10, **changes})
    return generator([logits], [torch.zeros(*logits.shape, 4)], [anchors], list(sizes))


def test_proposals__sorted_suppressed_and_inside():
    (found,) = generate()
    assert_close(found.boxes, ANCHORS[[1, 2]])
    assert_close(found.scores, torch.tensor([2.0, 0.0]).sigmoid())


def test_proposals__clipped_to_the_valid_size_of_each_image():
    logits = LOGITS.repeat(2, 1)
    first, second = generate(logits, sizes=[(64, 64), (25, 30)])
    assert_close(first.boxes[1], ANCHORS[2])
    assert_close(second.boxes[1], torch.tensor([20.0, 20.0, 30.0, 25.0]))


def test_proposals__deltas_move_them():
    deltas = STILL.clone()
    deltas[0, 2, 0] = 0.5  # half a width of 20 to the right
    (found,) = ProposalGenerator(10, 10)([LOGITS], [deltas], [ANCHORS], [(64, 64)])
    assert_close(found.boxes[1], torch.tensor([30.0, 20.0, 50.0, 40.0]))


def test_proposals__nms_threshold():
    (found,) = generate(nms_threshold=0.9)
    assert_close(found.boxes, ANCHORS[[1, 0, 2]])


def test_proposals__min_score():
    (found,) = generate(min_score=0.6)  # sigmoid(0) is 0.5
    assert_close(found.boxes, ANCHORS[[1]])
    assert len(generate(min_score=0.5)[0].boxes) == 2


def test_proposals__candidates_are_the_best_of_a_level():
    # The best anchor lies outside and is dropped after it was counted as a candidate.
    assert len(generate(candidates=1)[0].boxes) == 0
    assert_close(generate(candidates=2)[0].boxes, ANCHORS[[1]])


def test_proposals__at_most_so_many():
    assert_close(generate(proposals=1)[0].boxes, ANCHORS[[1]])


def test_proposals__min_side():
    thin = torch.tensor([[0.0, 0.0, 10.0, 0.5], [0.0, 0.0, 10.0, 10.0]])
    (found,) = generate(torch.tensor([[3.0, 0.0]]), thin, min_side=1.0)
    assert_close(found.boxes, thin[1:])


def test_proposals__levels_do_not_suppress_each_other():
    generator = ProposalGenerator(candidates=10, proposals=10)
    levels = [ANCHORS[:1], ANCHORS[1:2]]
    logits = [torch.tensor([[0.0]]), torch.tensor([[1.0]])]
    (found,) = generator(logits, [torch.zeros(1, 1, 4)] * 2, levels, [(64, 64)])
    assert_close(found.boxes, ANCHORS[[1, 0]])
    assert_close(found.scores, torch.tensor([1.0, 0.0]).sigmoid())


def test_proposals__no_anchors():
    (found,) = generate(torch.zeros(1, 0), torch.zeros(0, 4))
    assert found.boxes.shape == (0, 4)
    assert found.scores.shape == (0,)


def test_proposals__no_gradient_and_float32():
    logits = LOGITS.clone().requires_grad_()
    (found,) = generate(logits)
    assert not found.scores.requires_grad
    (half,) = generate(LOGITS.bfloat16())
    assert half.boxes.dtype == half.scores.dtype == torch.float32


@pytest.mark.parametrize("value", [float("nan"), 1e30, -1e30])
def test_proposals__wild_deltas_give_finite_boxes_inside(value):
    deltas = STILL.clone()
    deltas[0, 2] = value
    (found,) = ProposalGenerator(10, 10)([LOGITS], [deltas], [ANCHORS], [(64, 64)])
    assert found.boxes.isfinite().all()
    assert found.boxes.min() >= 0
    assert found.boxes.max() <= 64
