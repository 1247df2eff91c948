import pytest
import torch

from fasterrcnn.ops.sampling import sample_balanced


def draw(positives: int, negatives: int, count: int, fraction: float, seed: int = 0) -> tuple[int, int]:
    """How many of each kind are drawn; ten members that are neither stand between them."""
    n = positives + 10 + negatives
    positive = torch.arange(n) < positives
    negative = torch.arange(n) >= positives + 10
    chosen = sample_balanced(
        positive, negative, count=count, positive_fraction=fraction, generator=torch.Generator().manual_seed(seed)
    )
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
    chosen = sample_balanced(nothing, nothing, count=16, positive_fraction=0.5)
    assert chosen.shape == (0,)
    assert chosen.dtype == torch.int64


def test_sample_balanced__seed_decides():
    positive = torch.ones(1000, dtype=torch.bool)

    def chosen(seed):
        generator = torch.Generator().manual_seed(seed)
        return sample_balanced(positive, ~positive, count=10, positive_fraction=1.0, generator=generator).tolist()

    assert chosen(1) == chosen(1)
    assert len({tuple(chosen(seed)) for seed in range(5)}) == 5


def test_sample_balanced__every_member_can_be_drawn():
    positive = torch.tensor([True, False, True, False])
    drawn = set()
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        drawn |= set(sample_balanced(positive, ~positive, count=2, positive_fraction=0.5, generator=generator).tolist())
    assert drawn == {0, 1, 2, 3}
