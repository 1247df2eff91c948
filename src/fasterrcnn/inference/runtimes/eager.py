"""The runtimes that need no conversion: ``torch``, and ``winograd``, which is the same with another 3x3 convolution.

Axes: b images, c channels, h w pixels or cells, r regions, s side of a pooled map, f features, o outputs.
"""

import copy

from jaxtyping import Float
from torch import Tensor, nn

from fasterrcnn.acceleration import winograd
from fasterrcnn.acceleration.onednn_linear import multiply
from fasterrcnn.inference.runtimes.parts import DensePart, HeadPart, PartName, Program, ProgramStages
from fasterrcnn.model.box_head import StageBody
from fasterrcnn.model.faster_rcnn import FasterRCNN


def torch_stages(model: FasterRCNN, *, fast_3x3: bool = False) -> ProgramStages:
    """Layer by layer, on every device.

    Args:
        model: whose weights are used, not copied (but for those of the first fully connected layer).
        fast_3x3: compute 3x3 convolutions by Winograd's algorithm where it is faster here; CPU only.
    """

    def make(part: PartName) -> Program:
        if part == "head":
            return make_head(model, fast=model.mean.device.type == "cpu")
        return fast_dense(model) if fast_3x3 else DensePart(model).eval()

    return ProgramStages(model, make)


def fast_dense(model: FasterRCNN) -> DensePart:
    """The dense part with layers that use Winograd's algorithm; all other weights are shared with the model."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    part = copy.deepcopy(DensePart(model), shared).eval()
    winograd.replace_convolutions(part)
    return part


def make_head(model: FasterRCNN, *, fast: bool) -> nn.Module:
    """The box head: with products as convolutions if it has fully connected layers and ``fast`` is set."""
    if fast and not isinstance(model.box_head.body, StageBody):
        return ConvolutionHead(HeadPart(model)).eval()
    return HeadPart(model).eval()


class ConvolutionHead(nn.Module):
    """A fully connected head whose products are computed by oneDNN (`fasterrcnn.acceleration.onednn_linear`).

    The rows of the first product are the regions as they lie in memory, channels last: its weights are sorted likewise,
    once.
    """

    def __init__(self, head: HeadPart) -> None:
        super().__init__()
        layers = list(head.body.children())
        first = next(number for number, layer in enumerate(layers) if isinstance(layer, nn.Linear))
        self.convs = nn.Sequential(
            *(layer for layer in layers[:first] if not isinstance(layer, nn.Identity | nn.Flatten))
        )
        self.layers = [layer for layer in layers[first:] if isinstance(layer, nn.Linear)]
        self.class_logits = head.class_logits
        self.box_deltas = head.box_deltas
        self._sorted: Tensor | None = None

    def forward(self, pooled: Float[Tensor, "r s s c"]) -> tuple[Tensor, Tensor]:
        """Class logits and deltas."""
        if len(self.convs):
            pooled = self.convs(pooled.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = pooled.reshape(len(pooled), -1)
        for number, layer in enumerate(self.layers):
            weight = layer.weight if number else self._first_weight(pooled)
            x = multiply(x, weight, layer.bias).relu_()
        return (
            multiply(x, self.class_logits.weight, self.class_logits.bias),
            multiply(x, self.box_deltas.weight, self.box_deltas.bias),
        )

    def _first_weight(self, pooled: Float[Tensor, "r s s c"]) -> Float[Tensor, "o f"]:
        """Its columns run over channels first; the pooled numbers over places first."""
        if self._sorted is None:
            _, s, _, c = pooled.shape
            weight = self.layers[0].weight.detach()
            self._sorted = weight.view(-1, c, s, s).permute(0, 2, 3, 1).reshape(len(weight), -1)
        return self._sorted
