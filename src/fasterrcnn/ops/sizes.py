"""Sizes of images on their way to the network input. Needs no torch."""

from typing import Literal

Resizer = Literal["torch", "pillow", "opencv"]


def resized_hw(
    image_hw: tuple[int, int], short_side: int, long_side: int, *, rule: Resizer = "torch"
) -> tuple[int, int]:
    """Size at which the short side is ``short_side``, or the long side ``long_side`` where that is smaller.

    Args:
        image_hw: height and width of the image.
        short_side: pixels to reach.
        long_side: pixels not to exceed.
        rule: "torch" rounds down, as torchvision does; "pillow" and "opencv" round to the nearest pixel with the very
            operations of Detectron2 and MMDetection, which differ by a pixel where a side falls between two.
    """
    if rule == "pillow":
        return _in_two_steps(image_hw, short_side, long_side)
    scale = min(short_side / min(image_hw), long_side / max(image_hw))
    half = 0.5 if rule == "opencv" else 0.0
    height, width = (max(1, int(side * scale + half)) for side in image_hw)
    return height, width


def _in_two_steps(image_hw: tuple[int, int], short_side: int, long_side: int) -> tuple[int, int]:
    """First the short side, then the long one where it became too long; rounded once, at the end."""
    scale = short_side / min(image_hw)
    reached = [float(short_side) if side == min(image_hw) else scale * side for side in image_hw]
    if max(reached) > long_side:
        again = long_side / max(reached)
        reached = [side * again for side in reached]
    height, width = (max(1, int(side + 0.5)) for side in reached)
    return height, width


def pad_to(side: int, divisor: int) -> int:
    """The smallest multiple of the divisor that holds the side."""
    return -(-side // divisor) * divisor
