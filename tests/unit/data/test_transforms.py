"""Hand-computed views, and what must hold for every view."""

import math
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close
from torchvision.transforms.v2 import functional as F

from fasterrcnn.config import InputConfig, resized_hw
from fasterrcnn.data import transforms
from fasterrcnn.data.transforms import (
    AUGMENTATIONS,
    MIN_SIDE,
    MIN_VISIBLE,
    AugmentationSettings,
    augment,
    make_sample,
    plain_sample,
)

MEAN = (0.375, 0.5, 0.625)
STILL = AugmentationSettings(flip=0.0)
VARIED = [name for name, recipe in AUGMENTATIONS.items() if recipe is not None]


def config(side: int, long_side: int | None = None) -> InputConfig:
    return InputConfig(short_side=side, long_side=long_side or side, mean=MEAN, antialias=True)


class Chosen(Random):
    """Draws that the test chooses: how far between the lowest and the highest value they are."""

    def __init__(self, amount: float = 0.5, place: float = 0.0) -> None:
        super().__init__()
        self.amount, self.place = amount, place

    def random(self) -> float:
        return 0.5

    def uniform(self, low: float, high: float) -> float:
        return low + self.amount * (high - low)

    def randint(self, low: int, high: int) -> int:
        return low + round(self.place * (high - low))


def scene(size_hw, boxes, labels=None, difficult=None, pixels=None):
    count = len(boxes)
    return make_sample(
        torch.zeros(3, *size_hw, dtype=torch.uint8) if pixels is None else pixels,
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(range(count) if labels is None else labels, dtype=torch.int64),
        torch.tensor([False] * count if difficult is None else difficult, dtype=torch.bool),
    )


def painted(size_hw, boxes, background=None):
    """A scene in which each object is a block of its own channel: label 0 red, 1 green, 2 blue."""
    pixels = torch.full((3, *size_hw), 60, dtype=torch.uint8)
    if background is not None:
        pixels[background] = 160
    for label, (x1, y1, x2, y2) in enumerate(boxes):
        pixels[label, y1:y2, x1:x2] = 255
    return scene(size_hw, boxes, pixels=pixels)


def nothing_else():
    raise AssertionError("no other image is needed")


def view_of(made, recipe, draws, side=20, canvas_hw=None, another=nothing_else):
    return augment(made, recipe, config(side), canvas_hw or (side, side), draws, another)


def extent(mask) -> torch.Tensor:
    """The box around the true pixels."""
    found = mask.nonzero()
    return torch.cat([found.amin(dim=0).flip(0), found.amax(dim=0).flip(0) + 1]).float()


def test_augment__closer_by_hand():
    # Twice as large: the upper left quarter, 10 x 10, on the whole canvas.
    boxes = [[4, 4, 8, 8], [5, 5, 15, 15], [5, 5, 15, 15], [6, 0, 13, 10], [12, 12, 18, 18], [12, 12, 18, 18]]
    made = scene((20, 20), boxes, difficult=[False, False, True, False, False, True])
    view = view_of(made, AugmentationSettings(flip=0.0, scale=2.0), Chosen(amount=1.0))
    assert view.labels.tolist() == [0, 2, 3]  # a quarter of 1 is left; nothing of 4 and 5
    assert view.difficult.tolist() == [False, True, False]
    assert_close(torch.Tensor(view.boxes), torch.tensor([[8.0, 8, 16, 16], [10, 10, 20, 20], [12, 0, 20, 20]]))
    assert_close(view.visible, torch.tensor([1.0, 0.25, 4 / 7]))


