"""What `predict` takes: a file, a folder, a glob, a Pillow picture, an array, a tensor."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fasterrcnn.data.images import EXTENSIONS
from fasterrcnn.data.pixels import from_array, from_pil, read_image
from fasterrcnn.errors import DataError, ImageError, UsageError

Picture = str | Path | Image.Image | np.ndarray | Tensor


def is_many(source: object) -> bool:
    """Whether a source stands for any number of files: a folder or a glob."""
    if not isinstance(source, str | Path):
        return False
    return Path(source).is_dir() or (any(c in str(source) for c in "*?[") and not Path(source).exists())


def find_files(source: str | Path) -> list[Path]:
    """Picture files of a folder (not below it), of a glob, or the one file itself, sorted by name.

    Raises:
        DataError: nothing is there.
    """
    path = Path(source)
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in EXTENSIONS)
        if not found:
            raise DataError(f"{path}: no pictures in this folder ({', '.join(sorted(EXTENSIONS))})")
        return found
    if not is_many(source):
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
        return [path]
    anchor = Path(path.anchor) if path.anchor else Path()
    found = sorted(p for p in anchor.glob(str(path.relative_to(path.anchor))) if p.is_file())
    if not found:
        raise DataError(f"{path}: no file matches")
    return found


def load_picture(picture: Picture) -> Tensor:
    """One picture as an RGB tensor of 3 x height x width: uint8 0..255, or float 0..1.

    Raises:
        ImageError: a file that cannot be decoded.
        UsageError: an array or tensor that is not an RGB picture; the message says what it is.
    """
    if isinstance(picture, str | Path):
        return read_image(Path(picture))
    if isinstance(picture, Image.Image):
        picture = _from_pil(picture)
    elif isinstance(picture, np.ndarray):
        picture = _from_array(picture)
    elif not isinstance(picture, Tensor):
        raise UsageError(f"cannot read a picture from a {type(picture).__name__}")
    return _check_tensor(picture)


def _from_pil(picture: Image.Image) -> Tensor:
    try:
        return from_pil(picture)
    except (OSError, ValueError) as error:
        raise ImageError(f"the Pillow picture cannot be decoded ({error})") from None


def _from_array(picture: NDArray[Any]) -> Tensor:
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise UsageError(f"an array must be uint8 height x width x 3 (RGB), not {picture.dtype} {picture.shape}")
    return from_array(picture)


def _check_tensor(picture: Tensor) -> Tensor:
    if picture.ndim != 3 or picture.shape[0] != 3:
        raise UsageError(f"a tensor must be 3 x height x width (RGB), not {tuple(picture.shape)}")
    if picture.numel() == 0:
        raise UsageError(f"the picture has no pixels: 3 x height x width is {tuple(picture.shape)}")
    if picture.dtype == torch.uint8:
        return picture
    if not picture.is_floating_point():
        raise UsageError(f"a tensor must be uint8 0..255 or float 0..1, not {picture.dtype}")
    low, high = picture.aminmax()
    if not (low >= -0.01 and high <= 1.01):
        raise UsageError(f"a float tensor must lie in 0..1, not {float(low):g}..{float(high):g}: divide it by 255?")
    return picture.float()
