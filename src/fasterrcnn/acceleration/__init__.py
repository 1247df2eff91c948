"""Faster layers with equal results, which replace those of a network that was built of plain PyTorch.

Only modules are exchanged: parameters, buffers and their names in the state dict stay the same. No part of `model`
depends on this.
"""

import copy
from typing import Literal

from fasterrcnn.acceleration.fold_norms import fold_batch_norms, merge_frozen_norms
from fasterrcnn.acceleration.onednn_layers import use_onednn
from fasterrcnn.acceleration.sampled_conv import use_sampled_convs
from fasterrcnn.model.faster_rcnn import FasterRCNN


def accelerate(network: FasterRCNN, *, for_: Literal["training", "inference"]) -> FasterRCNN:
    """The network with faster layers.

    Args:
        network: any.
        for_: "training" exchanges layers in place: frozen batch norms are merged into the convolutions before them; on
            a CPU, the fully connected layers of the box head use oneDNN, and the gradient of the RPN's convolutions is
            computed from the sampled cells alone. "inference" gives a copy whose batch norms are part of the
            convolutions' weights; it cannot be trained.
    """
    if for_ == "inference":
        network = copy.deepcopy(network)
    for part in (network.backbone, network.box_head):
        merge_frozen_norms(part)
    use_onednn(network.box_head.body)
    if for_ == "training":
        use_sampled_convs(network.rpn)
    else:
        # Padded sides are multiples of the coarsest stride.
        fold_batch_norms(network.backbone, even_sides=network.size_divisor % network.backbone.strides[-1] == 0)
        fold_batch_norms(network.box_head, even_sides=False)
    return network
