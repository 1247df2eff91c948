"""Sizes of pictures on their way to the network input. Needs no torch."""


def resized_hw(image_hw: tuple[int, int], short_side: int, long_side: int) -> tuple[int, int]:
    """Size at which the short side is ``short_side``, or the long side ``long_side`` where that is smaller."""
    scale = min(short_side / min(image_hw), long_side / max(image_hw))
    height, width = (max(1, int(side * scale)) for side in image_hw)
    return height, width


def pad_to(side: int, divisor: int) -> int:
    """The smallest multiple of the divisor that holds the side."""
    return -(-side // divisor) * divisor
