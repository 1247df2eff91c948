import pytest
import torch

from fasterrcnn import presets
from fasterrcnn.explanation import stages
from fasterrcnn.explanation.diagnosis import diagnose_objects
from fasterrcnn.explanation.figures import pool_shown
from fasterrcnn.explanation.trace import trace_image
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
    return trace_image(tiny_detector, photo((64, 96)), score=0.2)


@pytest.mark.parametrize("draw", STAGES, ids=lambda draw: draw.__name__)
def test_stages__each_alone(draw, trace):
    figure = draw(trace)
    assert all(panel.caption for panel in figure.panels)
    assert figure.sheet().getcolors(2) is None, "two colours at most"
    assert figure._repr_png_().startswith(b"\x89PNG")


HEAVY = [pytest.param(name, marks=pytest.mark.slow) for name in ("resnet50-c4", "resnet50-fpn-v2")]


@pytest.mark.parametrize("name", ["resnet50-c5", "mobilenetv3-large-320-fpn", *HEAVY])
def test_stages__of_other_architectures(name, shrink, lively, photo):
    config = shrink(presets.get(name, ("cat",)))
    trace = trace_image(Detector(lively(config), config, device="cpu"), photo((90, 64)), score=0.2)
    assert len({draw(trace).name for draw in STAGES}) == len(STAGES)
    own = "pool" if name == "resnet50-c5" else "align"
    assert pool_shown(trace, own) is trace.pooled


@pytest.mark.parametrize("draw", STAGES, ids=lambda draw: draw.__name__)
def test_stages__nothing_detected_and_nothing_proposed(draw, plant, image):
    trace = trace_image(plant([(3, 3, 0.2, T)], [], min_score=0.5), image)
    assert trace.funnel["proposals"] == trace.funnel["detections"] == 0
    assert draw(trace).sheet().width > 100


def test_pool_shown__the_runs_own_maps_and_the_other_method(trace):
    assert pool_shown(trace, "align") is trace.pooled
    other = pool_shown(trace, "pool")
    assert other.shape == trace.pooled.shape
    assert not torch.equal(other, trace.pooled)
    again = trace.model.roi_pooling([level[None] for level in trace.maps], torch.cat(
        [torch.zeros(len(trace.shown), 1), trace.proposals[trace.shown]], dim=1))  # fmt: skip
    torch.testing.assert_close(again, trace.pooled)


def test_draw_proposals__ten_of_them_are_ten(plant, image):
    candidates = [
        (row, column, 0.5 + 0.01 * row, tuple(16.0 * place + side for side in (-8, 8) for place in (column, row)))
        for row in range(1, 5)
        for column in range(1, 4)
    ]
    detector = plant(candidates, [(box, 0.1, 0.1) for *_, box in sorted(candidates, key=lambda row: -row[2])])
    captions = [panel.caption for panel in stages.draw_proposals(trace_image(detector, image)).panels]
    assert captions == [
        *("before NMS: the best 10", "before NMS: all 12", "before NMS: all 12"),
        *("after NMS: the best 10", "after NMS: all 12", "after NMS: all 12"),
    ]


def test_draw_matched__counts_the_anchors_of_training(plant, image):
    trace = trace_image(plant([(3, 3, 0.9, T)], [(T, 0.8, 0.1, {0: T})]), image)
    panel = stages.draw_matched(trace, Target(torch.tensor([T]), torch.tensor([0]))).panels[0]
    assert panel.caption == "1 of 64 anchors are matched with 1 object (white)"


def test_draw_lost__only_where_something_was_lost(plant, image):
    target = Target(torch.tensor([T]), torch.tensor([0]))
    trace = trace_image(plant([(3, 3, 0.9, T)], [(T, 0.8, 0.1, {0: T})]), image)
    assert stages.draw_lost(trace, diagnose_objects(trace, target)) is None
    missed = trace_image(plant([(3, 3, 0.9, T)], [(T, 0.2, 0.1)]), image)
    figure = stages.draw_lost(missed, diagnose_objects(missed, target))
    assert [panel.caption for panel in figure.panels] == ["1: cat, low score"]
