import math

import pytest
import torch
from torch import nn

from fasterrcnn import presets
from fasterrcnn.config import TrainConfig
from fasterrcnn.model.backbones.norms import FrozenBatchNorm2d
from fasterrcnn.training.optimizer import (
    WeightAverage,
    freeze_stages,
    learning_rate_factor,
    make_optimizer,
    pretrained_norms,
)

MODEL = presets.get("timm:test_efficientnet", ["cat"])


def config(**changes) -> TrainConfig:
    return TrainConfig(data="x", model=MODEL, **changes)


def test_learning_rate_factor__warms_up_linearly():
    settings = config(warmup_steps=4)
    assert [learning_rate_factor(step, 100, settings) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_learning_rate_factor__falls_along_half_a_cosine():
    settings = config(warmup_steps=0, final_rate=0.1)
    rates = [learning_rate_factor(step, 100, settings) for step in range(101)]
    assert (rates[0], rates[50], rates[100]) == pytest.approx((1.0, 0.55, 0.1))
    assert rates[25] == pytest.approx(0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 50])
def test_learning_rate_factor__short_runs(steps):
    settings = config(warmup_steps=100)
    rates = [learning_rate_factor(step, steps, settings) for step in range(steps + 1)]
    assert all(0 < rate <= 1 for rate in rates)
    assert max(rates) == pytest.approx(1.0)
    assert rates.index(max(rates)) <= steps // 10
    assert rates[-1] == pytest.approx(settings.final_rate)


def test_learning_rate_factor__stair():
    settings = config(schedule="steps", warmup_steps=0, drops=(0.5, 0.8))
    rates = [learning_rate_factor(step, 10, settings) for step in range(10)]
    assert rates == pytest.approx([1.0] * 5 + [0.1] * 3 + [0.01] * 2)


def test_learning_rate_factor__stair_after_a_warm_up():
    settings = config(schedule="steps", warmup_steps=100, drops=(0.5,))
    assert [learning_rate_factor(step, 20, settings) for step in (0, 1, 2, 9, 10, 19)] == pytest.approx(
        [1 / 3, 2 / 3, 1.0, 1.0, 0.1, 0.1]
    )


def members(optimizer) -> dict[int, dict]:
    return {id(p): group for group in optimizer.param_groups for p in group["params"]}


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_make_optimizer__groups(tiny_model, kind):
    optimizer = make_optimizer(
        tiny_model, config(optimizer=kind, learning_rate=0.1, backbone_rate=0.5, weight_decay=0.01, momentum=0.8)
    )
    group_of = members(optimizer)
    for name, parameter in tiny_model.named_parameters():
        group = group_of[id(parameter)]
        assert group["lr"] == pytest.approx(0.05 if name.startswith("backbone.body.") else 0.1)
        assert group["weight_decay"] == (0.01 if parameter.ndim > 1 else 0.0)
    assert isinstance(optimizer, torch.optim.AdamW if kind == "adamw" else torch.optim.SGD)
    assert (optimizer.param_groups[0].get("momentum") or optimizer.param_groups[0]["betas"][0]) == 0.8


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_make_optimizer__fused_on_a_cpu_and_gradients_can_be_clipped(tiny_config, lively, precision):
    adamw = make_optimizer(lively(tiny_config), config(precision=precision))
    assert adamw.defaults["fused"]
    assert not adamw._step_supports_amp_scaling  # Lightning asks


def test_make_optimizer__what_is_frozen_stays_out(tiny_config, lively):
    model = lively(tiny_config)
    model.backbone.freeze(100)
    group_of = members(make_optimizer(model, config()))
    assert all((id(p) in group_of) == p.requires_grad for p in model.parameters())
    assert not any(id(p) in group_of for p in model.backbone.body.parameters())


@pytest.mark.parametrize("weights", [None, "imagenet"])
def test_make_optimizer__only_a_pretrained_body_is_slower(tiny_model, weights):
    optimizer = make_optimizer(tiny_model, config(weights=weights, learning_rate=0.1, backbone_rate=0.5))
    rates = {group["lr"] for group in optimizer.param_groups}
    assert rates == ({0.1} if weights is None else {0.1, 0.05})


def learning_stages(model) -> list[bool]:
    """Of each part of the backbone that has parameters: whether it learns."""
    stages = [list(stage.parameters()) for stage in model.backbone.body.stages()]
    assert all(len({p.requires_grad for p in stage}) == 1 for stage in stages if stage)
    return [stage[0].requires_grad for stage in stages if stage]