def test_augment__further_away_by_hand():
    # Half as large, in the lower right corner; the rest is the mean pixel.
    made = painted((20, 20), [[4, 4, 8, 12]])
    view = view_of(made, AugmentationSettings(flip=0.0, scale=2.0), Chosen(amount=0.0, place=1.0))
    assert_close(torch.Tensor(view.boxes), torch.tensor([[12.0, 12, 14, 16]]))
    assert view.pixels.shape == (3, 20, 20)
    expected = torch.tensor(MEAN)[:, None, None].expand(3, 20, 20)
    assert torch.equal(view.pixels[:, :10], expected[:, :10])
    assert torch.equal(view.pixels[:, :, :10], expected[:, :, :10])
    assert_close(view.pixels[0, 13:15, 13:14], torch.ones(2, 1), rtol=0, atol=0.15)


def test_augment__whole_image_is_the_plain_view():
    made = painted((30, 20), [[4, 4, 8, 12], [0, 20, 20, 30]])
    settings_ = config(40, 60)
    view = augment(made, STILL, settings_, (60, 40), Random(0), nothing_else)
    plain = plain_sample(made, settings_)
    assert_close(view.pixels, plain.pixels, rtol=0, atol=1 / 255)
    assert_close(view.boxes, plain.boxes)
    assert torch.equal(view.labels, plain.labels)


def test_augment__mirrored_by_hand():
    made = painted((10, 20), [[4, 2, 9, 6]])
    view = augment(made, AugmentationSettings(flip=1.0), config(10, 20), (10, 20), Random(0), nothing_else)
    assert_close(torch.Tensor(view.boxes), torch.tensor([[11.0, 2, 16, 6]]))
    assert_close(extent(view.pixels[0] > 0.5), view.boxes[0])


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [
        (90.0, [[0.0, 30.0, 20.0, 40.0]]),  # anticlockwise: the upper left corner becomes the lower left one
        (0.0, [[0.0, 0.0, 10.0, 20.0]]),
    ],
)
def test_augment__turned_by_hand(degrees, expected):
    made = painted((40, 40), [[0, 0, 10, 20]])
    view = view_of(made, AugmentationSettings(flip=0.0, rotation=1.0, degrees=degrees), Chosen(amount=1.0), side=40)
    assert_close(torch.Tensor(view.boxes), torch.tensor(expected), rtol=0, atol=1e-4)
    assert_close(extent(view.pixels[0] > 0.5), view.boxes[0], rtol=0, atol=1e-4)


def test_augment__box_of_a_turned_object_goes_around_its_corners():
    made = painted((60, 60), [[20, 25, 40, 35]])
    view = view_of(made, AugmentationSettings(flip=0.0, rotation=1.0, degrees=30.0), Chosen(amount=1.0), side=60)
    cosine, sine = math.cos(math.radians(30)), math.sin(math.radians(30))
    half_width, half_height = 10 * cosine + 5 * sine, 10 * sine + 5 * cosine
    expected = torch.tensor([[30 - half_width, 30 - half_height, 30 + half_width, 30 + half_height]])
    assert_close(torch.Tensor(view.boxes), expected, rtol=0, atol=1e-3)
    assert_close(extent(view.pixels[0] > 0.6), expected[0], rtol=0, atol=1.0)


def test_augment__room_in_the_corners_of_a_turned_image_is_the_mean_pixel():
    white = scene((40, 40), [], pixels=torch.full((3, 40, 40), 255, dtype=torch.uint8))
    view = view_of(white, AugmentationSettings(flip=0.0, rotation=1.0, degrees=20.0), Chosen(amount=1.0), side=40)
    for y, x in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        assert view.pixels[:, y, x].tolist() == list(MEAN)
    # No seam: between the mean and white there is nothing darker.
    assert all(view.pixels[channel].min() >= mean for channel, mean in enumerate(MEAN))


def test_augment__crops_hold_something_of_an_object():
    made = scene((100, 100), [[80, 85, 86, 90]], difficult=[True])
    recipe = AugmentationSettings(flip=0.0, reframe=1.0, zoom=3.0)
    sizes = []
    for seed in range(60):
        view = view_of(made, recipe, Random(seed), side=100)
        assert len(view.boxes) == 1
        assert view.visible[0] >= 0.1
        sizes.append(float(view.boxes[0, 3] - view.boxes[0, 1]) if view.visible[0] == 1 else 5.0)
    assert 5 / 3 - 0.1 < min(sizes) < 3  # zoomed out
    assert 7 < max(sizes) < 5 * 3 + 0.5  # cropped


