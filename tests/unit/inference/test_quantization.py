import pytest
import torch

from fasterrcnn.errors import UsageError
from fasterrcnn.inference.quantization import refuse_nonsense


def test_refuse_nonsense__rounding():
    exact = torch.linspace(-1, 1, 100)
    refuse_nonsense([(exact * 16).round() / 16, torch.zeros(3)], [exact, torch.zeros(3)])


@pytest.mark.parametrize("found", [torch.zeros(100), torch.full((100,), torch.nan), -torch.linspace(-1, 1, 100)])
def test_refuse_nonsense__anything_else(found):
    exact = torch.linspace(-1, 1, 100)
    with pytest.raises(UsageError, match=r"output 1 is off by .*, where its size is 0\.583"):
        refuse_nonsense([exact, found], [exact, exact])
