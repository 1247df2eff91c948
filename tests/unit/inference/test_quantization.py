import pytest
import torch

from fasterrcnn.errors import UsageError
from fasterrcnn.inference.quantization import check_outputs


def test_check_outputs__rounding():
    exact = torch.linspace(-1, 1, 100)
    check_outputs([(exact * 16).round() / 16, torch.zeros(3)], [exact, torch.zeros(3)])


@pytest.mark.parametrize("outputs", [torch.zeros(100), torch.full((100,), torch.nan), -torch.linspace(-1, 1, 100)])
def test_check_outputs__anything_else(outputs):
    exact = torch.linspace(-1, 1, 100)
    with pytest.raises(UsageError, match=r"output 1 is off by .* times its size"):
        check_outputs([exact, outputs], [exact, exact])