@pytest.mark.parametrize(
    ("options", "epoch", "frozen"),
    [
        ({"freeze": 0}, 1, 0),
        ({"freeze": 2}, 1, 2),
        ({"freeze": 2}, 99, 2),
        ({"freeze": 100}, 1, None),
        ({"freeze": "backbone"}, 99, None),
        ({"freeze": "backbone", "unfreeze_at": 3}, 2, None),
        ({"freeze": "backbone", "unfreeze_at": 3}, 3, 0),
        ({"freeze": 2, "unfreeze_at": 3}, 4, 0),
        ({"freeze": 2, "weights": None}, 1, 0),  # random numbers have to learn
    ],
)
def test_freeze_stages__the_first_parts(tiny_config, lively, options, epoch, frozen):
    model = lively(tiny_config)
    freeze_stages(model, config(**options), epoch)
    learns = learning_stages(model)
    first = len(learns) if frozen is None else frozen
    assert learns == [False] * first + [True] * (len(learns) - first)
    assert all(p.requires_grad for name, p in model.named_parameters() if not name.startswith("backbone.body."))


def test_freeze_stages__goes_both_ways(tiny_config, lively):
    model = lively(tiny_config)
    settings = config(freeze="backbone", unfreeze_at=2)
    for epoch in (2, 1, 2):  # a run that goes on may ask for a later epoch first
        freeze_stages(model, settings, epoch)
        assert set(learning_stages(model)) == {epoch == 2}


def test_pretrained_norms__those_whose_statistics_have_moved():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 1),
        nn.Sequential(nn.BatchNorm2d(4)),
        nn.BatchNorm2d(4),
        nn.GroupNorm(2, 4),
        FrozenBatchNorm2d(4),
        nn.BatchNorm2d(4, track_running_stats=False),
    )
    assert pretrained_norms(network) == []
    network[1][0].running_mean[2] = 0.5
    assert pretrained_norms(network) == ["1.0"]


def test_pretrained_norms__one_step_is_enough():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train()
    network(torch.rand(2, 3, 4, 4) + 3)
    assert pretrained_norms(network) == ["1"]


class Learner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1, bias=False)
        self.fixed = nn.Linear(1, 1, bias=False).requires_grad_(False)
        self.norm = nn.BatchNorm2d(1)


def step(average, module, number, weight) -> None:
    with torch.no_grad():
        module.layer.weight.fill_(weight)
    average.update(module, number)


def averaged(average, module) -> float:
    with average.applied(module):
        return float(module.layer.weight.detach())


def test_average__by_hand():
    average, module = WeightAverage(0.9), Learner()
    step(average, module, 1, 4.0)
    assert averaged(average, module) == pytest.approx(4.0)
    step(average, module, 2, 8.0)  # the old average counts (1 + 2) / (10 + 2)
    assert averaged(average, module) == pytest.approx(0.25 * 4 + 0.75 * 8)
    assert float(module.layer.weight.detach()) == 8.0


def test_average__decay_is_the_most_that_the_old_one_counts():
    average, module = WeightAverage(0.5), Learner()
    step(average, module, 1, 0.0)
    step(average, module, 1000, 1.0)
    assert averaged(average, module) == pytest.approx(0.5)


def test_average__running_statistics_too():
    average, module = WeightAverage(0.5), Learner()
    module.norm.running_mean.fill_(1.0)
    step(average, module, 1, 0.0)
    module.norm.running_mean.fill_(3.0)
    step(average, module, 1000, 0.0)
    module.eval()
    with average.applied(module):
        assert float(module.norm.running_mean) == pytest.approx(2.0)
    assert float(module.norm.running_mean) == 3.0


def test_average__before_the_first_step_the_weights_themselves():
    module = Learner()
    with WeightAverage(0.9).applied(module):
        assert module.state_dict().keys() == Learner().state_dict().keys()


def test_average__goes_on_from_its_state():
    first, second, module = WeightAverage(0.9), WeightAverage(0.9), Learner()
    step(first, module, 1, 4.0)
    second.load_state_dict(first.state_dict())
    assert averaged(second, module) == pytest.approx(4.0)


def test_average__only_what_moves():
    average, module = WeightAverage(0.9), Learner()
    step(average, module, 1, 4.0)
    keys = set(average.state_dict()["average"])
    assert keys == {"layer.weight", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"}


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize(("device", "fused"), [("cpu", True), ("cuda", True), ("mps", None)])
def test_make_optimizer__fused_where_it_is_faster(monkeypatch, device, precision, fused):
    """Lightning clips gradients in mixed precision only for optimizers that do not unscale them."""
    made = {}

    class AdamW:
        _step_supports_amp_scaling = True

        def __init__(self, groups, **options):
            made.update(options)

    class On:
        device = torch.device("cpu")
        requires_grad, ndim = True, 2

        def named_parameters(self):
            return [("weight", self)]

        def parameters(self):
            return iter([self])

    model = On()
    model.device = torch.device(device)
    monkeypatch.setattr(torch.optim, "AdamW", AdamW)
    chosen = make_optimizer(model, config(precision=precision))
    assert made["fused"] is fused
    assert not chosen._step_supports_amp_scaling
