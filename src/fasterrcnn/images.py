"""Image files: whatever Pillow can read becomes RGB of 8 bits, upright. Needs no torch.

The content of a file decides on its format; a wrong extension does not matter. Of a file with several pages or frames,
the first counts.
"""

import io
import os
import struct
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fasterrcnn import pixel_values, tiff
from fasterrcnn.errors import ImageError, MissingExtraError, first_line
from fasterrcnn.pixel_options import AS_STORED, PixelOptions
from fasterrcnn.pixel_values import PixelError, ValueFacts
from fasterrcnn.signatures import HEAD_BYTES, is_heif, is_tiff, why_unreadable

_NAMES = """
    .jpg .jpeg .jpe .jfif .jif .mpo .png .apng .webp .avif .avifs .heic .heif .hif .tif .tiff .bmp .dib .gif
    .jp2 .j2k .j2c .jpc .jpf .jpx .ppm .pgm .pbm .pnm .pfm .tga .icb .vda .vst .sgi .rgb .rgba .bw .ras
    .qoi .psd .pcx .dcx .dds .ico .icns .cur .xbm .xpm .fits .fit .im .msp .pcd .pxr
"""
EXTENSIONS = frozenset(_NAMES.split())
"""Extensions of the images of a folder; a file that the user names may have any.

All formats with pixels that Pillow reads, and HEIC; neither documents (pdf, ps) nor drawings (svg) nor videos.
"""

MAX_DECODED_PIXELS = 178_956_970
"""An image whose header states more is refused before memory is allocated; Pillow's own limit."""

_BYTES = Path("image in memory")
"""What messages call an image that has no file."""

_MANY_FRAMES = frozenset((".gif", ".tif", ".tiff", ".webp", ".png", ".apng", ".avif", ".avifs"))
"""Extensions of formats that can hold several images."""

_EXIF_ORIENTATION = 274
SIDEWAYS = frozenset((5, 6, 7, 8))
"""EXIF orientations that exchange width and height."""

_BANDED_MODES = frozenset(("L", "LA", "RGB", "RGBA", "RGBX", "CMYK"))


class ImageHeader(NamedTuple):
    """What is stated before the pixels."""

    size_hw: tuple[int, int]  # upright
    orientation: int  # EXIF's 1..8, how the stored image has to be turned

    @property
    def stored_hw(self) -> tuple[int, int]:
        """Height and width as the image is stored, before it is turned upright."""
        return self.size_hw[::-1] if self.orientation in SIDEWAYS else self.size_hw


class _UnknownTiffError(ImageError):
    """A TIFF that Pillow cannot read."""


def read_image(path: Path, options: PixelOptions = AS_STORED) -> Image.Image:
    """An image file as RGB with its EXIF orientation applied.

    Palettes and grey values become colours, transparency is dropped; values of more than 8 bits are scaled by the range
    of the options.

    Raises:
        ImageError: the file is missing, no image, truncated or absurdly large, or has bands or values that the options
            would have to state; the message names it.
    """
    return _read(_checked(path), path, options)


def decode_image(content: bytes, options: PixelOptions = AS_STORED) -> Image.Image:
    """The content of an image file as RGB with its EXIF orientation applied; see `read_image`.

    Raises:
        ImageError: as `read_image`.
    """
    return _read(io.BytesIO(content), _BYTES, options)


def read_reduced(
    path: Path, at_least_hw: tuple[int, int], options: PixelOptions = AS_STORED
) -> tuple[Image.Image, int]:
    """As `read_image`, but a JPEG far larger than needed is decoded at 1/2, 1/4 or 1/8 of its size, and much faster.

    Args:
        path: the image file.
        at_least_hw: height and width that suffice, of the upright image.
        options: how values become RGB.

    Returns:
        The image, and how many original pixels wide and high each of its pixels is. The last row and column may
        reach beyond the original.

    Raises:
        ImageError: as `read_image`.
    """
    short, long = sorted(at_least_hw)
    with suppress(_UnknownTiffError), _header(_checked(path), path) as image:
        width, height = image.size
        drafted = image.draft(None, (long, short) if width > height else (short, long))
        if drafted is not None:
            return _decoded(image, path, options), round(width / drafted[1][2])
    return read_image(path, options), 1


def read_stretched(path: Path, bands: tuple[int, int, int] | None = None) -> tuple[Image.Image, ValueFacts | None]:
    """As `read_image`, to be shown or compared: values of more than 8 bits are scaled by the range of this image.

    Of a TIFF with many bands, the given ones are shown, or the first three.

    Returns:
        The image, and facts about its values; None of 8 bits and where all values are equal.

    Raises:
        ImageError: as `read_image`.
    """
    source = _checked(path)
    with suppress(_UnknownTiffError), _header(source, path) as image, _naming(path):
        return stretched_rgb(image)
    values, _ = _bands(source, path)
    with _naming(path):
        first = (1, 2, 3) if values.shape[2:] > (2,) else None
        return _stretched(pixel_values.choose_bands(values, bands or first))


