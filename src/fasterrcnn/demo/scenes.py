"""Drawn road scenes: a synthetic detection data set of five road signs that needs no download.

A scene is a street with cars and boards, signs on poles, things in front of them, and the faults of a camera.
Everything follows from (seed, index). All boxes are xyxy in pixels of the scene.
"""

import io
import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from fasterrcnn.boxes import box_areas, box_intersections
from fasterrcnn.data.formats.voc import to_xml
from fasterrcnn.demo import signs
from fasterrcnn.demo.signs import Rgb, Sprite, vary

CLASSES: tuple[str, ...] = tuple(signs.SIGN_PAINTERS)
# Each split counts from its own start: more training scenes leave the test scenes as they are.
SPLIT_STARTS = {"train": 0, "val": 1_000_000, "test": 2_000_000}
MIN_SCENE_SIDE = 96
SIGN_SIDES = (24, 110)
EMPTY_SHARE = 0.05
MAX_OVERLAP, MAX_COVERED = 0.08, 0.3
# A sign's width, and the height of what stands on the ground, in heights of the camera above the road.
SIGN_WIDTH = 0.6
GROUND_THINGS = ((signs.paint_car, 1.2), (signs.paint_tree, 4.0), (signs.paint_house, 5.0))
SKIES: tuple[tuple[Rgb, Rgb], ...] = (
    ((70, 130, 205), (190, 215, 235)),
    ((150, 160, 172), (205, 208, 210)),
    ((95, 110, 165), (245, 195, 150)),
)
GROUNDS: tuple[Rgb, ...] = ((92, 122, 62), (128, 130, 84), (142, 122, 92), (136, 134, 130))


@dataclass(frozen=True)
class Scene:
    """An RGB image and the signs in it."""

    image: Image.Image
    boxes: NDArray[np.float32]  # (n, 4) xyxy in pixels, of the whole sign even where something stands before it
    labels: NDArray[np.int64]  # (n,) indices into `CLASSES`


@dataclass(frozen=True)
class _Street:
    """A straight road on flat ground up to the horizon; x and y in pixels of the scene."""

    size_hw: tuple[int, int]
    horizon: int
    vanishing_x: float
    near_x: float
    half_width: float

    def point(self, offset: float, nearness: float) -> tuple[float, float]:
        """The point `offset` half-widths beside the middle; nearness 0 is the horizon, 1 the bottom edge."""
        x = self.vanishing_x + (self.near_x + offset * self.half_width - self.vanishing_x) * nearness
        return x, self.horizon + (self.size_hw[0] - self.horizon) * nearness

    def band(self, left: float, right: float, near: float = 1.0, far: float = 0.0) -> list[tuple[float, float]]:
        """Corners of a strip of the ground along the street."""
        return [self.point(*corner) for corner in ((left, near), (right, near), (right, far), (left, far))]


@dataclass(frozen=True)
class _Placed:
    """A sprite whose top left corner is at (left, top) in the scene; `foot` is the y where its pole ends."""

    sprite: Sprite
    left: int
    top: int
    foot: float

    @property
    def box(self) -> NDArray[np.float32]:
        return self.sprite.box + np.array([self.left, self.top, self.left, self.top], np.float32)

    def paste(self, image: Image.Image) -> None:
        image.paste(self.sprite.image, (self.left, self.top), self.sprite.image)


