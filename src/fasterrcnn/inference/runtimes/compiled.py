"""The runtime ``compiled``: the dense part through torch.compile with frozen weights."""

import os
import threading
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.export import Dim

from fasterrcnn.acceleration.flat_graphs import flat_head
from fasterrcnn.acceleration.winograd import with_winograd
from fasterrcnn.errors import UsageError
from fasterrcnn.files import cache_folder
from fasterrcnn.inference.runtimes.parts import DensePart, HeadPart, Lazy, PartName, Program, ProgramStages
from fasterrcnn.model.faster_rcnn import FasterRCNN

_SMALLEST = 96
"""Smallest side in pixels that the compiled program accepts; maps of one cell would need another program."""

_LARGEST = 2**16


def compiled_stages(model: FasterRCNN, *, fast_3x3: bool) -> ProgramStages:
    """The dense part compiled, by Winograd's algorithm where ``fast_3x3`` and it is faster here; the head as it is."""

    def make(part: PartName) -> Program:
        if part == "head":
            return HeadPart(flat_head(model)).eval()
        return CompiledDense(DensePart(with_winograd(model) if fast_3x3 else model).eval(), model.size_divisor)

    return ProgramStages(model, make)


class CompiledDense:
    """One program for all sizes of images, one image at a time.

    Compiling takes half a minute or more, once: the result is kept in ``TORCHINDUCTOR_CACHE_DIR``, by default below
    this library's own cache folder. An image with a side below `_SMALLEST` runs layer by layer.

    Args:
        part: the dense part.
        divisor: padded sides are multiples of it.
    """

    def __init__(self, part: DensePart, divisor: int) -> None:
        self._part, self._divisor = part, divisor
        self._program = Lazy(self._capture)
        self._lock = threading.Lock()

    def __call__(self, pixels: Float[Tensor, "b h w 3"]) -> Sequence[Tensor]:
        """The outputs of the part."""
        if min(pixels.shape[1:3]) < max(_SMALLEST, 3 * self._divisor):
            outputs: Sequence[Tensor] = self._part(pixels)
            return outputs
        each = [self._run(image) for image in torch.split(pixels, 1)]
        return each[0] if len(each) == 1 else [torch.cat(maps) for maps in zip(*each, strict=True)]

    def _run(self, image: Tensor) -> tuple[Tensor, ...]:
        program = self._program()
        # The settings belong to the process, and the first call compiles. Weights freeze only without gradients.
        # Its own choice of layouts fails for sizes that stay free; the weights are channels last already.
        settings = torch._inductor.config.patch(freezing=True, layout_optimization=False)
        try:
            with self._lock, torch.no_grad(), settings:
                outputs = program(image)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            raise UsageError(f"this network cannot be compiled ({str(error).splitlines()[0]})") from error
        return outputs

    def _capture(self) -> Callable[[Tensor], tuple[Tensor, ...]]:
        """The dense part as a graph of plain operations whose height and width are free, ready to be compiled."""
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "inductor"))
        import torch._inductor.config  # noqa: PLC0415 - slow to import

        height, width = (
            self._divisor * Dim(side, min=3, max=_LARGEST // self._divisor) for side in ("rows", "columns")
        )
        example = torch.zeros(1, 5 * self._divisor, 7 * self._divisor, 3)
        try:
            with torch.no_grad():
                shapes = ({0: Dim.STATIC, 1: height, 2: width, 3: Dim.STATIC},)
                graph = torch.export.export(self._part, (example,), dynamic_shapes=shapes)
        except Exception as error:  # the exporter raises many kinds of errors
            raise UsageError(f"this network cannot be compiled ({str(error).splitlines()[0]})") from error
        program: Callable[[Tensor], tuple[Tensor, ...]] = torch.compile(graph.module(check_guards=False), dynamic=True)
        return program
