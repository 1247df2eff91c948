import pytest
import torch
from torch import nn

from fasterrcnn.training.optimizer import WeightAverage


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
