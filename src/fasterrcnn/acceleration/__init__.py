"""Faster layers with equal results, which replace those of a network that was built of plain PyTorch.

Only modules are exchanged: parameters, buffers and their names in the state dict stay the same. No part of `model`
depends on this.
"""

import copy
from typing import Literal, TypeVar

from torch import nn

from fasterrcnn.acceleration.fold_norms import fold_batch_norms, merge_frozen_norms
from fasterrcnn.acceleration.onednn_linear import use_onednn

Network = TypeVar("Network", bound=nn.Module)


def accelerate(network: Network, *, for_: Literal["training", "inference"]) -> Network:
    """The network with faster layers.

    Args:
        network: a `FasterRCNN`.
        for_: "training" exchanges layers in place: frozen batch norms of timm's networks are merged into the
            convolutions before them, and the fully connected layers of the box head use oneDNN on a CPU. "inference"
            gives a copy whose batch norms are part of the convolutions' weights; it cannot be trained.
    """
    if for_ == "inference":
        network = copy.deepcopy(network)
    for module in network.modules():
        if getattr(module, "defines_layers_out_of_order", False):
            merge_frozen_norms(module)
    use_onednn(network.get_submodule("box_head.body"))
    if for_ == "inference":
        fold_batch_norms(network)
    return network
