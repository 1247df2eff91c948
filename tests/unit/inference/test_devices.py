import pytest
import torch

from fasterrcnn.errors import TrainingError, UsageError
from fasterrcnn.inference import devices
from fasterrcnn.inference.devices import (
    choose_device,
    has_bf16_tiles,
    has_fast_bf16,
    has_fast_fp16,
    has_kernels,
    memory_errors_as,
    processors,
    tuned_convolutions,
    use_threads,
)


@pytest.mark.parametrize(
    ("cuda", "mps", "kind"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_choose_device__default(monkeypatch, cuda, mps, kind):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_90"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device(None) == torch.device(kind)


@pytest.fixture
def pascal(monkeypatch):
    """A GPU of capability 6.0, and a build of torch for newer ones."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "compute_90"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla P100")
    monkeypatch.setattr(torch.version, "hip", None)


@pytest.mark.usefixtures("pascal")
def test_choose_device__without_kernels_for_the_gpu():
    with pytest.warns(UserWarning, match=r"no kernels for Tesla P100 \(compute capability 6\.0\); the CPU is used"):
        assert choose_device(None) == torch.device("cpu")


@pytest.mark.usefixtures("pascal")
def test_choose_device__named_but_without_kernels(monkeypatch):
    monkeypatch.setattr(torch, "empty", lambda *_, device: _On(device))
    with pytest.raises(UsageError, match=r'no kernels for Tesla P100 .*install a build that has them, or .* "cpu"'):
        choose_device("cuda")


class _On:
    """A tensor of which only the device is asked."""

    def __init__(self, device):
        self.device = torch.device(device)


@pytest.mark.parametrize(
    ("capability", "has"), [((7, 0), False), ((7, 5), True), ((8, 9), True), ((9, 0), True), ((12, 1), True)]
)
def test_has_kernels(capability, has):
    assert has_kernels(capability, ["sm_75", "sm_80", "sm_90", "compute_120"]) == has


def test_has_kernels__only_of_the_same_major_version():
    assert not has_kernels((9, 0), ["sm_80", "sm_86"])


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


MESSAGES = [
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 14.7 GiB",
    "MPS backend out of memory (MPS allocated: 17.9 GB)",
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9",
]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError(MESSAGES[0]), *map(RuntimeError, MESSAGES), MemoryError()])
def test_memory_errors_as(error):
    message = "there is not enough memory (.*); use less"
    with pytest.raises(TrainingError, match=message) as caught, memory_errors_as(TrainingError, "use less"):
        raise error
    assert "\n" not in str(caught.value)


def test_memory_errors_as__others_stay():
    with pytest.raises(RuntimeError, match="shapes"), memory_errors_as(TrainingError, "use less"):
        raise RuntimeError("shapes differ")


def test_memory_errors_as__of_this_machine():
    with pytest.raises(UsageError, match="not enough memory"), memory_errors_as(UsageError, "use less"):
        torch.empty(1 << 60)


@pytest.mark.parametrize(("before", "shapes", "within"), [(False, 8, True), (False, 9, False), (True, 9, True)])
def test_tuned_convolutions__where_shapes_are_few(monkeypatch, before, shapes, within):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", before)
    with tuned_convolutions(shapes):
        assert torch.backends.cudnn.benchmark == within
    assert torch.backends.cudnn.benchmark == before


@pytest.mark.parametrize(("name", "fast"), [("amx_bf16", True), ("avx512_bf16", True), ("bf16", True), ("avx2", False)])
def test_has_fast_bf16__cpu(monkeypatch, name, fast):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {name: True, "amx_fp16": False}, raising=False)
    devices._cpu_instructions.cache_clear()
    assert has_fast_bf16(torch.device("cpu")) == fast
    assert has_bf16_tiles() == (name == "amx_bf16")
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
