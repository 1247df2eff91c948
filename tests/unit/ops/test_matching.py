import pytest
import torch

from fasterrcnn.ops import matching
from fasterrcnn.ops.matching import IGNORED, NEGATIVE, inside_ignored, match, sample_balanced

NONE = torch.zeros(0, 4)
OBJECT = torch.tensor([[0.0, 0.0, 10.0, 10.0]])


def columns(*widths: float) -> torch.Tensor:
    """Boxes of height 10 from x = 0: their IoU with `OBJECT` is their width / 10."""
    return torch.tensor([[0.0, 0.0, width, 10.0] for width in widths])


def rpn_match(anchors, objects, **options):
    return match(anchors, objects, positive_iou=0.7, negative_iou=0.3, **options).tolist()


def test_match__thresholds():
    anchors = columns(10, 8, 7.5, 5, 3.5, 2.5, 1)
    assert rpn_match(anchors, OBJECT) == [0, 0, 0, IGNORED, IGNORED, NEGATIVE, NEGATIVE]


def test_match__border_values_are_inclusive():
    # 5 / 10 is exact in floating point: positive from the threshold on, negative below it.
    assert match(columns(5), OBJECT, positive_iou=0.5, negative_iou=0.5).tolist() == [0]
    assert match(columns(5), OBJECT, positive_iou=0.75, negative_iou=0.5).tolist() == [IGNORED]


def test_match__one_threshold_ignores_nothing():
    matched = match(columns(10, 6, 4, 1), OBJECT, positive_iou=0.5, negative_iou=0.5)
    assert matched.tolist() == [0, 0, NEGATIVE, NEGATIVE]


def test_match__belongs_to_the_object_it_overlaps_most():
    objects = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 8.0, 10.0]])
    assert rpn_match(columns(8.5, 9.9), objects) == [1, 0]


def test_match__best_for_each_rescues_a_weak_best():
    assert rpn_match(columns(2, 1), OBJECT) == [NEGATIVE, NEGATIVE]
    assert rpn_match(columns(2, 1), OBJECT, best_for_each=True) == [0, NEGATIVE]


def test_match__best_for_each_takes_all_ties():
    assert rpn_match(columns(2, 1, 2), OBJECT, best_for_each=True) == [0, NEGATIVE, 0]


def test_match__best_for_each_keeps_the_overlap_order():
    # The only anchor near object 1 overlaps object 0 more: it is positive, and belongs to object 0.
    objects = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 2.0, 10.0]])
    assert rpn_match(columns(5), objects, best_for_each=True) == [0]


def test_match__zero_overlap_object_turns_nothing_positive():
    far = torch.tensor([[500.0, 500.0, 510.0, 510.0]])
    anchors = columns(10, 5, 1)
    assert rpn_match(anchors, far, best_for_each=True) == [NEGATIVE] * 3
    both = torch.cat([OBJECT, far])
    assert rpn_match(anchors, both, best_for_each=True) == [0, IGNORED, NEGATIVE]


def test_match__zero_overlap_as_torchvision_does():
    far = torch.tensor([[500.0, 500.0, 510.0, 510.0]])
    assert rpn_match(columns(10, 1), far, best_for_each=True, zero_overlap=True) == [0, 0]


def test_match__no_objects_and_no_anchors():
    assert rpn_match(columns(10, 5), NONE) == [NEGATIVE, NEGATIVE]
    assert rpn_match(NONE, OBJECT) == []
    assert rpn_match(NONE, NONE, best_for_each=True) == []
    assert rpn_match(columns(10, 5), NONE, best_for_each=True, zero_overlap=True) == [NEGATIVE, NEGATIVE]


@pytest.mark.parametrize("pairs", [1, 7, 64])
def test_match__chunks_change_nothing(monkeypatch, pairs):
    corners = torch.rand((60, 2), generator=torch.Generator().manual_seed(0)) * 50
    anchors = torch.cat([corners, corners + 20], dim=1)
    objects = anchors[::9] + 1.5
    whole = rpn_match(anchors, objects, best_for_each=True)
    monkeypatch.setattr(matching, "_CHUNK_PAIRS", pairs)
    assert rpn_match(anchors, objects, best_for_each=True) == whole


def test_inside_ignored__half_of_the_own_area():
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [5.0, 0.0, 15.0, 10.0], [6.0, 0.0, 16.0, 10.0]])
    assert inside_ignored(anchors, OBJECT).tolist() == [True, True, False]


def test_inside_ignored__small_anchor_in_a_large_crowd():
    crowd = torch.tensor([[0.0, 0.0, 1000.0, 1000.0]])
    assert inside_ignored(torch.tensor([[500.0, 500.0, 504.0, 504.0]]), crowd).tolist() == [True]


