import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fasterrcnn.config import TrainConfig
from fasterrcnn.data.records import Record
from fasterrcnn.model.backbones.norms import FrozenBatchNorm2d
from fasterrcnn.training.recipe import epoch_batches, freeze_trained_norms, make_optimizer, rate_at


def config(**changes) -> TrainConfig:
    return TrainConfig(data="x", model="y", **changes)


def test_rate_at__warms_up_linearly():
    settings = config(warmup_steps=4)
    assert [rate_at(step, 100, settings) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_rate_at__falls_along_half_a_cosine():
    settings = config(warmup_steps=0, final_rate=0.1)
    rates = [rate_at(step, 100, settings) for step in range(101)]
    assert (rates[0], rates[50], rates[100]) == pytest.approx((1.0, 0.55, 0.1))
    assert rates[25] == pytest.approx(0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 50])
def test_rate_at__short_runs(steps):
    settings = config(warmup_steps=100)
    rates = [rate_at(step, steps, settings) for step in range(steps + 1)]
    assert all(0 < rate <= 1 for rate in rates)
    assert max(rates) == pytest.approx(1.0)
    assert rates.index(max(rates)) <= steps // 10
    assert rates[-1] == pytest.approx(settings.final_rate)


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
        assert group["lr"] == pytest.approx(0.05 if name.startswith("backbone.trunk.") else 0.1)
        assert group["weight_decay"] == (0.01 if parameter.ndim > 1 else 0.0)
    assert isinstance(optimizer, torch.optim.AdamW if kind == "adamw" else torch.optim.SGD)
    assert (optimizer.param_groups[0].get("momentum") or optimizer.param_groups[0]["betas"][0]) == 0.8


def test_make_optimizer__what_is_frozen_stays_out(tiny_config, lively):
    model = lively(tiny_config)
    model.backbone.freeze(100)
    group_of = members(make_optimizer(model, config()))
    assert all((id(p) in group_of) == p.requires_grad for p in model.parameters())
    assert not any(id(p) in group_of for p in model.backbone.trunk.parameters())


def test_freeze_trained_norms__statistics_and_affine_part_stay():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), FrozenBatchNorm2d(4)).train()
    network[1].running_mean.fill_(0.5)
    assert freeze_trained_norms(network) == [network[1]]
    network(torch.rand(2, 3, 4, 4) + 3)
    assert torch.equal(network[1].running_mean, torch.full((4,), 0.5))
    assert [p.requires_grad for p in network.parameters()] == [True, True, False, False, True, True]
    assert network[0].training


def test_freeze_trained_norms__fresh_ones_go_on_learning():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train()
    assert freeze_trained_norms(network) == []
    network(torch.rand(2, 3, 4, 4) + 3)
    assert network[1].running_mean.any()
    assert all(p.requires_grad for p in network.parameters())


def records(*sizes_hw) -> list[Record]:
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_)
    return [Record(Path(f"{i}.jpg"), i, size, *nothing) for i, size in enumerate(sizes_hw)]


@pytest.mark.parametrize("batch_size", [1, 2, 4, 100])
@pytest.mark.parametrize("count", [1, 7, 12])
def test_epoch_batches__cover_every_picture_once(count, batch_size):
    pictures = records(*[(10, 20), (20, 10), (10, 10)] * count)
    batches = epoch_batches(pictures, batch_size, torch.Generator().manual_seed(0))
    assert sorted(i for batch in batches for i in batch) == list(range(3 * count))
    assert max(len(batch) for batch in batches) <= batch_size


def test_epoch_batches__wide_and_tall_apart():
    pictures = records(*[(10, 20), (20, 10)] * 10)
    for batch in epoch_batches(pictures, 4, torch.Generator().manual_seed(0)):
        assert len({index % 2 for index in batch}) == 1


def test_epoch_batches__seed_decides():
    pictures = records(*[(10, 20)] * 20)
    generator = torch.Generator().manual_seed(0)
    first, second = (epoch_batches(pictures, 4, generator) for _ in range(2))
    assert first != second
    assert first == epoch_batches(pictures, 4, torch.Generator().manual_seed(0))


def test_epoch_batches__no_pictures():
    assert epoch_batches([], 4, torch.Generator()) == []
