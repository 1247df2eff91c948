import numpy as np
import pytest
import torch
from PIL import Image

from fasterrcnn.config import InputConfig
from fasterrcnn.data.pixels import resize_to_input
from fasterrcnn.ops.image import to_input as plain_input
from fasterrcnn.ops.opencv_resize import resize_bilinear

PIXELS = torch.randint(0, 256, (3, 60, 91), generator=torch.Generator().manual_seed(1)).byte()


def config(resize: str, short: int = 24) -> InputConfig:
    return InputConfig(short_side=short, long_side=2 * short, resize=resize)


def test_to_input__pillows_bytes():
    image = Image.fromarray(PIXELS.permute(1, 2, 0).numpy())
    expected = np.asarray(image.resize((36, 24), Image.Resampling.BILINEAR))
    found = resize_to_input(PIXELS, config("pillow"))
    assert torch.equal((found * 255).round().byte(), torch.from_numpy(expected.copy()).permute(2, 0, 1))
    assert float(found.max()) <= 1


def test_to_input__opencvs_bytes():
    found = resize_to_input(PIXELS, config("opencv"))
    assert torch.equal((found * 255).round().byte(), resize_bilinear(PIXELS, (24, 36)))


def test_to_input__torch_as_ever():
    assert torch.equal(resize_to_input(PIXELS, config("torch")), plain_input(PIXELS, (24, 36), antialias=False))


@pytest.mark.parametrize("resize", ["torch", "pillow", "opencv"])
def test_to_input__same_size_and_floats(resize):
    assert torch.equal(resize_to_input(PIXELS, config(resize, 60)), PIXELS.float() / 255)
    floats = resize_to_input(PIXELS.float() / 255, config(resize))
    assert floats.shape == (3, 24, 36)
    assert floats.dtype == torch.float32
