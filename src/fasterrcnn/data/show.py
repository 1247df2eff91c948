"""An image of what training shows to the network: augmented images with their boxes."""

from collections.abc import Sequence
from random import Random

import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor

from fasterrcnn.config import Augmentation, InputConfig
from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage
from fasterrcnn.data.dataset import DetectionDataset
from fasterrcnn.errors import UsageError
from fasterrcnn.reporting.drawing import contact_sheet, draw_boxes
from fasterrcnn.structures import Target

_EPOCHS = 3


def draw_augmented(
    data: AnnotatedData,
    images: Sequence[AnnotatedImage],
    config: InputConfig,
    augmentation: Augmentation,
    count: int,
    seed: int,
) -> Image.Image:
    """One sheet with a row for each of some images: as in detection, then as in three epochs of training.

    Everything is at the network's input size, padding included, in a white frame. Difficult objects and crowds are
    captioned "difficult".

    Args:
        data: where the names of the classes come from.
        images: to choose from; mosaics are made of them too.
        config: of the input.
        augmentation: name of the preset.
        count: images to show; all, where there are fewer.
        seed: chooses the images; a training run with this seed augments them in the same way in its first epochs.

    Raises:
        UsageError: there is no image to show.
        ImageError: an image cannot be decoded.
    """
    if not images or count < 1:
        raise UsageError(f"{data.root}: no images to show")
    plain = DetectionDataset(images, config)
    augmented = DetectionDataset(images, config, augmentation=augmentation, seed=seed)
    examples = []
    for index in sorted(Random(seed).sample(range(len(images)), min(count, len(images)))):
        examples += [plain[index], *(augmented[index, epoch] for epoch in range(1, _EPOCHS + 1))]
    batch, targets = plain.collate(examples)
    drawn = [draw_target(pixels, target, data.classes) for pixels, target in zip(batch.pixels, targets, strict=True)]
    framed = [ImageOps.expand(pil_image, border=2, fill="white") for pil_image in drawn]
    return contact_sheet(framed, columns=1 + _EPOCHS)


def draw_target(pixels: Float[Tensor, "3 h w"], target: Target, classes: Sequence[str]) -> Image.Image:
    """An image of the network's input with its objects; ignored regions are captioned "difficult".

    Args:
        pixels: RGB, 0..1, not normalised.
        target: in the frame of the pixels.
        classes: names; label i means ``classes[i]``.
    """
    pil_image = Image.fromarray((pixels * 255).round().byte().permute(1, 2, 0).contiguous().numpy())
    # A target does not keep the classes of difficult objects, so they get a colour of their own.
    labels = torch.cat([target.labels, target.labels.new_full((len(target.ignored),), len(classes))])
    captions = [classes[label] for label in target.labels.tolist()] + ["difficult"] * len(target.ignored)
    xyxy = torch.cat([target.boxes, target.ignored])
    return draw_boxes(pil_image, xyxy.numpy(), labels.numpy(), captions)