def test_augment__mosaic_has_four_images():
    def plain(channel):
        pixels = torch.zeros(3, 40, 60, dtype=torch.uint8)
        pixels[channel % 3] = 255 if channel < 3 else 128
        return scene((40, 60), [[0, 0, 60, 40]], labels=[channel], pixels=pixels)

    others = iter([plain(1), plain(2), plain(3)])
    # Chosen in the middle: four places of 20 x 30, and of each image the whole.
    view = view_of(plain(0), AugmentationSettings(flip=0.0, mosaic=1.0), Chosen(), 40, (40, 60), lambda: next(others))
    assert next(others, None) is None
    assert view.labels.tolist() == [0, 1, 2, 3]
    expected = [[0.0, 0, 30, 20], [30, 0, 60, 20], [0, 20, 30, 40], [30, 20, 60, 40]]
    assert_close(torch.Tensor(view.boxes), torch.tensor(expected))
    red, green, blue = view.pixels
    assert_close(red[:20, :30], torch.ones(20, 30))
    assert_close(green[:20, 30:], torch.ones(20, 30))
    assert_close(blue[20:, :30], torch.ones(20, 30))
    assert_close(red[20:, 30:], torch.full((20, 30), 128 / 255))


def test_augment__mosaic_keeps_labels_with_their_boxes():
    made = painted((40, 60), [[5, 5, 25, 20], [30, 10, 50, 35], [8, 24, 22, 38]])
    for seed in range(20):
        view = view_of(made, AugmentationSettings(mosaic=1.0, colour=0.3), Random(seed), 40, (40, 60), lambda: made)
        assert len(view.boxes) == len(view.labels) == len(view.difficult) == len(view.visible)
        check_colours(view)


def check_colours(view) -> None:
    """The middle of every box has the colour of its label."""
    for (x1, y1, x2, y2), label in zip(view.boxes.tolist(), view.labels.tolist(), strict=True):
        if min(x2 - x1, y2 - y1) >= 4:
            assert int(view.pixels[:, int((y1 + y2) / 2), int((x1 + x2) / 2)].argmax()) == label


def test_augment__no_mosaic_on_a_canvas_of_one_pixel():
    view = view_of(
        scene((1, 40), [[0, 0, 40, 1]]), AugmentationSettings(flip=0.0, mosaic=1.0), Random(0), canvas_hw=(1, 40)
    )
    assert_close(torch.Tensor(view.boxes), torch.tensor([[0.0, 0, 40, 1]]))


@pytest.mark.parametrize("name", VARIED)
def test_augment__pixels_and_boxes_stay_together(name):
    made = painted((100, 150), [[20, 25, 60, 65], [90, 30, 130, 60], [50, 75, 110, 95]])
    for seed in range(15):
        view = augment(made, AUGMENTATIONS[name], config(100, 150), (100, 150), Random(seed), lambda: made)
        check_colours(view)
        if name != "strong":  # there may be several of a colour, and boxes around turned corners
            for box, label in zip(view.boxes, view.labels.tolist(), strict=True):
                others = (view.pixels.sum(dim=0) - view.pixels[label]) / 2
                assert_close(extent(view.pixels[label] > others + 0.3), box, rtol=0, atol=1.5)


def test_augment__the_original_stays():
    made = painted((30, 40), [[5, 5, 20, 20]])
    pixels, boxes = made.pixels.clone(), torch.Tensor(made.boxes).clone()
    for seed in range(5):
        augment(made, AUGMENTATIONS["strong"], config(30, 40), (30, 40), Random(seed), lambda: made)
    assert torch.equal(made.pixels, pixels)
    assert torch.equal(torch.Tensor(made.boxes), boxes)