def test_inside_ignored__empty():
    assert inside_ignored(OBJECT, NONE).tolist() == [False]
    assert inside_ignored(NONE, OBJECT).shape == (0,)


def test_match__thousands_of_objects():
    corners = torch.arange(5000.0)[:, None].expand(-1, 2)
    objects = torch.cat([corners, corners + 1], dim=1)
    matched = match(objects[::50], objects, positive_iou=0.7, negative_iou=0.3, best_for_each=True)
    assert matched.tolist() == list(range(0, 5000, 50))


def draw(positives: int, negatives: int, count: int, fraction: float, seed: int = 0) -> tuple[int, int]:
    """How many of each kind are drawn; ten members that are neither stand between them."""
    n = positives + 10 + negatives
    positive = torch.arange(n) < positives
    negative = torch.arange(n) >= positives + 10
    chosen = sample_balanced(
        positive, negative, count=count, positive_fraction=fraction, generator=torch.Generator().manual_seed(seed)
    ).sorted()
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert (positive | negative)[chosen].all()
    return int(positive[chosen].sum()), int(negative[chosen].sum())


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"),
    [
        (100, 100, (4, 12)),  # a quarter of 16
        (2, 100, (2, 14)),  # missing positives are replaced
        (0, 100, (0, 16)),
        (100, 3, (4, 3)),  # missing negatives are not
        (100, 0, (4, 0)),
        (1, 1, (1, 1)),
        (0, 0, (0, 0)),
    ],
)
def test_sample_balanced__counts(positives, negatives, expected):
    assert draw(positives, negatives, 16, 0.25) == expected


@pytest.mark.parametrize(("fraction", "expected"), [(0.0, (0, 16)), (1.0, (16, 0)), (0.5, (8, 8))])
def test_sample_balanced__fractions(fraction, expected):
    assert draw(100, 100, 16, fraction) == expected


def test_sample_balanced__nothing_to_draw_from():
    nothing = torch.zeros(0, dtype=torch.bool)
    chosen = sample_balanced(nothing, nothing, count=16, positive_fraction=0.5).sorted()
    assert chosen.shape == (0,)
    assert chosen.dtype == torch.int64


def test_sample_balanced__seed_decides():
    positive = torch.ones(1000, dtype=torch.bool)

    def chosen(seed):
        generator = torch.Generator().manual_seed(seed)
        sample = sample_balanced(positive, ~positive, count=10, positive_fraction=1.0, generator=generator)
        return sample.sorted().tolist()

    assert chosen(1) == chosen(1)
    assert len({tuple(chosen(seed)) for seed in range(5)}) == 5


def test_sample_balanced__every_member_can_be_drawn():
    positive = torch.tensor([True, False, True, False])
    drawn = set()
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        sample = sample_balanced(positive, ~positive, count=2, positive_fraction=0.5, generator=generator)
        drawn |= set(sample.sorted().tolist())
    assert drawn == {0, 1, 2, 3}


def test_sample_balanced__every_member_equally_often():
    """Of 20,000 members, 100 are drawn for each of 400 seeds: 2 each on average, as a Poisson variable spreads."""
    negative, counts = torch.ones(20_000, dtype=torch.bool), torch.zeros(20_000)
    for seed in range(400):
        generator = torch.Generator().manual_seed(seed)
        sample = sample_balanced(~negative, negative, count=100, positive_fraction=0.5, generator=generator)
        counts[sample.sorted()] += 1
    assert float(counts.mean()) == 2
    assert float(counts.var()) == pytest.approx(2, abs=0.1)  # 5 standard errors
    tenths = counts.reshape(10, -1).sum(dim=1)
    assert float((tenths - 4000).abs().max()) < 5 * 4000**0.5


def test_sample_balanced__pairs_are_drawn_as_often_as_chance_wants():
    """Neighbours are drawn together in 1/4 x 1/4 of all draws: nothing ties them."""
    negative, together = torch.ones(400, dtype=torch.bool), torch.zeros(8)
    for seed in range(300):
        generator = torch.Generator().manual_seed(seed)
        sample = sample_balanced(~negative, negative, count=100, positive_fraction=0.5, generator=generator)
        drawn = torch.zeros(400).index_fill_(0, sample.sorted(), 1.0)
        together += torch.stack([(drawn * drawn.roll(step)).mean() for step in (1, 2, 3, 4, 8, 16, 64, 128)]) / 300
    torch.testing.assert_close(together, torch.full((8,), 100 / 400 * 99 / 399), atol=0.004, rtol=0)
