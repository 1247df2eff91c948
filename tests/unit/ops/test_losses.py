import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from fasterrcnn.ops import losses

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.5], [-3.0, 4.0, 1.0]])
LABELS = torch.tensor([0, 2, 1])
ALL = torch.ones(3000, dtype=torch.bool)


def test_smooth_l1__by_hand():
    # beta 1: 0.5² / 2 below, 3 - 1/2 above; beta 0: plain differences
    deltas, wanted = torch.tensor([[0.5, 3.0, 0.0, -3.0]]), torch.zeros(1, 4)
    assert_close(losses.smooth_l1(deltas, wanted, beta=1.0), torch.tensor(0.125 + 2.5 + 2.5))
    assert_close(losses.smooth_l1(deltas, wanted, beta=0.0), torch.tensor(6.5))


def test_giou__by_hand():
    ground_truth = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    same = losses.giou(ground_truth, ground_truth)
    # Neighbours share nothing; their hull has no gap: GIoU 0. At a distance of one width: hull 48, union 32.
    touching = losses.giou(torch.tensor([[4.0, 0.0, 8.0, 4.0]]), ground_truth)
    apart = losses.giou(torch.tensor([[8.0, 0.0, 12.0, 4.0]]), ground_truth)
    half = losses.giou(torch.tensor([[0.0, 0.0, 4.0, 2.0]]), ground_truth)
    expected = torch.tensor([0.0, 1.0, 1 + 16 / 48, 0.5])
    assert_close(torch.stack([same, touching, apart, half]), expected)


def test_giou__boxes_without_area():
    point = torch.tensor([[1.0, 1.0, 1.0, 1.0]], requires_grad=True)
    loss = losses.giou(point, torch.tensor([[1.0, 1.0, 1.0, 1.0]]))
    loss.backward()
    assert loss.isfinite()
    assert point.grad.isfinite().all()


def test_objectness__by_hand():
    logits, is_object = torch.tensor([0.0, 0.0, math.log(3)]), torch.tensor([False, True, True])
    assert_close(losses.objectness(logits, is_object, ALL[:3]), torch.tensor((2 * math.log(2) + math.log(4 / 3)) / 3))


def test_objectness__only_what_is_counted():
    logits = torch.tensor([0.0, 7.0, 1e30], requires_grad=True)
    loss = losses.objectness(logits, torch.tensor([True, False, False]), torch.tensor([True, False, False]))
    assert_close(loss, torch.tensor(math.log(2)))
    loss.backward()
    assert logits.grad.tolist() == [-0.5, 0.0, 0.0]
    assert_close(losses.objectness(torch.ones(3), ~ALL[:3], ~ALL[:3]), torch.tensor(0.0))


def test_objectness__extreme_logits():
    right = torch.tensor([True, False])
    assert_close(losses.objectness(torch.tensor([1e4, -1e4]), right, ALL[:2]), torch.tensor(0.0))
    assert_close(losses.objectness(torch.tensor([1e4]), ~right[:1], ALL[:1]), torch.tensor(1e4))


def test_classification__equal_logits_by_hand():
    assert_close(losses.classification(torch.zeros(5, 4), torch.arange(5) % 4), torch.tensor(math.log(4)))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("class_weights", [None, torch.tensor([1.0, 5.0, 0.25])])
def test_classification__as_torch(class_weights, label_smoothing):
    options = {"label_smoothing": label_smoothing}
    expected = F.cross_entropy(LOGITS, LABELS, weight=class_weights, **options)
    assert_close(losses.classification(LOGITS, LABELS, class_weights=class_weights, **options), expected)


def test_classification__label_smoothing_by_formula():
    smooth = 0.3
    ground_truth = F.one_hot(LABELS, 3) * (1 - smooth) + smooth / 3
    expected = -(ground_truth * LOGITS.log_softmax(1)).sum(1).mean()
    assert_close(losses.classification(LOGITS, LABELS, label_smoothing=smooth), expected)


def test_classification__focal_by_formula():
    p = LOGITS.softmax(1)[torch.arange(3), LABELS]
    expected = (-((1 - p) ** 2) * p.log()).mean()
    assert_close(losses.classification(LOGITS, LABELS, focal_gamma=2.0), expected)
    assert_close(losses.classification(LOGITS, LABELS, focal_gamma=0.0), -p.log().mean())


def test_classification__class_of_weight_zero_counts_for_nothing():
    weights = torch.tensor([1.0, 1.0, 0.0])
    expected = F.cross_entropy(LOGITS[[0, 2]], LABELS[[0, 2]])
    assert_close(losses.classification(LOGITS, LABELS, class_weights=weights), expected)
    only = losses.classification(LOGITS[1:2], LABELS[1:2], class_weights=weights)
    assert_close(only, torch.tensor(0.0))


@pytest.mark.parametrize("gamma", [1.0, 2.0, 5.0])
def test_classification__focal_gradient_of_a_certain_row(gamma):
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    losses.classification(logits, torch.tensor([0]), focal_gamma=gamma).backward()
    assert_close(logits.grad, torch.zeros(1, 2))


def test_classification__focal_gradient_of_a_certain_row__gamma_below_one():
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    losses.classification(logits, torch.tensor([0]), focal_gamma=0.5).backward()
    assert_close(logits.grad, torch.zeros(1, 2))


def boxes_loss(function, options):
    boxes = torch.zeros(0, 4, requires_grad=True)
    return function(boxes, torch.zeros(0, 4), **options), boxes


def rows_loss(function, options):
    logits = torch.zeros((0, 3) if function is losses.classification else (0,), requires_grad=True)
    if function is losses.classification:
        return function(logits, LABELS[:0], **options), logits
    return function(logits, ALL[:0], ALL[:0], **options), logits


@pytest.mark.parametrize(
    ("make", "function", "options"),
    [
        (boxes_loss, losses.smooth_l1, {"beta": 0.1}),
        (boxes_loss, losses.smooth_l1, {"beta": 0.0}),
        (boxes_loss, losses.giou, {}),
        (rows_loss, losses.objectness, {}),
        (rows_loss, losses.classification, {}),
        (rows_loss, losses.classification, {"class_weights": torch.ones(3)}),
        (rows_loss, losses.classification, {"label_smoothing": 0.1, "focal_gamma": 2.0}),
    ],
)
def test_losses__empty_input_gives_zero_and_a_gradient(make, function, options):
    loss, leaf = make(function, options)
    assert_close(loss, torch.tensor(0.0))
    loss.backward()
    assert leaf.grad.shape == leaf.shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_losses__half_precision_is_summed_in_float32(dtype):
    logits = torch.full((3000,), 2.0, dtype=dtype)
    loss = losses.objectness(logits, ~ALL, ALL)
    assert_close(loss, torch.tensor(math.log(1 + math.exp(2.0))))
    assert losses.classification(LOGITS.to(dtype), LABELS).dtype == torch.float32
    assert losses.smooth_l1(torch.ones(2, 4, dtype=dtype), torch.zeros(2, 4), beta=1.0).dtype == torch.float32
