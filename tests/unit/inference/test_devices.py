import pytest
import torch

from fasterrcnn.errors import UsageError
from fasterrcnn.inference import devices
from fasterrcnn.inference.devices import choose_device, has_fast_bf16, has_fast_fp16, processors, use_threads


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


@pytest.mark.parametrize(("name", "fast"), [("amx_bf16", True), ("avx512_bf16", True), ("bf16", True), ("avx2", False)])
def test_has_fast_bf16__cpu(monkeypatch, name, fast):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {name: True, "amx_fp16": False}, raising=False)
    devices._cpu_instructions.cache_clear()
    assert has_fast_bf16(torch.device("cpu")) == fast
    devices._cpu_instructions.cache_clear()


def test_has_fast_bf16__older_torch(monkeypatch, tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text("model name\t: any\nflags\t\t: fpu avx2 avx512_bf16\n")
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(devices, "Path", lambda _: info)
    devices._cpu_instructions.cache_clear()
    assert has_fast_bf16(torch.device("cpu"))
    devices._cpu_instructions.cache_clear()


@pytest.mark.parametrize(
    ("capability", "bf16", "fp16"), [((8, 0), True, True), ((7, 5), False, True), ((6, 1), False, False)]
)
def test_has_fast__cards(monkeypatch, capability, bf16, fp16):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    card = torch.device("cuda", 0)
    assert (has_fast_bf16(card), has_fast_fp16(card)) == (bf16, fp16)
    assert not has_fast_fp16(torch.device("cpu"))
