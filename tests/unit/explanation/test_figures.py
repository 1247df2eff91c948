import numpy as np
import pytest
import torch
from PIL import Image

from fasterrcnn.explanation.figures import Figure, Panel, heat_map, input_image, to_unit
from fasterrcnn.explanation.trace import trace_image


@pytest.fixture(scope="module")
def trace(tiny_detector, photo):
    return trace_image(tiny_detector, photo((64, 96)), score=0.2)


def test_heat_map__cells_lie_where_the_pixels_are(trace):
    values = torch.zeros(2, 3)
    values[0, 2] = 1
    heat = np.asarray(heat_map(trace, values, width=96)).astype(int)
    assert heat.shape == (64, 96, 3)
    bright = heat.sum(axis=2) > 300
    assert bright[:32, 64:].all()
    assert not bright[32:].any()
    assert not bright[:, :64].any()


def test_input_image__is_the_valid_part_of_the_input(photo, tiny_detector):
    trace = trace_image(tiny_detector, photo((64, 80)))
    assert trace.batch.padded_hw == (64, 96)
    assert input_image(trace, 160).size == (160, 128)


@pytest.mark.parametrize("values", [torch.zeros(0), torch.full((3,), 2.0)])
def test_to_unit__nothing_and_no_differences(values):
    assert to_unit(values).tolist() == [0.0] * len(values)


def test_figure__sheet_of_one_panel():
    sheet = Figure("x", (Panel("a", Image.new("RGB", (40, 20))),), columns=3).sheet()
    assert sheet.size == (44, 50)
