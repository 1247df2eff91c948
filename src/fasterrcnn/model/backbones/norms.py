"""Normalisation layers: frozen batch norm for small batches, batch norm, group norm."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Norm:
    """Which normalisation a network uses.

    Attributes:
        kind: "frozen" keeps the statistics and the affine part of a pre-trained network as they are; "batch"
            trains both; "group" (32 groups, fewer where the channels ask for it) depends on no batch.
        eps: added to the variance; belongs to the checkpoint's family.
    """

    kind: Literal["frozen", "batch", "group"] = "frozen"
    eps: float = 1e-5


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation with fixed statistics and a fixed affine part; the same in train() and eval()."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalise every channel."""
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)

    def extra_repr(self) -> str:
        """Channels and eps, for print(model)."""
        return f"{len(self.weight)}, eps={self.eps}"


def make_norm(norm: Norm, channels: int) -> nn.Module:
    """A normalisation layer for that many channels."""
    if norm.kind == "frozen":
        return FrozenBatchNorm2d(channels, norm.eps)
    if norm.kind == "batch":
        return nn.BatchNorm2d(channels, norm.eps)
    return nn.GroupNorm(math.gcd(32, channels), channels, norm.eps)
