"""Image files: whatever Pillow can read becomes RGB, upright. Needs no torch.

The content of a file decides on its format; a wrong extension does not matter.
"""

import io
import os
import struct
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fasterrcnn.errors import ImageError

EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jp2", ".avif", ".mpo", ".ppm")
)
"""Extensions of the images of a folder; a file that the user names may have any."""

MAX_DECODED_PIXELS = 178_956_970
"""An image whose header states more is refused before memory is allocated; Pillow's own limit."""

_BYTES = Path("image in memory")
"""What messages call an image that has no file."""

_EXIF_ORIENTATION = 274
_SIDEWAYS = frozenset((5, 6, 7, 8))


def read_image(path: Path) -> Image.Image:
    """An image file as RGB with its EXIF orientation applied.

    Palettes and grey values become colours, transparency is dropped, 16 bits become 8 by scaling.

    Raises:
        ImageError: the file is missing, no image, truncated or absurdly large; the message names it.
    """
    with _opened(path) as image:
        return _decoded(image, path)


def decode_image(content: bytes) -> Image.Image:
    """The content of an image file as RGB with its EXIF orientation applied; see `read_image`.

    Raises:
        ImageError: no image, truncated or absurdly large.
    """
    with _header(io.BytesIO(content), _BYTES) as image:
        return _decoded(image, _BYTES)


def read_reduced(path: Path, at_least_hw: tuple[int, int]) -> tuple[Image.Image, int]:
    """As `read_image`, but a JPEG far larger than needed is decoded at 1/2, 1/4 or 1/8 of its size, and much faster.

    Args:
        path: the image file.
        at_least_hw: height and width that suffice, of the upright image.

    Returns:
        The image, and how many original pixels wide and high each of its pixels is. The last row and column may
        reach beyond the original.

    Raises:
        ImageError: as `read_image`.
    """
    short, long = sorted(at_least_hw)
    with _opened(path) as image:
        width, height = image.size
        drafted = image.draft(None, (long, short) if width > height else (short, long))
        divisor = 1 if drafted is None else round(width / drafted[1][2])
        return _decoded(image, path), divisor


def read_size_hw(path: Path) -> tuple[int, int]:
    """Height and width of an image file, upright, from its header alone.

    Raises:
        ImageError: the file is missing, no image or absurdly large.
    """
    with _opened(path) as image:
        width, height = image.size
        try:
            if image.format != "PNG" or _has_exif_chunk(path):
                orientation = image.getexif().get(_EXIF_ORIENTATION)
            else:  # Pillow would decode all pixels to search for EXIF data after them
                orientation = Image.Image.getexif(image).get(_EXIF_ORIENTATION)
        except Exception as error:  # decoders raise many types
            raise ImageError(f"{path}: damaged EXIF data ({error})") from None
        # Pillow gives the upright size of a TIFF already.
        sideways = image.format != "TIFF" and orientation in _SIDEWAYS
    return (width, height) if sideways else (height, width)


def upright_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow image as RGB with its EXIF orientation applied.

    Palettes and grey values become colours, transparency is dropped, 16 bits become 8 by scaling.

    Raises:
        ValueError: float pixels, whose range is unknown.
    """
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "F":
        raise ValueError("32-bit float pixels; save it with 8 or 16 bits")
    if upright.mode.startswith("I"):
        # Pillow's own conversion of 16-bit grey would clip nearly all of it to white.
        values = np.asarray(upright).astype(np.int64)
        # Mode "I" has 32 bits and may hold either range; I;16 always means 16 bits.
        is_16_bit = upright.mode.startswith("I;16") or values.max(initial=0) > 255
        grey = values.clip(0, 65535) // 257 if is_16_bit else values.clip(0, 255)
        upright = Image.fromarray(grey.astype(np.uint8))
    return upright.convert("RGB")


def image_files(folder: Path, *, deep: bool = False) -> list[Path]:
    """Files of a folder that are images by their names, sorted; hidden ones are left out."""
    paths = []
    for place, folders, files in os.walk(folder) if os.path.isdir(folder) else ():
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if deep else []
        names = [n for n in files if not n.startswith(".") and os.path.splitext(n)[1].lower() in EXTENSIONS]
        paths += [Path(place, name) for name in sorted(names)]
    return paths


def _has_exif_chunk(path: Path) -> bool:
    """Whether a PNG file has EXIF data, before or after its pixels."""
    with path.open("rb") as stream:
        stream.seek(8)
        while len(head := stream.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"eXIf":
                return True
            stream.seek(length + 4, os.SEEK_CUR)
    return False


def _decoded(image: Image.Image, path: Path) -> Image.Image:
    try:
        return upright_rgb(image)
    except Exception as error:  # decoders raise many types on damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ImageError(f"{path}: damaged image ({reason})") from None


def _opened(path: Path) -> Image.Image:
    """The file with its header read and its size checked; the caller closes it."""
    if path.exists() and not path.is_file():
        raise ImageError(f"{path}: not a file")  # opening a pipe would wait for its writer
    return _header(path, path)


def _header(source: Path | io.BytesIO, path: Path) -> Image.Image:
    """The image with its header read and its size checked; messages call it by the path."""
    try:
        with warnings.catch_warnings():
            # Pillow warns above half of its limit, which photographs of phones exceed.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(source)
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{path}: more than {MAX_DECODED_PIXELS:,} pixels; cut it into tiles") from None
    except Exception:  # decoders raise many types
        raise ImageError(f"{path}: not an image that can be decoded") from None
    width, height = image.size
    if width * height > MAX_DECODED_PIXELS:
        image.close()
        raise ImageError(f"{path}: {width} x {height} is more than {MAX_DECODED_PIXELS:,} pixels; cut it into tiles")
    return image