def draw_scene(seed: int, index: int, size_hw: tuple[int, int] = (288, 384)) -> Scene:
    """Draw scene number `index` of the data set `seed`: 1 to 5 signs, or none in about one of twenty scenes.

    A scene does not depend on which others are drawn. Height and width in pixels are at least 96.

    Raises:
        ValueError: If the size is too small for a sign, or a number is negative.
    """
    if min(size_hw) < MIN_SCENE_SIDE:
        raise ValueError(f"a scene of {size_hw} pixels is too small; use at least {MIN_SCENE_SIDE} each way")
    rng = np.random.default_rng([seed, index])
    horizon = round(size_hw[0] * rng.uniform(0.45, 0.62))
    street = _Street(size_hw, horizon, *(size_hw[1] * rng.uniform((0.25, 0.2, 0.4), (0.75, 0.8, 0.8))))
    image = _draw_street(rng, street)
    _add_things(rng, image, street)
    labels, placed = _place_signs(rng, street)
    # All poles come first, so that none hides another sign.
    for sign in placed:
        _add_pole(rng, image, sign, street)
    for sign in placed:
        sign.paste(image)
    _cover_parts(rng, image, placed)
    boxes = np.array([sign.box for sign in placed], np.float32).reshape(-1, 4)
    return Scene(_photograph(rng, image), boxes, np.array(labels, np.int64))


def write_scenes(
    folder: Path, *, train: int, val: int, test: int, seed: int = 0, size_hw: tuple[int, int] = (288, 384)
) -> None:
    """Write a Pascal VOC data set: JPEGImages/, Annotations/, ImageSets/Main/{train,val,test}.txt.

    `train`, `val` and `test` count scenes. Files are named by the index of their scene; those that exist are
    overwritten. Boxes are plain pixel coordinates rounded outwards to integers: xmax - xmin is the width.
    """
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for split, count in (("train", train), ("val", val), ("test", test)):
        stems = [f"{SPLIT_STARTS[split] + number:07d}" for number in range(count)]
        for stem in stems:
            scene = draw_scene(seed, int(stem), size_hw)
            scene.image.save(folder / "JPEGImages" / f"{stem}.jpg", quality=92)
            _to_voc(scene, f"{stem}.jpg").write(folder / "Annotations" / f"{stem}.xml", encoding="utf-8")
        (folder / "ImageSets/Main" / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems))


def _to_voc(scene: Scene, filename: str) -> "ElementTree.ElementTree[ElementTree.Element]":
    width, height = scene.image.size
    names = [CLASSES[label] for label in scene.labels.tolist()]
    boxes = [(math.floor(x1), math.floor(y1), math.ceil(x2), math.ceil(y2)) for x1, y1, x2, y2 in scene.boxes.tolist()]
    objects = zip(names, boxes, [False] * len(names), strict=True)
    return ElementTree.ElementTree(to_xml(filename, (height, width), objects))


