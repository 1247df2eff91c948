"""From an image to the network input: one function for the data set, the detector and every runtime.

Axes: h w pixels of the image, th tw of the network input, c colours. Images are RGB, channels first.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv_functional

from fasterrcnn.structures import MEMORY_FORMAT, ImageBatch, move

_OPENCV_ONE = 2048
"""A weight of 1 in OpenCV, whose weights have 11 bits."""


def to_input(
    image: UInt8[Tensor, "3 h w"] | Float[Tensor, "3 h w"],
    to_hw: tuple[int, int],
    *,
    antialias: bool,
    method: Literal["torch", "pillow", "opencv"] = "torch",
    device: torch.device | str | None = None,
) -> Float[Tensor, "3 th tw"]:
    """An image (uint8 0..255, or float 0..1) as float RGB in 0..1 at the wanted size, resized bilinearly.

    Args:
        image: the image, or a part of one.
        to_hw: height and width to reach; the same size copies no pixel.
        antialias: average over the source pixels when shrinking (Detectron2); torchvision's detectors do not.
        method: "pillow" and "opencv" round to whole levels of 0..255, as weights expect that were trained with these
            libraries. A float image has no such levels and is always resized by torch.
        device: where the result is wanted; default is where the image is. Torch resizes there, the others resize first.
    """
    if method != "torch" and image.dtype == torch.uint8 and image.shape[-2:] != to_hw:
        resize = _resize_as_pillow if method == "pillow" else resize_as_opencv
        image = resize(image, to_hw)
    image = image if device is None or image.device == torch.device(device) else move(image, device)
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
    pixels = pixels.contiguous(memory_format=MEMORY_FORMAT)
    for canvas, image, (h, w) in zip(pixels, images, sizes, strict=True):
        canvas[:, :h, :w] = image
    return ImageBatch(pixels, sizes)


def pad_to(side: int, divisor: int) -> int:
    """The smallest multiple of the divisor that holds the side."""
    return -(-side // divisor) * divisor


def _resize_as_pillow(pixels: UInt8[Tensor, "3 h w"], to_hw: tuple[int, int]) -> UInt8[Tensor, "3 th tw"]:
    to_pil_image: Callable[[Tensor], Any] = tv_functional.to_pil_image
    image = tv_functional.resize(to_pil_image(pixels.cpu()), list(to_hw), InterpolationMode.BILINEAR)
    return torch.as_tensor(tv_functional.pil_to_tensor(image)).to(pixels.device)


def resize_as_opencv(pixels: UInt8[Tensor, "c h w"], to_hw: tuple[int, int]) -> UInt8[Tensor, "c th tw"]:
    """The image at the wanted size, as ``cv2.resize(..., interpolation=cv2.INTER_LINEAR)`` gives it.

    Each target pixel reads four pixels of the source, however much the image shrinks.
    """
    top, bottom, from_top, from_bottom = _opencv_taps(pixels.shape[1], to_hw[0], pixels.device, whole_at_ends=False)
    left, right, from_left, from_right = _opencv_taps(pixels.shape[2], to_hw[1], pixels.device, whole_at_ends=True)
    source = pixels.int()
    # The shifts drop the bits that OpenCV drops between its two passes.
    rows = (source[:, :, left] * from_left + source[:, :, right] * from_right) >> 4
    upper, lower = rows[:, top] * from_top[:, None] >> 16, rows[:, bottom] * from_bottom[:, None] >> 16
    return (upper + lower + 2 >> 2).byte()


def _opencv_taps(
    size: int, target: int, device: torch.device, *, whole_at_ends: bool
) -> tuple[Int64[Tensor, " t"], Int64[Tensor, " t"], Tensor, Tensor]:
    """The two neighbours of each target pixel along one axis, and their weights of 0..2048.

    Beyond the first and the last pixel both neighbours are that pixel. It has the whole weight, or both parts of it,
    which rounds otherwise: OpenCV does the one for columns and the other for rows.
    """
    scale = 1 / (target / size)  # as OpenCV computes it
    place = ((torch.arange(target, dtype=torch.float64) + 0.5) * scale - 0.5).float()
    low = place.floor()
    share = place - low
    if whole_at_ends:
        share = torch.where((low < 0) | (low >= size - 1), 0.0, share)
    high = (low + 1).clamp(0, size - 1).long()
    low = low.clamp(0, size - 1).long()
    weights = [(part * _OPENCV_ONE).round().int().to(device) for part in (1 - share, share)]
    return low.to(device), high.to(device), weights[0], weights[1]
