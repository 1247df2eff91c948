import pytest
import torch
from torch import nn

from fasterrcnn.build import load_model
from fasterrcnn.errors import WeightsError
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
    with pytest.raises(WeightsError, match="but none of its four architectures"):
        load_model(saved(tmp_path, {key: torch.zeros(3, 1) for key in keys}))
