"""Decoding pictures: whatever Pillow can read becomes uint8 RGB, upright.

The format is told by the content; a wrong extension does not matter.
"""

import warnings
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fasterrcnn.drawing import upright_rgb
from fasterrcnn.errors import ImageError

EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jp2", ".avif", ".mpo", ".ppm")
)
"""File names that are looked for in a folder; a file that is named outright may have any."""

MAX_PIXELS = 178_956_970
"""A header that claims more is refused before memory is taken: Pillow's own limit."""

_EXIF_ORIENTATION = 274
_SIDEWAYS = frozenset((5, 6, 7, 8))


def read_image(path: Path) -> UInt8[Tensor, "3 h w"]:
    """A picture file as RGB, 0..255, with its EXIF orientation applied.

    Palettes and grey values become colours, transparency is dropped, 16 bits become 8 by scaling.

    Raises:
        ImageError: the file is missing, no picture, truncated or absurdly large; the message names it.
    """
    with _opened(path) as picture:
        try:
            return from_pil(picture)
        except Exception as error:  # every decoder has its own ways to fail on a damaged file
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ImageError(f"{path}: damaged picture ({reason})") from None


def read_size_hw(path: Path) -> tuple[int, int]:
    """Height and width of a picture file, upright, from its header alone.

    Raises:
        ImageError: the file is missing, no picture or absurdly large.
    """
    with _opened(path) as picture:
        width, height = picture.size
        try:
            orientation = picture.getexif().get(_EXIF_ORIENTATION)
        except Exception as error:  # as above
            raise ImageError(f"{path}: damaged EXIF data ({error})") from None
        # Pillow gives the upright size of a TIFF already.
        sideways = picture.format != "TIFF" and orientation in _SIDEWAYS
    return (width, height) if sideways else (height, width)


def from_pil(picture: Image.Image) -> UInt8[Tensor, "3 h w"]:
    """A Pillow picture of any mode as RGB, 0..255, with its EXIF orientation applied."""
    return from_array(np.asarray(upright_rgb(picture)))


def from_array(pixels: NDArray[np.uint8]) -> UInt8[Tensor, "3 h w"]:
    """An RGB array of height x width x 3, 0..255, as a tensor."""
    # A copy: the memory of a Pillow picture is read-only, and torch warns about it.
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)


def _opened(path: Path) -> Image.Image:
    """The file with its header read and its size checked; the caller closes it."""
    try:
        with warnings.catch_warnings():
            # Pillow warns from half of its limit on; phones take such photographs.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(path)
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{path}: more than {MAX_PIXELS:,} pixels; cut it into tiles") from None
    except Exception:  # as above
        raise ImageError(f"{path}: not a picture that can be decoded") from None
    width, height = picture.size
    if width * height > MAX_PIXELS:
        picture.close()
        raise ImageError(f"{path}: {width} x {height} is more than {MAX_PIXELS:,} pixels; cut it into tiles")
    return picture
