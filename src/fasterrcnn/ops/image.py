"""From an image to the network input: one function for the data set, the detector and every runtime.

Axes: h w pixels. Images are RGB, channels first.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from fasterrcnn.ops.sizes import pad_to, resized_hw
from fasterrcnn.structures import ImageBatch

__all__ = ["make_batch", "pad_to", "resized_hw", "to_input"]


def to_input(
    image: UInt8[Tensor, "3 h w"] | Float[Tensor, "3 h w"], to_hw: tuple[int, int], *, antialias: bool
) -> Float[Tensor, "3 th tw"]:
    """An image (uint8 0..255, or float 0..1) as float RGB in 0..1 at the wanted size, resized bilinearly.

    Args:
        image: the image.
        to_hw: height and width to reach; the same size copies no pixel.
        antialias: average over the source pixels when shrinking (Pillow, Detectron2); torchvision's detectors
            do not.
    """
    pixels = image.float() / 255 if image.dtype == torch.uint8 else image
    if pixels.shape[-2:] == to_hw:
        return pixels
    resized = F.interpolate(pixels[None], size=to_hw, mode="bilinear", align_corners=False, antialias=antialias)
    return resized[0]


def make_batch(
    images: Sequence[Float[Tensor, "3 _ _"]],
    *,
    fill: Sequence[float],
    size_divisor: int,
    padded_hw: tuple[int, int] | None = None,
) -> ImageBatch:
    """Stack images of different sizes, padded at the bottom and right to a common multiple of the divisor.

    Args:
        images: RGB in 0..1.
        fill: the mean pixel, so that normalising turns the padding into zeros.
        size_divisor: the padded height and width are multiples of it.
        padded_hw: least padded height and width, where others share the batch.
    """
    sizes = [(image.shape[-2], image.shape[-1]) for image in images]
    shared_hw = padded_hw or (1, 1)
    height = pad_to(max(shared_hw[0], *(h for h, _ in sizes)), size_divisor)
    width = pad_to(max(shared_hw[1], *(w for _, w in sizes)), size_divisor)
    pixels = images[0].new_tensor(fill).view(1, 3, 1, 1).expand(len(images), 3, height, width)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    for canvas, image, (h, w) in zip(pixels, images, sizes, strict=True):
        canvas[:, :h, :w] = image
    return ImageBatch(pixels, sizes)
