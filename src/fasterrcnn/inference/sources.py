"""Sources of `predict`: files, folders, globs, videos, cameras, and images in memory.

Axes: h w pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from fasterrcnn.config import InputConfig
from fasterrcnn.errors import DataError, ImageError, UsageError
from fasterrcnn.images import decode_image, image_files, other_files, read_image, read_size_hw, upright_rgb
from fasterrcnn.ops.image import make_batch, to_input
from fasterrcnn.pixel_options import AS_STORED, PixelOptions
from fasterrcnn.structures import ImageBatch

ImageInput = str | Path | bytes | Image.Image | np.ndarray | Tensor
"""One image: a file, the content of a file, a Pillow image, an array or a tensor."""

VIDEO_EXTENSIONS = frozenset(
    (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".mts", ".3gp", ".ogv")
)
"""Suffixes of videos."""

_CHANNELS = (1, 3, 4)
"""Grey, RGB, and RGB with alpha, which is dropped."""


@dataclass(frozen=True)
class LoadedImage:
    """An image in memory, and where it came from."""

    pixels: UInt8[Tensor, "3 h w"] | Float[Tensor, "3 h w"]  # RGB, uint8 0..255 or float 0..1
    source: Path | None = None  # its file
    image: Image.Image | None = None  # the same to draw on, where there is no image file
    frame: int | None = None  # its number in a video, from 0
    seconds: float | None = None  # when it is shown, from the start of the video
    options: PixelOptions = AS_STORED  # how the values of file or image became RGB

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[-2], self.pixels.shape[-1]

    @property
    def origin(self) -> dict[str, Any]:
        """What `Detections` keep of it."""
        shown = {"source": self.source, "image": self.image, "options": self.options}
        return {**shown, "frame": self.frame, "seconds": self.seconds}


def is_video(source: object) -> bool:
    """Whether a source is a video file, by its name, or the number of a camera."""
    if isinstance(source, str | Path):
        return Path(source).suffix.lower() in VIDEO_EXTENSIONS and not is_many(source)
    return isinstance(source, int) and not isinstance(source, bool)


def is_many(source: object) -> bool:
    """Whether a source stands for any number of files: a folder or a glob."""
    if not isinstance(source, str | Path):
        return False
    return Path(source).is_dir() or (any(c in str(source) for c in "*?[") and not Path(source).exists())


def find_files(source: str | Path) -> list[Path]:
    """Image files of a folder (not below it), of a glob, or the one file itself, sorted by name.

    Hidden files are left out.

    Raises:
        DataError: nothing is there.
    """
    path = Path(source)
    if path.is_dir():
        if images := image_files(path):
            return images
        raise DataError(f"{path}: no images in this folder; in it are: {other_files(path) or 'no files'}")
    if not is_many(source):
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
        return [path]
    anchor = Path(path.anchor) if path.anchor else Path()
    matches = anchor.glob(str(path.relative_to(path.anchor)))
    if files := sorted(match for match in matches if match.is_file() and not match.name.startswith(".")):
        return files
    raise DataError(f"{path}: no file matches")


def load_image(image: ImageInput, options: PixelOptions = AS_STORED) -> LoadedImage:
    """One image as RGB pixels, with what is needed to draw on it later.

    The options state how the values of files and Pillow images with more than 8 bits become RGB, and two-dimensional
    arrays of 16 bits.

    Raises:
        ImageError: a file that cannot be decoded.
        UsageError: an array or tensor that is not an image.
    """
    if isinstance(image, str | Path):
        return LoadedImage(pil_to_tensor(read_image(Path(image), options)), source=Path(image), options=options)
    if isinstance(image, bytes):
        image = decode_image(image, options)
    elif isinstance(image, np.ndarray) and image.dtype == np.uint16 and image.ndim == 2 and image.size:
        image = Image.fromarray(image)
    if isinstance(image, Image.Image):
        return LoadedImage(_from_pil(image, options), image=image, options=options)
    if isinstance(image, np.ndarray):
        pixels = _check_tensor(_from_array(image))
    elif isinstance(image, Tensor):
        pixels = _check_tensor(image)
    else:
        raise UsageError(f"cannot read an image from a {type(image).__name__}")
    return LoadedImage(pixels, image=_to_pil(pixels))


def size_hw(image: Any) -> tuple[int, int]:
    """Height and width of an image, from its header if it is a file; (0, 0) of one that cannot be read."""
    if isinstance(image, LoadedImage):
        return image.hw
    if isinstance(image, str | Path):
        try:
            return read_size_hw(Path(image))
        except ImageError:
            return 0, 0
    if isinstance(image, Image.Image):
        return image.height, image.width
    shape = tuple(getattr(image, "shape", ()))
    return (0, 0) if len(shape) < 2 else (shape[:2] if isinstance(image, np.ndarray) else shape[-2:])


def _from_pil(image: Image.Image, options: PixelOptions) -> Tensor:
    try:
        return torch.as_tensor(pil_to_tensor(upright_rgb(image, options)))
    except (OSError, ValueError) as error:
        raise ImageError(f"the Pillow image cannot be decoded ({error})") from None


def _to_pil(pixels: Tensor) -> Image.Image:
    as_bytes = pixels if pixels.dtype == torch.uint8 else (pixels * 255).round().clamp(0, 255).byte()
    return Image.fromarray(as_bytes.permute(1, 2, 0).contiguous().cpu().numpy())


def _from_array(image: NDArray[Any]) -> Tensor:
    """An array of height x width, or of height x width x channels, channels first."""
    kind_is_known = image.dtype == np.uint8 or image.dtype.kind == "f"
    grey = image.ndim == 2
    if not kind_is_known or not (grey or (image.ndim == 3 and image.shape[2] in _CHANNELS)):
        raise UsageError(
            "an array must be height x width x 3 (RGB), uint8 0..255 or float 0..1, or grey, or with alpha, "
            f"not {image.dtype} {image.shape}"
        )
    # A copy, because torch supports neither read-only memory nor negative strides.
    return torch.from_numpy(np.array(image[..., None] if grey else image)).permute(2, 0, 1)


def _check_tensor(image: Tensor) -> Tensor:
    """RGB of a tensor of 1, 3 or 4 channels."""
    if image.ndim != 3 or image.shape[0] not in _CHANNELS:
        raise UsageError(f"a tensor must be 3 x height x width (RGB), not {tuple(image.shape)}")
    if image.numel() == 0:
        raise UsageError(f"the image has no pixels: channels x height x width is {tuple(image.shape)}")
    rgb = image.expand(3, -1, -1) if image.shape[0] == 1 else image[:3]
    if rgb.dtype == torch.uint8:
        return rgb
    if not rgb.is_floating_point():
        raise UsageError(f"a tensor must be uint8 0..255 or float 0..1, not {rgb.dtype}")
    low, high = rgb.aminmax()
    if not (low >= -0.01 and high <= 1.01):
        raise UsageError(f"a float tensor must lie in 0..1, not {float(low):g}..{float(high):g}: divide it by 255?")
    return rgb.detach().float()


def batch_of_images(images: Sequence[Tensor], config: InputConfig, device: torch.device) -> ImageBatch:
    """Whole images, as `load_image` reads them, as input of the network: resized, padded, on the device."""
    inputs = [
        to_input(
            pixels,
            config.resized_hw((pixels.shape[-2], pixels.shape[-1])),
            antialias=config.antialias,
            method=config.resize,
            device=device,
        )
        for pixels in images
    ]
    return make_batch(inputs, fill=config.mean, size_divisor=config.size_divisor)
