"""Draw a balanced mini-batch of anchors or proposals."""

import torch
from jaxtyping import Bool, Int64
from torch import Tensor


def sample_balanced(
    positive: Bool[Tensor, " n"],
    negative: Bool[Tensor, " n"],
    *,
    count: int,
    positive_fraction: float,
    generator: torch.Generator | None = None,
) -> Int64[Tensor, " s"]:
    """Indices of at most ``count`` members, sorted, at most ``positive_fraction`` of them positive.

    Missing positives are replaced by negatives (Ren et al. 2015, section 3.1.3). What is neither positive nor
    negative is never drawn.
    """
    positives, negatives = positive.nonzero()[:, 0], negative.nonzero()[:, 0]
    wanted = min(len(positives), int(count * positive_fraction))
    positives = _draw(positives, wanted, generator)
    negatives = _draw(negatives, count - wanted, generator)
    return torch.cat([positives, negatives]).sort().values


def _draw(members: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    if len(members) <= count:
        return members
    # The permutation is drawn where the generator lives: a CPU generator also serves a GPU model.
    device = generator.device if generator is not None else members.device
    order = torch.randperm(len(members), generator=generator, device=device)[:count]
    return members[order.to(members.device)]
