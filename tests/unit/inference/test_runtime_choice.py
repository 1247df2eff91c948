import pytest
import torch

from fasterrcnn.acceleration import accelerate, autotune
from fasterrcnn.errors import UsageError
from fasterrcnn.inference import devices, runtime_choice
from fasterrcnn.inference.detector import Detector
from fasterrcnn.inference.runtime_choice import Combination, candidates, choose_runtime

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTERRCNN_CACHE", str(tmp_path))
    autotune._remembered.cache_clear()
    yield
    autotune._remembered.cache_clear()


@pytest.fixture
def with_bf16(monkeypatch):
    monkeypatch.setattr(devices, "_cpu_instructions", lambda: frozenset({"avx2", "amx_bf16"}))


@pytest.fixture
def without_bf16(monkeypatch):
    monkeypatch.setattr(devices, "_cpu_instructions", lambda: frozenset({"avx2"}))


@pytest.fixture
def only_torch(monkeypatch):
    monkeypatch.setattr(runtime_choice, "find_spec", lambda _: None)


@pytest.fixture
def network(tiny_model):
    return accelerate(tiny_model, for_="inference").eval().requires_grad_(False)


def test_candidates__on_a_cpu(with_bf16, monkeypatch):
    monkeypatch.setattr(runtime_choice, "find_spec", lambda name: name == "openvino" or None)
    names = ["torch float32", "torch bf16", "winograd float32", "openvino float32", "openvino bf16"]
    assert [" ".join(way) for way in candidates("auto", "auto", CPU, False).values()] == names
    assert list(candidates("torch", "auto", CPU, False).values()) == [
        Combination("torch", "float32"),
        Combination("torch", "bf16"),
    ]
    assert [way.runtime for way in candidates("auto", "bf16", CPU, False).values()] == ["torch", "openvino"]
    quantized = candidates("auto", "float32", CPU, True).values()
    assert [way.runtime for way in quantized] == ["torch", "winograd", "openvino", "openvino-int8"]


def test_candidates__cpu_without_bfloat16(without_bf16):
    assert list(candidates("torch", "auto", CPU, False).values()) == [Combination("torch", "float32")]


@pytest.mark.parametrize(("capability", "precision"), [((9, 0), "bf16"), ((7, 5), "fp16"), ((6, 1), "float32")])
def test_candidates__a_card_has_one(monkeypatch, capability, precision):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    card = torch.device("cuda", 0)
    assert list(candidates("auto", "auto", card, False).values()) == [Combination("torch", precision)]


def test_candidates__apple():
    assert list(candidates("auto", "auto", torch.device("mps"), False).values()) == [Combination("torch", "float32")]


def test_candidates__none():
    with pytest.raises(UsageError, match="precision fp16 needs a GPU"):
        candidates("auto", "fp16", CPU, False)


def test_choose_runtime__nothing_to_choose(network, tiny_config):
    log = []
    assert choose_runtime("torch", "bf16", network, tiny_config.input, log=log.append) == Combination("torch", "bf16")
    assert log == []


def test_choose_runtime__without_fast_bfloat16_nothing_is_measured(network, tiny_config, without_bf16, monkeypatch):
    monkeypatch.setattr(runtime_choice, "_fastest", None)
    log = []
    assert choose_runtime("torch", "auto", network, tiny_config.input, log=log.append) == Combination(
        "torch", "float32"
    )
    assert log == ["auto: runtime torch, precision float32"]


@pytest.fixture
def quick_is(monkeypatch):
    """Gives one precision a time of half a second and the others a whole one."""
    make, precision_of = runtime_choice.make_runtime, {}

    def recording(name, model, *, precision, **options):
        stages = make(name, model, precision=precision, **options)
        precision_of[id(stages)] = precision
        return stages

    def use(quick: str) -> None:
        monkeypatch.setattr(runtime_choice, "make_runtime", recording)
        times = {True: 0.5, False: 1.0}
        monkeypatch.setattr(
            runtime_choice, "_seconds", lambda model, batch, stages: times[precision_of[id(stages)] == quick]
        )

    return use


@pytest.mark.parametrize("precision", ["bf16", "float32"])
def test_choose_runtime__the_faster_one_and_remembers_it(
    network, tiny_config, with_bf16, quick_is, monkeypatch, precision
):
    quick_is(precision)
    log = []
    assert choose_runtime("torch", "auto", network, tiny_config.input, log=log.append) == Combination(
        "torch", precision
    )
    assert log == [f"auto: runtime torch, precision {precision}, the fastest here"]
    autotune._remembered.cache_clear()  # as another process would begin
    monkeypatch.setattr(runtime_choice, "_fastest", None)
    assert choose_runtime("torch", "auto", network, tiny_config.input) == Combination("torch", precision)


def test_choose_runtime__far_numbers_are_not_taken(network, tiny_config, with_bf16, quick_is, monkeypatch):
    quick_is("bf16")
    monkeypatch.setattr(runtime_choice, "MAX_RELATIVE_ERROR", 1e-5)
    assert choose_runtime("torch", "auto", network, tiny_config.input).precision == "float32"


def test_choose_runtime__a_runtime_that_fails_is_left_out(network, tiny_config, without_bf16, only_torch, monkeypatch):
    def broken(name, *arguments, **options):
        if name == "winograd":
            raise UsageError("no compiler")
        return make(name, *arguments, **options)

    make = runtime_choice.make_runtime
    monkeypatch.setattr(runtime_choice, "make_runtime", broken)
    assert choose_runtime("auto", "float32", network, tiny_config.input) == Combination("torch", "float32")


def test_detector__auto_becomes_what_was_taken(tiny_model, tiny_config, without_bf16, only_torch, monkeypatch):
    monkeypatch.setattr(runtime_choice, "_fastest", lambda ways, *_: next(iter(ways)))
    detector = Detector(tiny_model, tiny_config, device="cpu", runtime="auto", precision="auto")
    assert (detector.runtime, detector.precision) == ("torch", "float32")
    assert repr(detector).endswith("cpu, torch, float32)")