@st.composite
def scenes(draw):
    height, width = draw(st.integers(1, 300)), draw(st.integers(1, 400))
    count = draw(st.integers(0, 20))
    fraction = st.floats(0, 1, width=32)
    corners = [
        sorted((draw(fraction), draw(fraction))) + sorted((draw(fraction), draw(fraction))) for _ in range(count)
    ]
    boxes = np.array(corners, np.float32).reshape(-1, 4)[:, [0, 2, 1, 3]] * np.float32([width, height, width, height])
    boxes = boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]  # as `repair` leaves them
    difficult = [draw(st.booleans()) for _ in boxes]
    return scene((height, width), boxes.tolist(), difficult=difficult)


@settings(max_examples=60, deadline=None)
@given(
    scenes(),
    scenes(),
    st.sampled_from(list(AUGMENTATIONS)),
    st.integers(0, 1000),
    st.sampled_from([(24, 40), (32, 300)]),
)
def test_views__never_a_box_that_cannot_be_learned(made, other, name, seed, sides):
    size, canvas_hw = config(*sides), resized_hw(made.size_hw, *sides)
    recipe = AUGMENTATIONS[name]
    if recipe is None:
        view = plain_sample(made, size)
    else:
        view = augment(made, recipe, size, canvas_hw, Random(seed), lambda: other)
    assert view.pixels.shape == (3, *canvas_hw)
    assert view.pixels.dtype == view.boxes.dtype == torch.float32
    assert 0 <= view.pixels.min() <= view.pixels.max() <= 1
    assert len(view.boxes) == len(view.labels) == len(view.difficult) == len(view.visible)
    found = torch.Tensor(view.boxes)
    assert found.isfinite().all()
    assert (found[:, 2:] - found[:, :2] >= MIN_SIDE).all()
    assert (found >= 0).all()
    assert (found <= torch.tensor([canvas_hw[1], canvas_hw[0]] * 2)).all()
    assert (view.visible[~view.difficult] >= MIN_VISIBLE).all()
    assert (view.visible <= 1 + 1e-5).all()


COLOURS = [(1.0, 1.0, 1.0), (0.85, 1.0, 1.0), (1.0, 0.6, 1.0), (1.0, 1.0, 1.4), (1.2, 0.7, 1.3), (0.9, 1.4, 0.6)]


@pytest.mark.parametrize(("brightness", "contrast", "saturation"), COLOURS)
def test_recolour__as_torchvision_where_nothing_is_clipped(photo, brightness, contrast, saturation):
    pixels = F.pil_to_tensor(photo((20, 30), 3)) // 4 + 80
    expected = pixels.float() / 255
    for change, factor in (
        (F.adjust_brightness, brightness),
        (F.adjust_contrast, contrast),
        (F.adjust_saturation, saturation),
    ):
        expected = change(expected, factor)
    assert 0 < expected.min() < expected.max() < 1
    # torchvision's weights of the colours add up to 0.9999.
    assert_close(transforms.recolour(pixels, brightness, contrast, saturation), expected, rtol=0, atol=2e-4)


def test_recolour__is_clipped():
    pixels = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 1, 3).expand(3, 1, 3)
    changed = transforms.recolour(pixels, 1.0, 3.0, 1.0)
    assert (float(changed.min()), float(changed.max())) == (0, 1)


def test_views__same_bits_with_any_number_of_threads(make_pixels):
    made = scene((300, 400), [[10, 10, 60, 60]], pixels=(make_pixels((300, 400), 0) * 255).byte())
    threads = torch.get_num_threads()
    try:
        for seed in range(6):
            views = []
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                views.append(
                    augment(made, AUGMENTATIONS["strong"], config(240, 400), (240, 320), Random(seed), lambda: made)
                )
            assert torch.equal(views[0].pixels, views[1].pixels)
            assert torch.equal(views[0].pixels, views[2].pixels)
    finally:
        torch.set_num_threads(threads)
