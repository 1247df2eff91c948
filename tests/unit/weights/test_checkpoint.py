import pytest
import torch
from torch import nn

from fasterrcnn import load, presets
from fasterrcnn.build import load_model
from fasterrcnn.config import AnchorConfig, changed
from fasterrcnn.errors import UsageError, WeightsError
from fasterrcnn.weights import torchvision
from fasterrcnn.weights.layout import check_fit

STATE = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.zeros(2)}


def saved(tmp_path, content):
    path = tmp_path / "file.pth"
    torch.save(content, path)
    return path


def test_check_fit__gives_every_tensor():
    assert check_fit(nn.Linear(3, 2), STATE, "here") == STATE
    with torch.device("meta"):
        assert check_fit(nn.Linear(3, 2), STATE, "here") == STATE


def test_check_fit__counters_of_batch_norms_do_not_matter():
    norm, count = nn.BatchNorm2d(2), torch.tensor(3)
    state = {key: value for key, value in norm.state_dict().items() if key != "num_batches_tracked"}
    assert check_fit(norm, state, "here").keys() == state.keys()
    assert "num_batches_tracked" in check_fit(norm, {**state, "num_batches_tracked": count}, "here")
    assert check_fit(nn.Linear(3, 2), {**STATE, "bn.num_batches_tracked": count}, "here").keys() == STATE.keys()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "here: does not fit the model: missing weight, bias"),
        ({"weight": STATE["weight"]}, "here: does not fit the model: missing bias"),
        ({**STATE, "more": torch.zeros(1)}, "here: does not fit the model: left over more"),
        ({"weight": STATE["weight"], "b": STATE["bias"]}, "missing bias; left over b"),
        ({**STATE, "bias": torch.zeros(3)}, r"here: bias has shape \(3,\), the model needs \(2,\)"),
        ({**STATE, "bias": torch.full((2,), torch.nan)}, "here: bias holds NaN or infinite numbers"),
    ],
)
def test_check_fit__refuses(state, message):
    with pytest.raises(WeightsError, match=message):
        check_fit(nn.Linear(3, 2), state, "here")


def test_load_model__tensors_of_another_network(tmp_path):
    with pytest.raises(WeightsError, match="neither a checkpoint of this library nor a Faster R-CNN of"):
        load_model(saved(tmp_path, STATE))


def test_load_model__torchvision_of_no_known_architecture(tmp_path):
    rows = [f"roi_heads.box_predictor.{p}.{t}" for p in ("cls_score", "bbox_pred") for t in ("weight", "bias")]
    keys = (*rows, "rpn.head.cls_logits.weight")
    with pytest.raises(WeightsError, match=r"but of none of the networks that are read: a pyramid on ResNet, "):
        load_model(saved(tmp_path, {key: torch.zeros(3, 1) for key in keys}))


# ---- what a file of torchvision does not hold


@pytest.fixture(scope="module")
def torchvision_file(weightless, tmp_path_factory):
    """A file with five anchors of a cell instead of three, or with the default number."""

    def write(per_cell):
        config = changed(presets.get("mobilenetv3-large-fpn", ["a", "b"]), regions={"widths": (4, 4)})
        ratios = tuple(0.5 + number for number in range(per_cell))
        config = (
            changed(config, anchors={"sizes": ((32.0,),) * 3, "ratios": (ratios,) * 3}) if per_cell < 15 else config
        )
        path = tmp_path_factory.mktemp("files") / "own.pth"
        state = torchvision.to_torchvision(weightless(config), config)
        torch.save({name: tensor.contiguous() for name, tensor in state.items()}, path)
        return path, config

    return write


def test_load_model__anchors_and_sizes_of_torchvision_are_stated(torchvision_file):
    path, config = torchvision_file(5)
    lines = []
    _, loaded = load_model(path, anchors=config.anchors, short_side=300, long_side=500, log=lines.append)
    assert loaded.anchors == config.anchors
    assert (loaded.input.short_side, loaded.input.long_side) == (300, 500)
    assert len(lines) == 1
    with pytest.raises(WeightsError, match=r"own\.pth: its RPN has 5 anchors of a cell, not 15, .* for 3 levels"):
        load_model(path)


def test_load_model__defaults_of_torchvision_are_noted(torchvision_file):
    path, _ = torchvision_file(15)
    lines = []
    load_model(path, log=lines.append)
    assert "hold neither anchors nor input size; its defaults are taken" in lines[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"short_side": 0}, r"input of 0 x 1333 pixels: 0 < short side"),
        ({"short_side": 2000}, r"input of 2000 x 1333 pixels"),
        ({"long_side": 10**9}, r"input of 800 x 1000000000 pixels"),
        ({"anchors": AnchorConfig()}, r"anchors of 5 levels, but .*own\.pth holds a network with 3"),
    ],
)
def test_load_model__what_is_stated_cannot_be(torchvision_file, options, message):
    with pytest.raises(UsageError, match=message):
        load_model(torchvision_file(15)[0], **options)


def test_load__anchors_from_a_file(torchvision_file, tmp_path):
    path, config = torchvision_file(5)
    (tmp_path / "anchors.yaml").write_text(f"anchors: {config.anchors.model_dump_json()}")
    assert load(path, anchors=tmp_path / "anchors.yaml", device="cpu").config.anchors == config.anchors
