from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from fasterrcnn.reporting.drawing import (
    Bar,
    Mark,
    Pen,
    add_header,
    add_legend,
    add_title,
    colour_of,
    contact_sheet,
    draw_bars,
    draw_boxes,
    draw_marks,
    fit_text,
    text_font,
)

SIZE = (120, 90)  # width, height


def draw(boxes, captions=None, labels=None, image=None) -> np.ndarray:
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    labels = np.zeros(len(boxes), np.int64) if labels is None else np.array(labels, np.int64)
    image = Image.new("RGB", SIZE) if image is None else image
    return np.asarray(draw_boxes(image, boxes, labels, [""] * len(boxes) if captions is None else captions))


def extent(changed: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what is true, both ends included."""
    rows, columns = np.nonzero(changed)
    return columns.min(), rows.min(), columns.max(), rows.max()


def test_draw_boxes__border_in_the_colour_of_the_class():
    drawn = draw([[30, 20, 80, 60]], labels=[3])
    assert extent(drawn.any(axis=2)) == (30, 20, 80, 60)
    for x, y in ((30, 40), (80, 40), (50, 20), (50, 60)):
        assert tuple(drawn[y, x]) == colour_of(3)
    assert not drawn[25:55, 35:75].any()  # nothing is filled


def test_draw_boxes__none():
    assert not draw([]).any()


def test_draw_boxes__line_grows_with_the_image():
    def line(side: int) -> int:
        drawn = draw([[10, 10, side - 10, side - 10]], image=Image.new("RGB", (side, side)))
        return int(drawn[side // 2, : side // 2].any(axis=1).sum())

    assert line(100) == 2
    assert line(2000) == 8


def caption_of(box) -> tuple[int, int, int, int]:
    """Where the caption lies: what it changes beyond the box itself."""
    return extent((draw([box], ["cat 0.93"]) != draw([box])).any(axis=2))


@pytest.mark.parametrize(
    "box",
    [
        [40, 40, 70, 60],  # in the middle
        [40, 0, 70, 30],  # at the top
        [0, 40, 20, 60],  # at the left
        [100, 40, 120, 60],  # at the right
        [40, 70, 70, 90],  # at the bottom
        [0, 0, 20, 20],  # in the corners
        [100, 0, 120, 20],
        [0, 70, 20, 90],
        [100, 70, 120, 90],
        [0, 0, 120, 90],  # the whole image
    ],
)
def test_draw_boxes__caption_is_whole_at_all_borders(box):
    left, top, right, bottom = caption_of(box)
    whole = caption_of([40, 40, 70, 60])
    assert left >= 0
    assert top >= 0
    assert right < SIZE[0]
    assert bottom < SIZE[1]
    # A line of the box may hide one row or column of the caption.
    assert right - left >= whole[2] - whole[0] - 2
    assert bottom - top >= whole[3] - whole[1] - 2


def test_draw_boxes__caption_stands_on_its_box():
    left, _, _, bottom = caption_of([40, 40, 70, 60])
    assert left in (40, 41)
    assert bottom in (39, 40)


@pytest.mark.parametrize("label", range(20))
def test_draw_boxes__letters_can_be_read(label):
    drawn = draw([[10, 40, 70, 60]], ["cat 0.93"], labels=[label])
    colours = {tuple(int(v) for v in pixel) for pixel in drawn[:40].reshape(-1, 3)}
    luminance = [0.299 * r + 0.587 * g + 0.114 * b for r, g, b in colours]
    own = 0.299 * colour_of(label)[0] + 0.587 * colour_of(label)[1] + 0.114 * colour_of(label)[2]
    assert max(abs(own - other) for other in luminance) > 90


def test_colours__differ_and_stay():
    colours = [colour_of(label) for label in range(40)]
    assert len(set(colours)) == 40
    assert colours == [colour_of(label) for label in range(40)]
    near = [sum(abs(a - b) for a, b in zip(*pair, strict=True)) for pair in pairwise(colours)]
    assert min(near) > 100


def test_contact_sheet__row_by_row():
    colours = [(10, 0, 0), (20, 0, 0), (30, 0, 0)]
    sheet = contact_sheet([Image.new("RGB", (4, 3), colour) for colour in colours], 2)
    assert sheet.size == (8, 6)
    assert [sheet.getpixel(at) for at in ((0, 0), (4, 0), (3, 5), (7, 5))] == [*colours, (0, 0, 0)]


def test_contact_sheet__images_of_several_sizes():
    sheet = contact_sheet([Image.new("RGB", size, (9, 9, 9)) for size in ((4, 1), (2, 3), (1, 1))], 2)
    assert sheet.size == (8, 6)
    filled = np.asarray(sheet).any(axis=2)
    assert [extent(filled[:3, :4]), extent(filled[:3, 4:]), extent(filled[3:])] == [
        (0, 0, 3, 0),
        (0, 0, 1, 2),
        (0, 0, 0, 0),
    ]


def outline(box, *, dashed: bool) -> np.ndarray:
    marks = [Mark(box, Pen((0, 250, 0), dashed=dashed))]
    return np.asarray(draw_marks(Image.new("RGB", SIZE), marks)).any(axis=2)


@pytest.mark.parametrize(
    "box", [(30.0, 20.0, 80.0, 60.0), (30.4, 20.6, 80.1, 59.7), (10.0, 10.0, 110.0, 13.0), (50.0, 50.0, 54.0, 54.0)]
)
def test_draw_marks__dashed_box_has_the_extent_of_a_solid_one(box):
    solid, dashed = outline(box, dashed=False), outline(box, dashed=True)
    assert extent(dashed) == extent(solid)
    assert not (dashed & ~solid).any()


def test_draw_marks__dashed_box_has_gaps_and_corners():
    dashed = outline((30.0, 20.0, 80.0, 60.0), dashed=True)
    for side in (dashed[20, 30:81], dashed[60, 30:81], dashed[20:61, 30], dashed[20:61, 80]):
        assert side[0]
        assert side[-1]
        changes = np.flatnonzero(np.diff(side))
        assert len(changes) >= 4
        assert 3 <= np.diff(changes).min() <= np.diff(changes).max() <= 12


def test_draw_marks__the_last_is_on_top():
    marks = [Mark((30.0, 20.0, 80.0, 60.0), Pen(colour)) for colour in ((255, 0, 0), (0, 0, 255))]
    assert draw_marks(Image.new("RGB", SIZE), marks).getpixel((30, 40)) == (0, 0, 255)


def test_draw_marks__the_given_image_stays():
    image = Image.new("RGB", SIZE)
    draw_marks(image, [Mark((30.0, 20.0, 80.0, 60.0), Pen((255, 0, 0)), "cat")])
    assert not np.asarray(image).any()


@pytest.mark.parametrize("title", ["", "a.jpg", "a name that is much longer than the image is wide.jpg", "日本.jpg"])
def test_add_title__image_stays_whole_below(title, photo):
    image = photo((40, 60))
    titled = np.asarray(add_title(image, title))
    assert titled.shape[1] == 60 + 4
    above, below = titled[:-42], titled[-42:]
    assert (below[:40, 2:-2] == np.asarray(image)).all()
    assert (above < 128).any() == bool(title)
    for edge in (titled[0], titled[-1], titled[:, 0], titled[:, -1]):
        assert title.startswith("a name") or (edge == 255).all()


@pytest.mark.parametrize("width", [10, 600])
def test_add_legend__every_pen_and_the_whole_image(width, photo):
    image = photo((40, width))
    pens = {"found": Pen((0, 200, 0)), "missed": Pen((200, 200, 0), dashed=True)}
    sheet = add_legend(image, pens)
    assert sheet.width >= width
    assert sheet.crop((0, sheet.height - 40, width, sheet.height)) == image
    line = np.asarray(sheet)[:-40]
    for pen in pens.values():
        assert (line == pen.colour).all(axis=2).sum() > 50
    right_end = np.asarray(add_legend(Image.new("RGB", (1, 1)), pens))[:-1, -1]
    assert (right_end == 255).all()  # no letter is cut off


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "I;16"])
def test_draw_boxes__on_any_mode(mode):
    assert draw([[0, 0, 3, 2]], image=Image.new(mode, (4, 3))).any()


def test_fit_text__is_cut_to_the_room():
    assert fit_text("short", 200, 16) == "short"
    cut = fit_text("a very long name of a class" * 3, 100, 16)
    assert cut.endswith("...")
    assert text_font(16).getlength(cut) <= 100
    assert draw_bars([Bar("x" * 200, 1.0, "1")], width=560).width == 560
    assert add_header(Image.new("RGB", (50, 50)), "y" * 99).size == (50, 72)


def test_draw_bars__lengths_are_shares():
    pixels = np.asarray(draw_bars([Bar("a", 1.0, "1"), Bar("b", 0.5, "2")], width=560)).astype(int)
    lengths = [(np.abs(row - Bar.colour).sum(axis=1) == 0).sum() for row in (pixels[20], pixels[52])]
    assert lengths[0] == pytest.approx(2 * lengths[1], abs=2)
    assert draw_bars([], width=100).width == 100
