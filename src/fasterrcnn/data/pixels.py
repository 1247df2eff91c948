"""Images as tensors: RGB, 0..255, channels first."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fasterrcnn.config import InputConfig
from fasterrcnn.data.images import read_image, read_reduced
from fasterrcnn.ops import image as image_ops
from fasterrcnn.ops.opencv_resize import resize_bilinear
from fasterrcnn.reporting.drawing import upright_rgb


def read_image_tensor(path: Path) -> UInt8[Tensor, "3 h w"]:
    """An image file as RGB, 0..255, with its EXIF orientation applied.

    Palettes and grey values become colours, transparency is dropped, 16 bits become 8 by scaling.

    Raises:
        ImageError: the file is missing, no image, truncated or absurdly large; the message names it.
    """
    return from_array(np.asarray(read_image(path)))


def read_reduced_image(path: Path, at_least_hw: tuple[int, int]) -> tuple[UInt8[Tensor, "3 h w"], int]:
    """As `read_image`, but a JPEG far larger than needed comes smaller; see `fasterrcnn.data.images.read_reduced`."""
    image, divisor = read_reduced(path, at_least_hw)
    return from_array(np.asarray(image)), divisor


def from_pil(image: Image.Image) -> UInt8[Tensor, "3 h w"]:
    """A Pillow image of any mode as RGB, 0..255, with its EXIF orientation applied."""
    return from_array(np.asarray(upright_rgb(image)))


def from_array(pixels: NDArray[np.uint8]) -> UInt8[Tensor, "3 h w"]:
    """An RGB array of height x width x 3, 0..255, as a tensor."""
    # A copy: the memory of a Pillow image is read-only, and torch warns about it.
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)


def resize_to_input(
    pixels: UInt8[Tensor, "3 h w"] | Float[Tensor, "3 h w"],
    config: InputConfig,
    to_hw: tuple[int, int] | None = None,
) -> Float[Tensor, "3 th tw"]:
    """An image (uint8 0..255, or float 0..1) as float RGB in 0..1, resized as the configuration states.

    Pillow and OpenCV round to whole levels of 0..255, which weights that were trained with them expect. A float
    image has no such levels and is resized by torch.

    Args:
        pixels: the image, or a part of one.
        config: method and size.
        to_hw: height and width of the result; default: `InputConfig.resized_hw` of the image.
    """
    to_hw = to_hw or config.resized_hw((pixels.shape[-2], pixels.shape[-1]))
    if config.resize == "torch" or pixels.dtype != torch.uint8 or pixels.shape[-2:] == to_hw:
        return image_ops.to_input(pixels, to_hw, antialias=config.antialias)
    if config.resize == "pillow":
        height, width = to_hw
        pil_image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().cpu().numpy())
        levels = from_array(np.asarray(pil_image.resize((width, height), Image.Resampling.BILINEAR)))
    else:
        levels = resize_bilinear(pixels, to_hw)
    return image_ops.to_input(levels.to(pixels.device), to_hw, antialias=False)
