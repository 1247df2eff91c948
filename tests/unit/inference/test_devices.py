import pytest
import torch

from fasterrcnn.errors import UsageError
from fasterrcnn.inference.devices import choose_device, processors, use_threads


@pytest.mark.parametrize(
    ("cuda", "mps", "kind"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_choose_device__default(monkeypatch, cuda, mps, kind):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device(None) == torch.device(kind)


def test_choose_device__by_name():
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match=r"device 'gpu' cannot be used here; there is .*cpu"):
        choose_device("gpu")


@pytest.mark.parametrize("name", ["mps", "cuda:77", "xla", "nope:1"])
def test_choose_device__absent_in_one_short_line(monkeypatch, name):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UsageError, match=f"device '{name}' cannot be used here") as caught:
        choose_device(name)
    assert len(str(caught.value)) < 250


def test_use_threads():
    before = torch.get_num_threads()
    try:
        use_threads(1)
        assert torch.get_num_threads() == 1
        use_threads(None)
        assert torch.get_num_threads() == 1
        with pytest.raises(UsageError, match="threads must be at least 1, not 0"):
            use_threads(0)
    finally:
        torch.set_num_threads(before)


def test_processors():
    assert processors() >= 1
