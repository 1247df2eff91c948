"""The values that move between the parts of the network, as small dataclasses of tensors.

Axes: b images, h w pixels, g ground truth, i ignored regions, p proposals, n detections.
Boxes are xyxy in float32 pixels of the network input (after resizing), continuous: width = x2 - x1.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

CPU = torch.device("cpu")

MEMORY_FORMAT = torch.channels_last
"""How weights, images and maps lie in memory, on every device: the kernels of this library for CPUs need it, and tensor
cores read it. Not measured on a GPU, where float32 on old cards and depthwise layers may be faster in the other format,
`torch.contiguous_format`."""


def no_boxes() -> Float[Tensor, "0 4"]:
    """An empty set of boxes, the ordinary value for an image without objects."""
    return torch.zeros((0, 4))


def move(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on another device; a CUDA GPU that reads pinned memory does not keep the CPU waiting."""
    return tensor.to(device, non_blocking=torch.device(device).type == "cuda")


@dataclass(frozen=True)
class ImageBatch:
    """Images of one batch, padded at the bottom and right to one size.

    Attributes:
        pixels: RGB in 0..1, padded with the mean pixel so that the padding is zero after normalising.
        sizes_hw: height and width of the part of each image that is not padding.
    """

    pixels: Float[Tensor, "b 3 h w"]
    sizes_hw: list[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.sizes_hw)

    @property
    def padded_hw(self) -> tuple[int, int]:
        """Height and width of the padded tensor."""
        return self.pixels.shape[-2], self.pixels.shape[-1]

    def to(self, device: torch.device | str) -> "ImageBatch":
        """The same batch on another device."""
        return ImageBatch(move(self.pixels, device), self.sizes_hw)

    def pin_memory(self) -> "ImageBatch":
        """The same batch in memory that a GPU reads itself; `DataLoader` calls this."""
        return ImageBatch(self.pixels.pin_memory(), self.sizes_hw)


@dataclass(frozen=True)
class ByteBatch:
    """An `ImageBatch` on its way to a GPU, in a quarter of the bytes: pixels are rounded to 256 levels.

    Attributes:
        pixels: RGB in 0..255; where an image has ended, any value.
        sizes_hw: as of an `ImageBatch`.
        fill: the mean pixel in 0..1, for the padding.
    """

    pixels: UInt8[Tensor, "b 3 h w"]
    sizes_hw: list[tuple[int, int]]
    fill: tuple[float, float, float]

    @classmethod
    def of(cls, batch: ImageBatch, fill: tuple[float, float, float]) -> "ByteBatch":
        """The batch in bytes."""
        return cls((batch.pixels * 255).round_().byte(), batch.sizes_hw, fill)

    def to(self, device: torch.device | str) -> ImageBatch:
        """The batch in floats on a device; the padding is exactly the mean pixel."""
        pixels = move(self.pixels, device).float().div_(255)
        for image, (height, width) in zip(pixels, self.sizes_hw, strict=True):
            for channel, value in zip(image, self.fill, strict=True):  # numbers: a tensor would have to be sent, too
                channel[height:] = value
                channel[:, width:] = value
        return ImageBatch(pixels, self.sizes_hw)

    def pin_memory(self) -> "ByteBatch":
        """The same batch in memory that a GPU reads itself; `DataLoader` calls this."""
        return ByteBatch(self.pixels.pin_memory(), self.sizes_hw, self.fill)


@dataclass(frozen=True)
class Target:
    """What is true of one image, in the frame of the network input.

    Attributes:
        boxes: ground-truth boxes; ``(0, 4)`` for an image without objects.
        labels: 0..K-1, indices into the model's classes; background has no label here.
        ignored: regions (crowds, difficult objects) that are neither positives nor negatives.
    """

    boxes: Float[Tensor, "g 4"]
    labels: Int64[Tensor, " g"]
    ignored: Float[Tensor, "i 4"] = field(default_factory=no_boxes)

    def to(self, device: torch.device | str) -> "Target":
        """The same target on another device."""
        return Target(*(move(tensor, device) for tensor in (self.boxes, self.labels, self.ignored)))

    def pin_memory(self) -> "Target":
        """The same target in memory that a GPU reads itself; `DataLoader` calls this."""
        return Target(self.boxes.pin_memory(), self.labels.pin_memory(), self.ignored.pin_memory())


@dataclass(frozen=True)
class Proposals:
    """What the proposals generator found in one image, sorted by falling score.

    Attributes:
        boxes: clipped to the image.
        scores: objectness, 0..1.
    """

    boxes: Float[Tensor, "p 4"]
    scores: Float[Tensor, " p"]


@dataclass(frozen=True)
class RawDetections:
    """Detections of one image in the frame of the network input, sorted by falling score.

    Attributes:
        boxes: clipped to the image.
        scores: 0..1.
        labels: 0..K-1.
    """

    boxes: Float[Tensor, "n 4"]
    scores: Float[Tensor, " n"]
    labels: Int64[Tensor, " n"]


@dataclass(frozen=True)
class Losses:
    """The four losses of Faster R-CNN (Ren et al. 2015, section 3.1.2; Girshick 2015, section 2.3).

    Attributes:
        objectness: is there an object in this anchor?
        rpn_boxes: how far are the positive anchors' boxes off?
        classes: which class is in this region?
        boxes: how far are the positive regions' boxes off?
        weights: what each of the four was divided by, the number of anchors or regions drawn: with these, the losses
            of parts of a batch make the loss of the whole.
    """

    objectness: Float[Tensor, ""]
    rpn_boxes: Float[Tensor, ""]
    classes: Float[Tensor, ""]
    boxes: Float[Tensor, ""]
    weights: Float[Tensor, "4"] = field(default_factory=lambda: torch.ones(4))

    @property
    def total(self) -> Float[Tensor, ""]:
        """The sum that is minimised."""
        return self.objectness + self.rpn_boxes + self.classes + self.boxes

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        return ((f.name, getattr(self, f.name)) for f in fields(self) if f.name != "weights")

    def as_floats(self) -> dict[str, float]:
        """Names and values, the total last, as plain numbers for logs."""
        return {name: float(value.detach()) for name, value in (*self, ("total", self.total))}
