"""Normalisation layers: frozen batch norm for small batches, batch norm, group norm; and folding."""

import copy
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fasterrcnn.model.backbones.merged import MergedConv2d, folded


@dataclass(frozen=True)
class Norm:
    """Which normalisation a network uses.

    Attributes:
        kind: "frozen" keeps the statistics and the affine part of a pre-trained network as they are; "batch"
            learns both; "group" (32 groups, fewer where the channels ask for it) depends on no batch.
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


Network = TypeVar("Network", bound=nn.Module)


def fold_batch_norm(model: Network) -> Network:
    """A copy of the model, for prediction, whose batch norms are part of the convolutions before them.

    Folds where a convolution is directly followed by a batch norm in the order of definition, which this
    library's networks (and torchvision's) keep equal to the order of computation; of a timm backbone, what is merged.
    Computed in float64: the result differs from the original by float32 rounding only.
    """
    network = copy.deepcopy(model)
    _fold_children(network)
    for module in network.modules():
        if isinstance(module, MergedConv2d):
            module.fold()
    return network


def _fold_children(module: nn.Module) -> None:
    if getattr(module, "defines_layers_out_of_order", False):
        return
    children = list(module.named_children())
    for (_, conv), (name, norm) in pairwise(children):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, FrozenBatchNorm2d | nn.BatchNorm2d):
            conv.weight, conv.bias = folded(conv.weight, conv.bias, norm)
            setattr(module, name, nn.Identity())
    for child in module.children():
        _fold_children(child)