def has_deep_pixels(path: Path) -> bool:
    """Whether the values of a file need a range, by its header; False of one that cannot be read."""
    with suppress(ImageError):
        try:
            with _header(_checked(path), path) as image:
                return is_deep(image)
        except _UnknownTiffError:
            return True
    return False


def read_size_hw(path: Path) -> tuple[int, int]:
    """Height and width of an image file, upright, from its header alone.

    Raises:
        ImageError: the file is missing, no image or absurdly large.
    """
    return read_header(path).size_hw


def read_header(path: Path) -> ImageHeader:
    """Size and orientation of an image file, from its header alone.

    Raises:
        ImageError: the file is missing, no image or absurdly large.
    """
    source = _checked(path)
    try:
        with _header(source, path) as image:
            width, height = image.size
            try:
                orientation = _orientation(image, path)
            except Exception as error:  # decoders raise many types
                raise ImageError(f"{path}: damaged EXIF data ({error})") from None
            # Pillow gives the upright size of a TIFF already.
            sideways = image.format != "TIFF" and orientation in SIDEWAYS
    except _UnknownTiffError:
        (height, width), orientation = _tiff_size(source, path)
        sideways = orientation in SIDEWAYS
    return ImageHeader((width, height) if sideways else (height, width), orientation)


def count_frames(path: Path) -> int:
    """How many pages or frames an image file has, of which the first counts; 1 of one that cannot be read."""
    if path.suffix.lower() in _MANY_FRAMES:
        with suppress(Exception), _header(_checked(path), path) as image:
            return int(getattr(image, "n_frames", 1))
    return 1


def is_deep(image: Image.Image) -> bool:
    """Whether an image has more than 8 bits in its only band."""
    return image.mode == "F" or image.mode.startswith("I")


def upright_rgb(image: Image.Image, options: PixelOptions = AS_STORED) -> Image.Image:
    """Any Pillow image as RGB with its EXIF orientation applied.

    Palettes and grey values become colours, transparency is dropped; values of more than 8 bits are scaled by the range
    of the options.

    Raises:
        ValueError: values of an unknown range, or a band that the image does not have.
    """
    image.load()  # PNG may have its EXIF data at the end
    upright = image if image.getexif().get(_EXIF_ORIENTATION, 1) == 1 else ImageOps.exif_transpose(image)
    if is_deep(upright):
        return pixel_values.to_rgb(np.asarray(upright), options)
    if options.bands is not None:
        banded = upright if upright.mode in _BANDED_MODES else upright.convert("RGB")
        return pixel_values.to_rgb(np.asarray(banded), options)
    return upright.convert("RGB")


def stretched_rgb(image: Image.Image) -> tuple[Image.Image, ValueFacts | None]:
    """As `upright_rgb`, to be shown or compared: values of more than 8 bits are scaled by the range of this image.

    Returns:
        The image, and facts about its values; None of 8 bits and where all values are equal.
    """
    upright = ImageOps.exif_transpose(image)
    return _stretched(np.asarray(upright)) if is_deep(upright) else (upright.convert("RGB"), None)


def image_files(folder: Path, *, deep: bool = False) -> list[Path]:
    """Files of a folder that are images by their names, sorted; hidden ones are left out."""
    paths = []
    for place, folders, files in os.walk(folder) if os.path.isdir(folder) else ():
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if deep else []
        parent = Path(place)
        paths += [parent / name for name in sorted(filter(is_image_name, files))]
    return paths


def image_names(folder: Path) -> list[str]:
    """The names of the files that `image_files` gives of a folder."""
    _, _, files = next(os.walk(folder), ("", [], []))
    return sorted(filter(is_image_name, files))


def other_files(folder: Path, ignored: Collection[str] = ()) -> str:
    """The files of a folder, not below it, that `image_files` leaves out, in a few words; empty if there are none.

    Of hidden files, those that have the name of an image; none of the ignored extensions.
    """
    groups: dict[str, list[str]] = {}
    for name in sorted(os.listdir(folder)):
        extension = os.path.splitext(name)[1].lower()
        is_hidden_file = name.startswith(".") and extension not in EXTENSIONS
        is_counted_elsewhere = is_image_name(name) or is_hidden_file or extension in ignored
        if not is_counted_elsewhere and os.path.isfile(folder / name):
            groups.setdefault(extension, []).append(name)
    return ", ".join(
        names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more {extension or 'without extension'}"
        for extension, names in groups.items()
    )


