"""Decoding pictures: whatever Pillow or torchvision can read becomes uint8 RGB, upright.

JPEG, PNG, WebP and GIF go through torchvision (three times as fast), the rest through Pillow. The format is told
by the content; a wrong extension does not matter.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from fasterrcnn.drawing import upright_rgb
from fasterrcnn.errors import ImageError

EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jp2", ".avif", ".mpo", ".ppm")
)
"""File names that are looked for in a folder; a file that is named outright may have any."""

MAX_PIXELS = 250_000_000
"""A header that claims more is refused before memory is taken."""

_TORCHVISION_FORMATS = frozenset(("JPEG", "MPO", "PNG", "WEBP"))
_EXIF_ORIENTATION = 274
_SIDEWAYS = frozenset((5, 6, 7, 8))


def read_image(path: Path) -> UInt8[Tensor, "3 h w"]:
    """A picture file as RGB, 0..255, with its EXIF orientation applied.

    Palettes and grey values become colours, transparency is dropped, 16 bits become 8 by scaling.

    Raises:
        ImageError: the file is missing, no picture, truncated or absurdly large; the message names it.
    """
    try:
        with Image.open(path) as picture:
            _check_size(picture, path)
            if picture.format in _TORCHVISION_FORMATS:
                decoded = _read_with_torchvision(path)
                if decoded is not None:
                    return decoded
            return from_pil(picture)
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise ImageError(f"{path}: not a picture that can be decoded") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: damaged picture ({str(error).splitlines()[0]})") from None


def read_size_hw(path: Path) -> tuple[int, int]:
    """Height and width of a picture file, upright, from its header alone.

    Raises:
        ImageError: the file is missing or no picture.
    """
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            sideways = picture.getexif().get(_EXIF_ORIENTATION) in _SIDEWAYS
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise ImageError(f"{path}: not a picture that can be decoded") from None
    return (width, height) if sideways else (height, width)


def from_pil(picture: Image.Image) -> UInt8[Tensor, "3 h w"]:
    """A Pillow picture of any mode as RGB, 0..255, with its EXIF orientation applied."""
    return from_array(np.asarray(upright_rgb(picture)))


def from_array(pixels: NDArray[np.uint8]) -> UInt8[Tensor, "3 h w"]:
    """An RGB array of height x width x 3, 0..255, as a tensor."""
    # A copy: the memory of a Pillow picture is read-only, and torch warns about it.
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)


def _read_with_torchvision(path: Path) -> Tensor | None:
    """The decoded file, or None where torchvision gives up and Pillow should say what is wrong."""
    data = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
    try:
        decoded: Tensor = decode_image(data, mode=ImageReadMode.RGB, apply_exif_orientation=True)
    except RuntimeError:
        return None
    if decoded.dtype == torch.uint16:
        return (decoded.to(torch.int32) // 257).to(torch.uint8)
    return decoded


def _check_size(picture: Image.Image, path: Path) -> None:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"{path}: {width} x {height} pixels are more than {MAX_PIXELS:,}; cut it into tiles")
