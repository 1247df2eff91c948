"""Fuses the convolutions of flat graphs with the sums and activations behind them.

The numbers are those of the separate operations; in half precision they are rounded once, not thrice.
"""

import operator
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from fasterrcnn.acceleration.fold_norms import MergedNorm, ReLU6
from fasterrcnn.acceleration.onednn_layers import Activation, AddUpsampled, FusedConv
from fasterrcnn.model.faster_rcnn import FasterRCNN

_RELU = Activation("relu")
_RELU6 = Activation("hardtanh", (0.0, 6.0))
_HARDSWISH = Activation("hardswish")
_BY_TYPE: dict[type[nn.Module], Activation] = {
    nn.ReLU: _RELU,
    nn.ReLU6: _RELU6,
    ReLU6: _RELU6,
    nn.Hardswish: _HARDSWISH,
}
_BY_FUNCTION: dict[Any, Activation] = {
    torch.relu: _RELU,
    torch.relu_: _RELU,
    F.relu: _RELU,
    F.relu6: _RELU6,
    F.hardswish: _HARDSWISH,
    "relu": _RELU,
    "relu_": _RELU,
}
_SUMS = (operator.add, operator.iadd, torch.add, "add", "add_")


def fuse_convs(model: FasterRCNN) -> FasterRCNN:
    """Fuse, in place, the convolutions of a network of flat graphs; for prediction only.

    The network comes from `flatten`. Parts that are no flat graphs stay as they are, and so do networks elsewhere than
    on a CPU.
    """
    if model.mean.device.type != "cpu":
        return model
    head = model.box_head
    for part in (model.backbone.body, model.backbone.neck, model.rpn, getattr(head, "convs", head)):
        if isinstance(part, fx.GraphModule):
            _fuse(part)
    return model


def _fuse(graph: fx.GraphModule) -> None:
    for node in list(graph.graph.nodes):
        if _is_sum(node):
            _exchange_upsampled_sum(graph, node)
    for node in list(graph.graph.nodes):
        conv = _module_of(graph, node)
        if isinstance(conv, nn.Conv2d) and suits_fusion(conv):
            _exchange(graph, node, conv)
    graph.graph.lint()
    graph.delete_all_unused_submodules()
    graph.recompile()


def suits_fusion(conv: nn.Conv2d) -> bool:
    """Whether oneDNN can compute a layer together with what follows."""
    weight = conv.weight
    return (
        weight.device.type == "cpu"
        and not isinstance(conv.padding, str)
        and conv.padding_mode == "zeros"
        and fusion_works(weight.dtype)
    )


@lru_cache(maxsize=8)
def fusion_works(dtype: torch.dtype) -> bool:
    """Whether oneDNN's operators, which are no public part of torch, are there and give the numbers of plain ones."""
    conv = nn.Conv2d(16, 16, 3, padding=1).requires_grad_(False)
    ramp = torch.linspace(-1, 1, conv.weight.numel())
    conv.weight.copy_(ramp.view_as(conv.weight) / 12)
    conv = conv.to(dtype).to(memory_format=torch.channels_last)
    x = torch.linspace(-1, 1, 16 * 64).view(1, 16, 8, 8).to(dtype).contiguous(memory_format=torch.channels_last)
    try:
        expected = F.relu(conv(x).float() + x.float())
        sums = [FusedConv(conv, _RELU, in_place=place)(x, x.clone()) for place in (False, True)]
        clipped = FusedConv(conv, _RELU6)(x)
        switched = FusedConv(conv, _HARDSWISH)(x)
        pairs = [(value, expected) for value in sums]
        pairs += [(clipped, F.relu6(conv(x).float())), (switched, F.hardswish(conv(x).float()))]
        tolerance = 1e-5 if dtype == torch.float32 else 2e-2
        return all(torch.allclose(value.float(), wanted, tolerance, tolerance) for value, wanted in pairs)
    except (AttributeError, RuntimeError):  # another release of torch, or a processor without that type
        return False