def is_image_name(name: str) -> bool:
    """Whether a file name is that of an image; hidden files are none."""
    return not name.startswith(".") and name[name.rfind(".") :].lower() in EXTENSIONS


def _orientation(image: Image.Image, path: Path) -> int:
    if image.format != "PNG" or _has_exif_chunk(path):
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    else:  # Pillow would decode all pixels to search for EXIF data after them
        orientation = Image.Image.getexif(image).get(_EXIF_ORIENTATION)
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


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


def _read(source: Path | io.BytesIO, path: Path, options: PixelOptions) -> Image.Image:
    with suppress(_UnknownTiffError), _header(source, path) as image:
        if image.format != "TIFF" or not tiff.loses_values(image, options):
            return _decoded(image, path, options)
    values, orientation = _bands(source, path)
    with _naming(path):
        rgb = pixel_values.to_rgb(values, options)
        rgb.getexif()[_EXIF_ORIENTATION] = orientation
        return ImageOps.exif_transpose(rgb)


def _stretched(values: NDArray[Any]) -> tuple[Image.Image, ValueFacts | None]:
    facts = None if values.dtype == np.uint8 else pixel_values.measure(values)
    return pixel_values.to_rgb(values, PixelOptions((facts.low, facts.high) if facts else (0, 1))), facts


def _decoded(image: Image.Image, path: Path, options: PixelOptions) -> Image.Image:
    with _naming(path):
        return upright_rgb(image, options)


def _bands(source: Path | io.BytesIO, path: Path) -> tuple[NDArray[Any], int]:
    """All values of a TIFF as they are stored, and its EXIF orientation."""
    _tiff_size(source, path)
    with _naming(path):
        return tiff.read_bands(_rewound(source))


def _tiff_size(source: Path | io.BytesIO, path: Path) -> tuple[tuple[int, int], int]:
    """Height and width of a TIFF as it is stored, and its EXIF orientation."""
    with _naming(path):
        (height, width), orientation = tiff.read_size(_rewound(source))
    _check_size(width, height, path)
    return (height, width), orientation


def _rewound(source: Path | io.BytesIO) -> Path | io.BytesIO:
    if isinstance(source, io.BytesIO):
        source.seek(0)
    return source


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turns all errors of decoders, which are of many types, into one that names the file."""
    try:
        yield
    except MissingExtraError as error:
        reason = f"not an image that can be decoded (a damaged TIFF, or of many bands or 16-bit colours: {error})"
        raise ImageError(f"{path}: {reason}") from None
    except PixelError as error:
        raise ImageError(f"{path}: {error}") from None
    except Exception as error:
        raise ImageError(f"{path}: damaged image ({first_line(error)})") from None


def _checked(path: Path) -> Path:
    """The path, unless it is no file."""
    if path.exists() and not path.is_file():
        raise ImageError(f"{path}: not a file")  # opening a pipe would wait for its writer
    return path


def _header(source: Path | io.BytesIO, path: Path) -> Image.Image:
    """The image with its header read and its size checked, which the caller closes; messages call it by the path."""
    try:
        image = _open(source)
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{path}: more than {MAX_DECODED_PIXELS:,} pixels; cut it into tiles") from None
    except Exception:  # decoders raise many types
        head = _head(source)
        if is_tiff(head):
            raise _UnknownTiffError(f"{path}: a TIFF that Pillow cannot read") from None
        reason = why_unreadable(head)
        raise ImageError(f"{path}: not an image that can be decoded{reason and f' ({reason})'}") from None
    try:
        _check_size(*image.size, path)
    except ImageError:
        image.close()
        raise
    return image


def _open(source: Path | io.BytesIO) -> Image.Image:
    with warnings.catch_warnings():
        # Pillow warns above half of its limit, which photographs of phones exceed.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            return Image.open(source)
        except UnidentifiedImageError:
            if not is_heif(_head(source)):
                raise
            with suppress(ImportError):
                import_module("pillow_heif").register_heif_opener()
            return Image.open(_rewound(source))


def _check_size(width: int, height: int, path: Path) -> None:
    if width * height > MAX_DECODED_PIXELS:
        raise ImageError(f"{path}: {width} x {height} is more than {MAX_DECODED_PIXELS:,} pixels; cut it into tiles")


def _head(source: Path | io.BytesIO) -> bytes:
    """The first bytes of a file; none of one that cannot be opened."""
    if isinstance(source, io.BytesIO):
        return source.getvalue()[:HEAD_BYTES]
    with suppress(OSError), source.open("rb") as file:
        return file.read(HEAD_BYTES)
    return b""
