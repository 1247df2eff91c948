"""Images of road signs and of other objects, each as an RGBA sprite seen from a random angle.

A painter works on a square canvas in unit coordinates: x to the right, y down, both from 0 to 1. `render` has
it painted enlarged, tilts the image and shrinks it, which gives smooth edges and a box finer than a pixel.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Rgb: TypeAlias = tuple[int, int, int]
Points: TypeAlias = Sequence[tuple[float, float]]
Painter: TypeAlias = Callable[["SignPen", Generator], None]

SUPERSAMPLING = 3
MAX_ROTATION = math.radians(15)
# A unit square that is turned, sheared and seen askew stays inside a canvas this many times as wide.
CANVAS_MARGIN = 1.6
UNIT_SQUARE = np.array([(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)])

RED, BLUE, WHITE, BLACK = (196, 24, 34), (20, 82, 168), (240, 240, 238), (26, 26, 28)
# Other objects have the colours of signs too, or the colour red alone would identify signs.
PAINTS = (RED, BLUE, WHITE, BLACK, (225, 175, 50), (60, 120, 80), (120, 124, 130), (150, 175, 200))


@dataclass(frozen=True)
class Sprite:
    """An image cut to what is visible of it."""

    image: Image.Image  # RGBA
    box: NDArray[np.float32]  # xyxy in pixels of `image`, continuous; less than one pixel inside its edges


@dataclass(frozen=True)
class SignPen:
    """Draws on a square canvas in unit coordinates."""

    draw: ImageDraw.ImageDraw
    side: int

    def polygon(self, points: Points, fill: Rgb) -> None:
        """Fill the polygon with these corners."""
        self.draw.polygon(self._pixels(points), fill=fill)

    def disc(self, x: float, y: float, radius: float, fill: Rgb) -> None:
        """Fill the circle around (x, y)."""
        self.draw.ellipse(self._pixels([(x - radius, y - radius), (x + radius, y + radius)]), fill=fill)

    def rectangle(self, x1: float, y1: float, x2: float, y2: float, fill: Rgb, *, radius: float = 0.0) -> None:
        """Fill a rectangle whose corners are rounded with `radius`."""
        self.draw.rounded_rectangle(self._pixels([(x1, y1), (x2, y2)]), radius * self.side, fill=fill)

    def stroke(self, points: Points, width: float, fill: Rgb) -> None:
        """Draw a line of this width through the points, with round joints and ends."""
        self.draw.line(self._pixels(points), fill=fill, width=max(1, round(width * self.side)), joint="curve")
        for x, y in points:
            self.disc(x, y, width / 2, fill)

    def text(self, x: float, y: float, size: float, text: str, fill: Rgb, *, weight: float = 0.0) -> None:
        """Write bold text around (x, y); `weight` is how much each stroke is thickened."""
        font = ImageFont.load_default(size * self.side)
        place = (x * self.side, y * self.side)
        self.draw.text(place, text, fill, font, anchor="mm", stroke_width=weight * self.side)

    def _pixels(self, points: Points) -> list[tuple[float, float]]:
        return [(x * self.side, y * self.side) for x, y in points]


def paint_crossing(pen: SignPen, rng: Generator) -> None:
    """Blue square, white triangle, a figure walking left or right over stripes."""
    ink = vary(rng, BLACK)
    pen.rectangle(0.02, 0.02, 0.98, 0.98, WHITE, radius=0.06)
    pen.rectangle(0.05, 0.05, 0.95, 0.95, vary(rng, BLUE), radius=0.05)
    pen.polygon([(0.5, 0.1), (0.91, 0.86), (0.09, 0.86)], vary(rng, WHITE, 8))
    stride = rng.uniform(0.09, 0.12) * rng.choice([-1, 1])
    pen.disc(0.5 + stride / 4, 0.33, 0.048, ink)
    pen.stroke([(0.5, 0.42), (0.5 - stride / 8, 0.57)], 0.085, ink)
    pen.stroke([(0.5, 0.57), (0.5 + stride * 0.7, 0.66), (0.5 + stride, 0.76)], 0.048, ink)
    pen.stroke([(0.49, 0.57), (0.5 - stride * 0.5, 0.67), (0.5 - stride * 1.2, 0.75)], 0.048, ink)
    pen.stroke([(0.5, 0.42), (0.5 + stride, 0.49), (0.5 + stride * 1.3, 0.55)], 0.036, ink)
    pen.stroke([(0.5, 0.42), (0.5 - stride * 0.9, 0.5), (0.5 - stride, 0.57)], 0.036, ink)
    for x in (0.2, 0.34, 0.48, 0.62, 0.76):
        pen.rectangle(x - 0.03, 0.795, x + 0.05, 0.835, ink)


def paint_no_entry(pen: SignPen, rng: Generator) -> None:
    """Red disc with a white bar."""
    half = rng.uniform(0.075, 0.1)
    pen.disc(0.5, 0.5, 0.48, WHITE)
    pen.disc(0.5, 0.5, rng.uniform(0.45, 0.475), vary(rng, RED))
    pen.rectangle(0.15, 0.5 - half, 0.85, 0.5 + half, vary(rng, WHITE, 8), radius=rng.choice([0.0, 0.03]))


def paint_speed_limit(pen: SignPen, rng: Generator) -> None:
    """White disc with a red rim and a number from 5 to 130."""
    number = str(rng.choice([5, *range(10, 140, 10)]))
    pen.disc(0.5, 0.5, 0.48, vary(rng, RED))
    pen.disc(0.5, 0.5, rng.uniform(0.36, 0.4), vary(rng, WHITE, 8))
    pen.text(0.5, 0.5, 0.34 if len(number) > 2 else 0.46, number, vary(rng, BLACK), weight=0.014)


def paint_stop(pen: SignPen, rng: Generator) -> None:
    """Red octagon with a white edge and the word STOP."""
    pen.polygon(_ngon(8, 0.51), WHITE)
    pen.polygon(_ngon(8, rng.uniform(0.46, 0.485)), vary(rng, RED))
    pen.text(0.5, 0.5, rng.uniform(0.27, 0.31), "STOP", vary(rng, WHITE, 8), weight=0.014)


def paint_yield(pen: SignPen, rng: Generator) -> None:
    """White triangle on its tip with a red rim."""
    rim = rng.uniform(0.05, 0.16)
    corners = [(0.09, 0.14), (0.91, 0.14), (0.5, 0.86)]
    pen.polygon(corners, vary(rng, WHITE, 8))
    pen.stroke([*corners, corners[0]], 0.14, red := vary(rng, RED))
    inset = [(0.5 + (x - 0.5) * (1 - rim), 0.38 + (y - 0.38) * (1 - rim)) for x, y in corners]
    pen.stroke([*inset, inset[0]], 0.1, red)


# Sorted by name: the position is the label.
SIGN_PAINTERS: dict[str, Painter] = {
    "crossing": paint_crossing,
    "no-entry": paint_no_entry,
    "speed-limit": paint_speed_limit,
    "stop": paint_stop,
    "yield": paint_yield,
}


def paint_round_board(pen: SignPen, rng: Generator) -> None:
    """A disc of one colour, at times with a ring: round as a sign, but with nothing on it."""
    pen.disc(0.5, 0.5, 0.48, _any_colour(rng))
    pen.disc(0.5, 0.5, rng.uniform(0.3, 0.48), _any_colour(rng))


def paint_billboard(pen: SignPen, rng: Generator) -> None:
    """A rectangle with lines of writing or a patch of colour."""
    top = rng.uniform(0.05, 0.3)
    ground, ink = _any_colour(rng), _any_colour(rng)
    pen.rectangle(0.02, top, 0.98, 1 - top, ink, radius=0.02)
    pen.rectangle(0.05, top + 0.03, 0.95, 0.97 - top, ground)
    if rng.random() < 0.5:
        for y, word in ((top + 0.14, "CAFE"), (0.86 - top, "SALE")):
            pen.text(0.5, y, 0.2, word, ink)
    else:
        pen.polygon(_ngon(int(rng.integers(3, 7)), 0.2), ink)


def paint_arrow_board(pen: SignPen, rng: Generator) -> None:
    """A blue or green direction sign with an arrow, which is none of the classes."""
    x, turn = rng.uniform(0.3, 0.7), rng.choice([-0.22, 0.22])
    pen.rectangle(0.02, 0.12, 0.98, 0.88, WHITE, radius=0.05)
    pen.rectangle(0.05, 0.15, 0.95, 0.85, vary(rng, BLUE if rng.random() < 0.5 else (16, 110, 70)))
    pen.stroke([(x, 0.76), (x, 0.5), (x + turn, 0.34)], 0.07, WHITE)
    pen.polygon([(x + turn * 1.5, 0.24), (x + turn * 0.4, 0.28), (x + turn * 1.1, 0.5)], WHITE)


def paint_traffic_light(pen: SignPen, rng: Generator) -> None:
    """A dark box with three lamps, one of them lit."""
    pen.rectangle(0.32, 0.02, 0.68, 0.98, vary(rng, BLACK), radius=0.06)
    lit = rng.integers(3)
    for lamp, colour in enumerate([(235, 50, 40), (245, 180, 40), (60, 215, 120)]):
        pen.disc(0.5, 0.2 + 0.3 * lamp, 0.125, colour if lamp == lit else (58, 56, 54))


def paint_car(pen: SignPen, rng: Generator) -> None:
    """A car from behind: body, rear window, red lamps, number plate, wheels."""
    body = _any_colour(rng)
    roof = rng.uniform(0.2, 0.4)
    for x in (0.08, 0.76):
        pen.rectangle(x, 0.75, x + 0.16, 0.98, BLACK, radius=0.04)
    pen.polygon([(0.24, roof), (0.76, roof), (0.9, 0.58), (0.1, 0.58)], body)
    pen.polygon([(0.28, roof + 0.04), (0.72, roof + 0.04), (0.8, 0.56), (0.2, 0.56)], vary(rng, (52, 62, 72)))
    pen.rectangle(0.03, 0.55, 0.97, 0.88, body, radius=0.08)
    pen.rectangle(0.37, 0.7, 0.63, 0.78, WHITE)
    for x in (0.06, 0.8):
        pen.rectangle(x, 0.61, x + 0.14, 0.69, (190, 30, 30), radius=0.02)


def paint_leaves(pen: SignPen, rng: Generator) -> None:
    """A clump of leaves in a few greens."""
    greens = [vary(rng, (66, 100, 48), 22) for _ in range(4)]
    centres = rng.normal((0.5, 0.38), (0.16, 0.13), (110, 2)).clip(0.06, 0.9)
    radii = rng.uniform(0.015, 0.06, 110)
    for leaf, ((x, y), radius) in enumerate(zip(centres.tolist(), radii.tolist(), strict=True)):
        pen.disc(x, y, radius, greens[leaf % 4])


def paint_tree(pen: SignPen, rng: Generator) -> None:
    """A stem under a crown of leaves."""
    pen.rectangle(0.46, 0.5, 0.54, 0.98, vary(rng, (84, 66, 50)))
    paint_leaves(pen, rng)


def paint_house(pen: SignPen, rng: Generator) -> None:
    """A house front: roof, rows of windows."""
    eaves, window = rng.uniform(0.05, 0.35), vary(rng, (70, 80, 92))
    pen.polygon([(0.02, eaves), (0.3, eaves * 0.3), (0.7, eaves * 0.3), (0.98, eaves)], vary(rng, (120, 70, 58), 30))
    pen.rectangle(0.05, eaves, 0.95, 0.98, vary(rng, (190, 178, 160), 35))
    for y in np.arange(eaves + 0.06, 0.85, 0.2).tolist():
        for x in (0.13, 0.35, 0.57, 0.79):
            pen.rectangle(x, y, x + 0.09, y + 0.11, window)


BOARD_PAINTERS = (paint_round_board, paint_billboard, paint_arrow_board, paint_traffic_light)


def vary(rng: Generator, colour: Rgb, spread: int = 16) -> Rgb:
    """A colour near this one: each channel moves by up to `spread`, within 0 to 255."""
    shifts = rng.integers(-spread, spread + 1, 3).tolist()
    red, green, blue = (max(0, min(255, base + shift)) for base, shift in zip(colour, shifts, strict=True))
    return red, green, blue


def render_sprite(paint: Painter, side: int, rng: Generator, *, tilted: bool = True) -> Sprite:
    """Paint an image about `side` pixels wide, weathered, and seen from a random angle.

    The side is that of the square canvas before it is tilted: rotated up to 15 degrees, with mild shear and
    perspective. The painter must leave something visible.
    """
    enlarged = side * SUPERSAMPLING
    image = Image.new("RGBA", (enlarged, enlarged))
    paint(SignPen(ImageDraw.Draw(image), enlarged), rng)
    if tilted:
        image = _tilt(image, _random_view(rng))
    extent = image.getchannel("A").point([0] * 128 + [255] * 128).getbbox()
    if extent is None:
        raise ValueError(f"{paint} leaves nothing visible at {side} pixels; ask for a larger side")
    # Cut at whole final pixels, or shrinking would move the edges.
    x1, y1 = (start // SUPERSAMPLING for start in extent[:2])
    x2, y2 = (-(-end // SUPERSAMPLING) for end in extent[2:])
    cut = image.crop((x1 * SUPERSAMPLING, y1 * SUPERSAMPLING, x2 * SUPERSAMPLING, y2 * SUPERSAMPLING))
    box = np.array(extent) / SUPERSAMPLING - np.array([x1, y1, x1, y1])
    return Sprite(_weather(cut.reduce(SUPERSAMPLING), rng), box.astype(np.float32))


def _tilt(image: Image.Image, corners: NDArray[np.float64]) -> Image.Image:
    """Move the corners of a square image; `corners` is in its widths from the middle of the result."""
    side = image.width
    # A whole number of final pixels, so that the cut in `render` never leaves the canvas.
    canvas = math.ceil(side / SUPERSAMPLING * CANVAS_MARGIN) * SUPERSAMPLING
    coefficients = _homography(corners * side + canvas / 2, UNIT_SQUARE * side)
    return image.transform((canvas, canvas), Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BILINEAR)


def _random_view(rng: Generator) -> NDArray[np.float64]:
    """Corners (4, 2) of a unit square around 0, clockwise from the top left, as a camera might see it."""
    angle = rng.uniform(-MAX_ROTATION, MAX_ROTATION)
    turn = np.array([(math.cos(angle), -math.sin(angle)), (math.sin(angle), math.cos(angle))])
    narrowing_and_shear = np.array([(1 - rng.uniform(0, 0.2), rng.uniform(-0.1, 0.1)), (0, 1)])
    corners: NDArray[np.float64] = (UNIT_SQUARE - 0.5) @ (turn @ narrowing_and_shear).T
    return corners + rng.uniform(-0.04, 0.04, (4, 2))


def _homography(source: NDArray[np.float64], target: NDArray[np.float64]) -> list[float]:
    """The 8 coefficients with which Pillow maps four source points to four target points."""
    rows, values = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [(x, y, 1, 0, 0, 0, -u * x, -u * y), (0, 0, 0, x, y, 1, -v * x, -v * y)]
        values += [u, v]
    return [float(value) for value in np.linalg.solve(np.array(rows), np.array(values))]


def _weather(image: Image.Image, rng: Generator) -> Image.Image:
    """Fade the colours and lay a shade and stains over them; the alpha channel is kept."""
    pixels = np.asarray(image, np.float32)
    stains = rng.uniform(0, 255, (5, 5)).astype(np.uint8)
    shade = np.asarray(Image.fromarray(stains).resize(image.size, Image.Resampling.BICUBIC), np.float32) / 255
    faded = pixels[..., :3] + (150 - pixels[..., :3]) * rng.uniform(0, 0.25)
    lit = faded * (1 - rng.uniform(0.05, 0.35) * shade[..., None])
    return Image.fromarray(np.concatenate([lit, pixels[..., 3:]], axis=2).astype(np.uint8))


def _ngon(sides: int, radius: float) -> list[tuple[float, float]]:
    """Corners of a regular polygon around the middle of the canvas that stands on one edge."""
    angles = [math.pi / 2 + math.pi * (2 * corner + 1) / sides for corner in range(sides)]
    return [(0.5 + radius * math.cos(angle), 0.5 + radius * math.sin(angle)) for angle in angles]


def _any_colour(rng: Generator) -> Rgb:
    return vary(rng, PAINTS[rng.integers(len(PAINTS))], 30)