def _exchange(graph: fx.GraphModule, node: fx.Node, conv: nn.Conv2d) -> None:
    """A fused layer in the place of a convolution, the sum after it, and the activation after that."""
    replaced, shortcut, in_place = [node], None, False
    follower = _only_user(node)
    if follower is not None and _is_sum(follower):
        other = _other_operand(follower, node)
        if other is not None and _makes_maps(graph, other):
            shortcut = other
            in_place = other is not node.args[0] and _is_free(graph, other, follower)
            replaced.append(follower)
            follower = _only_user(follower)
    activation = _activation_of(graph, follower)
    if activation is not None and follower is not None:
        replaced.append(follower)
    layer = FusedConv(conv, activation or Activation(), in_place=in_place)
    _insert(graph, replaced, layer, node.args[0], shortcut)


def _exchange_upsampled_sum(graph: fx.GraphModule, node: fx.Node) -> None:
    """The layer `AddUpsampled` in the place of a sum of maps, which a convolution makes for it, and enlarged ones."""
    maps: Any
    enlarged: Any
    maps, enlarged = node.args
    if not (_is_conv(graph, maps) and _is_enlarged(enlarged) and _only_user(enlarged) is node):
        return
    if all(user is node or _is_shape(user) for user in maps.users):
        _insert(graph, [enlarged, node], AddUpsampled(), maps, enlarged.args[0])


def _insert(graph: fx.GraphModule, replaced: Sequence[fx.Node], layer: nn.Module, *inputs: Any) -> None:
    """Put a layer where the last of the operations stood that it replaces."""
    name = f"fused_{sum(child.startswith('fused_') for child, _ in graph.named_children())}"
    graph.add_submodule(name, layer)
    with graph.graph.inserting_before(replaced[-1]):
        fused = graph.graph.call_module(name, tuple(value for value in inputs if value is not None))
    replaced[-1].replace_all_uses_with(fused)
    for node in reversed(replaced):
        _erase(graph, node)


def _erase(graph: fx.GraphModule, node: fx.Node) -> None:
    """Take out an operation, and the sizes that only it asked for."""
    values = node.all_input_nodes
    graph.graph.erase_node(node)
    for value in values:
        if not value.users and value.target in (getattr, operator.getitem):
            _erase(graph, value)


def _only_user(node: fx.Node) -> fx.Node | None:
    """The single operation that reads a value."""
    users = list(node.users)
    return users[0] if len(users) == 1 else None


def _is_shape(node: fx.Node) -> bool:
    return node.target is getattr and str(node.args[1]) == "shape"


def _other_operand(total: fx.Node, node: fx.Node) -> fx.Node | None:
    """The other of two values that are summed."""
    others = [value for value in total.args if value is not node]
    return others[0] if len(others) == 1 and isinstance(others[0], fx.Node) else None


def _module_of(graph: fx.GraphModule, node: Any) -> nn.Module | None:
    is_call = isinstance(node, fx.Node) and node.op == "call_module"
    return graph.get_submodule(str(node.target)) if is_call else None


def _is_conv(graph: fx.GraphModule, node: Any) -> bool:
    return isinstance(_module_of(graph, node), nn.Conv2d | FusedConv)


def _makes_maps(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a value is maps for sure: a sum with something smaller would not be a shortcut."""
    return _is_conv(graph, node) or node.target is F.max_pool2d or _activation_of(graph, node) is not None


def _is_free(graph: fx.GraphModule, node: fx.Node, reader: fx.Node) -> bool:
    """Whether maps are new memory that nobody reads after the reader: only convolutions read them, and before."""
    order = {each: place for place, each in enumerate(graph.graph.nodes)}
    others = [user for user in node.users if user is not reader]
    return _is_conv(graph, node) and all(_is_conv(graph, user) and order[user] < order[reader] for user in others)


def _activation_of(graph: fx.GraphModule, node: fx.Node | None) -> Activation | None:
    """What an operation computes, if it is an activation that oneDNN knows."""
    if node is None:
        return None
    module = _module_of(graph, node)
    if isinstance(module, MergedNorm):
        module = module.act
    return _BY_FUNCTION.get(node.target) if module is None else _BY_TYPE.get(type(module))


def _is_sum(node: fx.Node) -> bool:
    return node.target in _SUMS and len(node.args) == 2 and not node.kwargs


def _is_enlarged(node: Any) -> bool:
    """Whether maps come from `F.interpolate`, each cell repeated."""
    return isinstance(node, fx.Node) and node.target is F.interpolate and str(node.kwargs.get("mode")) == "nearest"
