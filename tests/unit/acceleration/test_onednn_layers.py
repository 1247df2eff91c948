import pytest
import torch
from torch.nn import functional as F

from fasterrcnn.acceleration import onednn_layers
from fasterrcnn.acceleration.onednn_layers import (
    OnednnHead,
    OnednnLinear,
    OnednnPooledLinear,
    linear,
    multiply,
    use_onednn,
)
from fasterrcnn.model.box_head import BoxHead, fully_connected_body


@pytest.fixture(autouse=True)
def other_processor(monkeypatch):
    """The products of processors that are not Intel's, on any."""
    monkeypatch.setattr(onednn_layers, "is_intel", lambda: False)


def numbers(rows: int, features: int, outputs: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(rows + features)
    shapes = ((rows, features), (outputs, features), (outputs,), (rows, outputs))
    return [torch.randn(shape, generator=generator) for shape in shapes]


@pytest.mark.parametrize("sizes", [(0, 8, 4), (1, 8, 4), (15, 33, 5), (16, 32, 8), (100, 640, 96), (37, 1, 1)])
def test_linear__output_and_gradients(threads, sizes):
    *leaves, towards = numbers(*sizes)
    for tensor in leaves:
        tensor.requires_grad_()
    exact = [tensor.detach().double().requires_grad_() for tensor in leaves]
    expected = F.linear(*exact)
    expected.backward(towards.double())
    found = linear(*leaves)
    found.backward(towards)
    torch.testing.assert_close(found, expected.float(), atol=1e-4, rtol=1e-4)
    for ours, theirs in zip(leaves, exact, strict=True):
        assert ours.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad.float(), atol=1e-4, rtol=1e-4)


def test_linear__what_follows_may_work_in_place():
    x, weight, bias, _ = numbers(20, 8, 4)
    weight.requires_grad_()
    linear(x, weight, bias).relu_().sum().backward()
    assert weight.grad is not None


def test_linear__only_the_gradients_that_are_wanted():
    x, weight, bias, towards = numbers(20, 8, 4)
    linear(x, weight.requires_grad_(), bias).backward(towards)
    torch.testing.assert_close(weight.grad, towards.t() @ x)
    assert x.grad is None


@pytest.mark.parametrize("kind", ["float64", "no gradient", "autocast", "Intel"])
def test_linear__otherwise_it_is_torchs_own(monkeypatch, kind):
    x, weight, bias, _ = numbers(20, 8, 4)
    monkeypatch.setattr(onednn_layers, "is_intel", lambda: kind == "Intel")
    if kind == "float64":
        x, weight, bias = x.double(), weight.double(), bias.double()
    with torch.set_grad_enabled(kind != "no gradient"), torch.autocast("cpu", torch.bfloat16, kind == "autocast"):
        weight.requires_grad_()
        output = linear(x, weight, bias)
        assert torch.equal(output, F.linear(x, weight, bias))
        assert not output.requires_grad or "_Product" not in output.grad_fn.name()


@pytest.mark.parametrize("rows", [0, 1, 17, 64])
def test_multiply__like_linear(threads, rows):
    x, weight, bias, _ = numbers(rows, 24, 6)
    torch.testing.assert_close(multiply(x, weight, bias), F.linear(x, weight, bias))
    torch.testing.assert_close(multiply(x, weight, None), F.linear(x, weight))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_onednn_pooled_linear__numbers_in_the_order_of_the_weights(layout):
    layer = OnednnPooledLinear(4 * 9, 5)
    pooled = torch.rand(6, 4, 3, 3).contiguous(memory_format=layout)
    plain = torch.nn.functional.linear(pooled.flatten(1), layer.weight, layer.bias)
    towards = torch.rand(6, 5)
    (expected,) = torch.autograd.grad(plain, layer.weight, towards)
    torch.testing.assert_close(layer(pooled), plain)
    torch.testing.assert_close(torch.autograd.grad(layer(pooled), layer.weight, towards)[0], expected)
    with torch.no_grad():
        assert torch.equal(layer(pooled), plain)


def test_use_onednn__same_parameters_and_names():
    body = fully_connected_body(4, 7, (16, 8))
    before = dict(body.named_parameters())
    use_onednn(body)
    assert [type(layer) for layer in body[:4]] == [torch.nn.Identity, OnednnPooledLinear, torch.nn.ReLU, OnednnLinear]
    after = dict(body.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)


@pytest.mark.parametrize("convs", [0, 2])
def test_onednn_head__is_the_head(convs, threads):
    torch.manual_seed(0)
    body = fully_connected_body(6, 3, (20, 16), convs=convs)
    head = BoxHead(body, 16, num_classes=4)
    use_onednn(body)
    fast = OnednnHead(head, 3)
    pooled = torch.randn(17, 6, 3, 3).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        for ours, expected in zip(fast(pooled), head(pooled), strict=True):
            torch.testing.assert_close(ours, expected)
