import numpy as np
import pytest
import torch
from PIL import Image

from fasterrcnn import presets
from fasterrcnn.explanation import lost, stages
from fasterrcnn.explanation.diagnosis import judge
from fasterrcnn.explanation.figures import Bar, Figure, Panel, draw_bars, fitted, font, headed, heat_map, to_unit, view
from fasterrcnn.explanation.follow import follow
from fasterrcnn.inference.detector import Detector
from fasterrcnn.structures import Target

STAGES = [
    *(stages.draw_input, stages.draw_body, stages.draw_features, stages.draw_channels),
    *(stages.draw_anchors, stages.draw_objectness, stages.draw_proposals, stages.draw_regions),
    *(stages.draw_pooling, stages.draw_classes, stages.draw_suppression),
    *(stages.draw_detections, stages.draw_funnel, stages.draw_times),
]
T = (32.0, 32.0, 64.0, 64.0)


@pytest.fixture(scope="module")
def trace(tiny_detector, photo):
    return follow(tiny_detector, photo((64, 96)), score=0.2)


@pytest.mark.parametrize("draw", STAGES, ids=lambda draw: draw.__name__)
def test_stages__each_alone(draw, trace):
    figure = draw(trace)
    assert all(panel.caption for panel in figure.panels)
    assert len(np.unique(np.asarray(figure.sheet()).reshape(-1, 3), axis=0)) > 2
    assert figure._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["resnet50-c5", "resnet50-c4", "mobilenetv3-large-320-fpn", "resnet50-fpn-v2"])
def test_stages__of_other_architectures(name, shrink, lively, photo):
    config = shrink(presets.get(name, ("cat",)))
    trace = follow(Detector(lively(config), config, device="cpu"), photo((90, 64)), score=0.2)
    assert len({draw(trace).name for draw in STAGES}) == len(STAGES)
    own = "pool" if name == "resnet50-c5" else "align"
    assert stages.pool(trace, own) is trace.pooled


@pytest.mark.parametrize("draw", STAGES, ids=lambda draw: draw.__name__)
def test_stages__nothing_found_and_nothing_proposed(draw, plant, image):
    trace = follow(plant([(3, 3, 0.2, T)], [], min_score=0.5), image)
    assert trace.funnel["proposals"] == trace.funnel["detections"] == 0
    assert draw(trace).sheet().width > 100


def test_pooling__the_runs_own_maps_and_the_other_method(trace):
    assert stages.pool(trace, "align") is trace.pooled
    other = stages.pool(trace, "pool")
    assert other.shape == trace.pooled.shape
    assert not torch.equal(other, trace.pooled)
    again = trace.model.roi_pooling([level[None] for level in trace.maps], torch.cat(
        [torch.zeros(len(trace.shown), 1), trace.proposals[trace.shown]], dim=1))  # fmt: skip
    torch.testing.assert_close(again, trace.pooled)


def test_proposals__ten_of_them_are_ten(plant, image):
    said = [(row, column, 0.5 + 0.01 * row, (16.0 * column - 8, 16.0 * row - 8, 16.0 * column + 8, 16.0 * row + 8))
            for row in range(1, 5) for column in range(1, 4)]  # fmt: skip
    detector = plant(said, [(box, 0.1, 0.1) for *_, box in sorted(said, key=lambda row: -row[2])])
    captions = [panel.caption for panel in stages.draw_proposals(follow(detector, image)).panels]
    assert captions == [
        *("before NMS: the best 10", "before NMS: all 12", "before NMS: all 12"),
        *("after NMS: the best 10", "after NMS: all 12", "after NMS: all 12"),
    ]


def test_matched__counts_the_anchors_of_training(plant, image):
    trace = follow(plant([(3, 3, 0.9, T)], [(T, 0.8, 0.1, {0: T})]), image)
    panel = stages.draw_matched(trace, Target(torch.tensor([T]), torch.tensor([0]))).panels[0]
    assert panel.caption == "1 of 64 anchors are matched with 1 object (white)"


def test_lost__only_where_something_was_lost(plant, image):
    target = Target(torch.tensor([T]), torch.tensor([0]))
    found = follow(plant([(3, 3, 0.9, T)], [(T, 0.8, 0.1, {0: T})]), image)
    assert lost.draw_lost(found, judge(found, target)) is None
    missed = follow(plant([(3, 3, 0.9, T)], [(T, 0.2, 0.1)]), image)
    figure = lost.draw_lost(missed, judge(missed, target))
    assert [panel.caption for panel in figure.panels] == ["1: cat, low score"]


def test_heat_map__cells_lie_where_the_pixels_are(trace):
    values = torch.zeros(2, 3)
    values[0, 2] = 1
    heat = np.asarray(heat_map(trace, values, width=96)).astype(int)
    assert heat.shape == (64, 96, 3)
    bright = heat.sum(axis=2) > 300
    assert bright[:32, 64:].all()
    assert not bright[32:].any()
    assert not bright[:, :64].any()


def test_view__is_the_valid_part_of_the_input(photo, tiny_detector):
    trace = follow(tiny_detector, photo((64, 80)))
    assert trace.batch.padded_hw == (64, 96)
    assert view(trace, 160).size == (160, 128)


@pytest.mark.parametrize("values", [torch.zeros(0), torch.full((3,), 2.0)])
def test_to_unit__nothing_and_no_differences(values):
    assert to_unit(values).tolist() == [0.0] * len(values)


def test_texts__are_cut_to_the_room(trace):
    assert fitted("short", 200, 16) == "short"
    cut = fitted("a very long name of a class" * 3, 100, 16)
    assert cut.endswith("...")
    assert font(16).getlength(cut) <= 100
    assert draw_bars([Bar("x" * 200, 1.0, "1")]).width == 560
    assert headed(Image.new("RGB", (50, 50)), "y" * 99).size == (50, 72)


def test_figure__sheet_of_one_panel():
    sheet = Figure("x", (Panel("one", Image.new("RGB", (40, 20))),), columns=3).sheet()
    assert sheet.size == (44, 50)