def _draw_street(rng: Generator, street: _Street) -> Image.Image:
    """Clouded sky, hills, textured ground and a marked road to the horizon."""
    height, width = size_hw = street.size_hw
    top, bottom = (np.array(colour, np.float32) for colour in SKIES[rng.integers(len(SKIES))])
    sky = top + (bottom - top) * np.linspace(0, 1.6, height, dtype=np.float32).clip(0, 1)[:, None, None]
    clouds = _noise(rng, size_hw, (12, 5)) + 0.5 * _noise(rng, size_hw, (40, 24)) - rng.uniform(0.6, 1.1)
    image = _to_image(sky + (245 - sky) * clouds.clip(0, 0.8))
    draw = ImageDraw.Draw(image)
    ridge = street.horizon - height * rng.uniform(0.05, 0.3) * _noise(rng, (1, width), (1, 7))[0, :, 0]
    draw.polygon([(0, height), *enumerate(ridge.tolist()), (width, height)], vary(rng, (104, 124, 116)))
    draw.rectangle((0, street.horizon, width, height), vary(rng, GROUNDS[rng.integers(len(GROUNDS))], 9))
    paint = vary(rng, (214, 212, 204))
    draw.polygon(street.band(-1.3, 1.3), vary(rng, (150, 146, 138), 9))
    draw.polygon(street.band(-1.0, 1.0), vary(rng, (98, 98, 102), 9))
    draw.polygon(street.band(-0.93, -0.89), paint)
    draw.polygon(street.band(0.89, 0.93), paint)
    # Marks that are equally long on the ground: nearness is one over the distance.
    for distance in np.arange(0.8 + rng.random(), 14, 1.2).tolist():
        draw.polygon(street.band(-0.025, 0.025, 1 / distance, 1 / (distance + 0.6)), paint)
    grain = _noise(rng, size_hw, (12, 24)) + _noise(rng, size_hw, (height // 2, width // 3))
    pixels = np.array(image, np.float32)
    pixels[street.horizon :] *= 0.7 + 0.3 * grain[street.horizon :]
    return _to_image(pixels).filter(ImageFilter.GaussianBlur(rng.uniform(0.6, 1.4)))


def _add_things(rng: Generator, image: Image.Image, street: _Street) -> None:
    """Cars on the road, trees and houses beside it, boards that are no signs."""
    for nearness in sorted(rng.uniform(0.04, 0.6, rng.integers(3, 10)).tolist()):
        paint, size = GROUND_THINGS[rng.integers(len(GROUND_THINGS))]
        beside = rng.choice([-1, 1]) * rng.uniform(1.6, 5)
        x, y = street.point(rng.uniform(-0.7, 0.7) if paint is signs.paint_car else beside, nearness)
        side = min(size * nearness * (street.size_hw[0] - street.horizon), 0.6 * image.height)
        sprite = signs.render_sprite(paint, max(8, round(side)), rng, tilted=False)
        image.paste(sprite.image, (round(x - side / 2), round(y - sprite.image.height)), sprite.image)
    for _ in range(rng.integers(0, 4)):
        paint_board = signs.BOARD_PAINTERS[rng.integers(len(signs.BOARD_PAINTERS))]
        board = _hang(rng, signs.render_sprite(paint_board, _random_sides(rng, street, 1)[0], rng), street)
        _add_pole(rng, image, board, street)
        board.paste(image)


def _place_signs(rng: Generator, street: _Street) -> tuple[list[int], list[_Placed]]:
    """Labels and signs, the far and small ones first, that hide next to nothing of each other."""
    count = 0 if rng.random() < EMPTY_SHARE else int(rng.integers(1, 6))
    labels: list[int] = []
    placed: list[_Placed] = []
    for side in sorted(_random_sides(rng, street, count)):
        label = int(rng.integers(len(CLASSES)))
        sprite = signs.render_sprite(signs.SIGN_PAINTERS[CLASSES[label]], side, rng)
        places = (_hang(rng, sprite, street) for _ in range(20))
        free = next((place for place in places if not any(_overlap(place, other) for other in placed)), None)
        if free is not None:
            labels.append(label)
            placed.append(free)
    return labels, placed


def _random_sides(rng: Generator, street: _Street, count: int) -> list[int]:
    """Sides in pixels, evenly spread on a log scale, that fit into the image when tilted."""
    largest = min(SIGN_SIDES[1], min(street.size_hw) / 2)
    return [round(SIGN_SIDES[0] * (largest / SIGN_SIDES[0]) ** share) for share in rng.random(count).tolist()]


def _hang(rng: Generator, sprite: Sprite, street: _Street) -> _Placed:
    """Choose a place inside the image and above the ground, at the distance that follows from the sprite's size."""
    foot = street.horizon + sprite.image.width / SIGN_WIDTH
    lowest = min(street.size_hw[0], int(foot)) - sprite.image.height
    left = int(rng.integers(street.size_hw[1] - sprite.image.width + 1))
    return _Placed(sprite, left, int(rng.integers(lowest + 1)), foot)


def _overlap(first: _Placed, second: _Placed) -> bool:
    """Whether the boxes share more than MAX_OVERLAP of the smaller one, which bounds their IoU as well."""
    a, b = first.box[None], second.box[None]
    return bool((box_intersections(a, b) > MAX_OVERLAP * np.minimum(box_areas(a), box_areas(b))).all())


def _add_pole(rng: Generator, image: Image.Image, sign: _Placed, street: _Street) -> None:
    """A grey pole from the ground, or from above if the sign hangs high over the road."""
    x, y = ((sign.box[:2] + sign.box[2:]) / 2).tolist()
    half = max(1.0, 0.025 * sign.sprite.image.width)
    nearness = (sign.foot - street.horizon) / (street.size_hw[0] - street.horizon)
    over_road = street.point(-1.0, nearness)[0] < x < street.point(1.0, nearness)[0]
    top, bottom = (0, y) if over_road and y < street.horizon / 2 else (y, sign.foot)
    draw = ImageDraw.Draw(image)
    grey = int(rng.integers(90, 180))
    draw.rectangle((x - half, top, x + half, bottom), (grey, grey, grey + 4))
    draw.rectangle((x, top, x + half, bottom), (grey - 45, grey - 45, grey - 40))


def _cover_parts(rng: Generator, image: Image.Image, placed: list[_Placed]) -> None:
    """Put leaves, cars and posts in front of some signs; none loses more than MAX_COVERED of its area."""
    cover = Image.new("L", image.size)
    for sign in (sign for sign in placed if rng.random() < 0.4):
        x, y = rng.uniform((sign.box[0], sign.box[1::2].mean()), sign.box[2:]).tolist()
        side = sign.sprite.image.width * rng.uniform(0.7, 1.4)
        if rng.random() < 0.35:
            front = Image.new("RGBA", (math.ceil(side / 8), image.height), vary(rng, (96, 98, 100)))
            left, top = round(x), 0
        else:
            paint = signs.paint_car if y > image.height / 2 else signs.paint_leaves
            front = signs.render_sprite(paint, round(side), rng, tilted=False).image
            left, top = round(x - front.width / 2), round(y)
        candidate = cover.copy()
        candidate.paste(255, (left, top), front.getchannel("A"))
        if all(_covered_share(other, candidate) <= MAX_COVERED for other in placed):
            cover = candidate
            image.paste(front, (left, top), front)


def _covered_share(sign: _Placed, cover: Image.Image) -> float:
    alpha = np.asarray(sign.sprite.image.getchannel("A"), np.float32)
    hidden = np.asarray(cover, np.float32)[sign.top :, sign.left :][: alpha.shape[0], : alpha.shape[1]]
    return float((alpha * hidden).sum() / (255 * alpha.sum()))


def _photograph(rng: Generator, image: Image.Image) -> Image.Image:
    """The scene as a camera takes it: blur, light and colour of the hour, noise, JPEG blocks."""
    image = image.filter(ImageFilter.GaussianBlur(max(0.0, rng.uniform(-0.4, 0.9))))
    if rng.random() < 0.25:
        kernel = np.zeros((5, 5))
        steps = np.linspace(-1, 1, 9)[:, None] * rng.uniform(-2, 2, 2)
        np.add.at(kernel, tuple(np.rint(steps + 2).astype(int).T), 1)
        image = image.filter(ImageFilter.Kernel((5, 5), kernel.ravel().tolist()))
    # Contrast, then brightness, then the colour of the light, at times that of dusk.
    pixels = (np.asarray(image, np.float32) - 128) * rng.uniform(0.7, 1.15) + rng.uniform(108, 148)
    cast = rng.uniform(0.9, 1.1, 3) * ((0.45, 0.5, 0.66) if rng.random() < 0.15 else (1, 1, 1))
    noise = rng.standard_normal(pixels.shape, np.float32) * rng.uniform(0, 10)
    shot = io.BytesIO()
    _to_image(pixels * cast.astype(np.float32) + noise).save(shot, "JPEG", quality=int(rng.integers(40, 96)))
    return Image.open(shot).convert("RGB")


def _noise(rng: Generator, size_hw: tuple[int, int], cells_hw: tuple[int, int]) -> NDArray[np.float32]:
    """Smooth noise (height, width, 1) from about 0 to 1 with this many blobs down and across."""
    coarse = Image.fromarray(rng.random(cells_hw, np.float32))
    return np.asarray(coarse.resize(size_hw[::-1], Image.Resampling.BICUBIC), np.float32)[..., None]


def _to_image(pixels: NDArray[np.float32]) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
