import numpy as np
import pytest

from fasterrcnn.demo import signs
from fasterrcnn.demo.scenes import CLASSES


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("side", [24, 61, 110])
def test_render__box_is_the_extent_of_the_alpha_mask(name: str, side: int) -> None:
    for seed in range(5):
        sprite = signs.render_sprite(signs.SIGN_PAINTERS[name], side, np.random.default_rng(seed))
        opaque = np.asarray(sprite.image.getchannel("A")) > 0
        # The image ends in the pixel where the box ends, and every outermost row and column is painted on.
        assert ((sprite.box[:2] >= 0) & (sprite.box[:2] < 1)).all()
        slack = np.array(sprite.image.size) - sprite.box[2:]
        assert ((slack >= 0) & (slack < 1)).all()
        assert all(edge.any() for edge in (opaque[0], opaque[-1], opaque[:, 0], opaque[:, -1]))


def test_render__frontal_square_has_the_size_asked_for() -> None:
    def paint_square(pen: signs.SignPen, _: np.random.Generator) -> None:
        pen.rectangle(0.25, 0.25, 0.75, 0.75, (255, 0, 0))

    sprite = signs.render_sprite(paint_square, 80, np.random.default_rng(0), tilted=False)
    # Pillow paints both end pixels of a rectangle, here thirds of a pixel.
    np.testing.assert_allclose(sprite.box[2:] - sprite.box[:2], 40, atol=0.4)


def test_render__nothing_painted_is_an_error() -> None:
    with pytest.raises(ValueError, match="leaves nothing visible at 30 pixels"):
        signs.render_sprite(lambda pen, rng: None, 30, np.random.default_rng(0))
