"""A network as flat graphs: what its modules compute, operation after operation, without the modules around it.

torch.fx follows a module with symbols instead of tensors. The graph shows which norm follows which convolution, and
running it spares the calls of nested modules.
"""

import copy
import inspect
import operator
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import fx, nn

from fasterrcnn.acceleration.onednn_layers import OnednnHead
from fasterrcnn.model.faster_rcnn import FasterRCNN

_OWN_LAYERS = "fasterrcnn.acceleration"
"""Layers of this package decide by the size of a map how they compute, which no symbol has."""


def flatten(model: FasterRCNN) -> FasterRCNN:
    """The network with flat graphs in the place of its parts; it shares its weights and is not trained.

    The model comes from `accelerate(..., for_="inference")`. A part that cannot be followed with symbols,
    as some of timm's bodies, stays as it is.
    """
    flat = copy_with_shared_weights(model)
    levels, maps = len(flat.anchors.sizes), len(flat.backbone.strides)
    flat.backbone.body = _flat(flat.backbone.body)
    flat.backbone.neck = _flat(_OfLevels(flat.backbone.neck, maps))
    flat.rpn = _flat(_OfLevels(flat.rpn, levels))
    flat.add_module("box_head", flat_head(flat))
    return flat


def flat_head(model: FasterRCNN) -> nn.Module:
    """The box head for prediction: a flat graph, or the products of oneDNN where it has fully connected layers."""
    has_products = any(isinstance(layer, nn.Linear) for layer in model.box_head.body.children())
    if has_products and model.mean.device.type == "cpu":
        products = OnednnHead(model.box_head, model.roi_pooling.output_size)
        products.convs = _flat(products.convs)
        return products
    head: nn.Module = _flat(model.box_head)
    return head


def copy_with_shared_weights(model: FasterRCNN) -> FasterRCNN:
    """A network whose layers can be exchanged without harm to the original."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)


def trace(module: nn.Module) -> fx.Graph | None:
    """The operations of a module of one argument; None where what it does depends on values or sizes."""
    try:
        return _Tracer().trace(module)
    except Exception:  # anything can happen to code that gets symbols
        return None


def _flat(module: nn.Module) -> Any:
    graph = trace(module)
    return module if graph is None else fx.GraphModule(module, graph, type(module).__name__)


class _Symbol(fx.Proxy):
    """Stays in place where a tensor does: torch.fx would make `x += y` a sum that takes new memory."""

    def __iadd__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})

    def __imul__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.imul, (self, other), {})


class _Tracer(fx.Tracer):
    """Goes into every module but layers with weights; past the checks of types, which know no symbols."""

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Symbol(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, nn.Identity):  # in the place of a neck it gets a list
            return False
        is_layer = isinstance(m, nn.Conv2d | nn.Linear) or hasattr(m, "running_mean")
        is_own = type(m).__module__.startswith(_OWN_LAYERS) and not isinstance(m, _OfLevels)
        return is_layer or is_own or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if not self.is_leaf_module(m, self.path_of_module(m)):
            forward = partial(inspect.unwrap(type(m).forward), m)
        return super().call_module(m, forward, args, kwargs)

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        return super().create_args_for_root(inspect.unwrap(root_fn), is_module, concrete_args)


class _OfLevels(nn.Module):
    """A module that takes a list of maps, with their number: a symbol has no length."""

    def __init__(self, part: nn.Module, levels: int) -> None:
        super().__init__()
        self.part, self.levels = part, levels

    def forward(self, maps: Any) -> Any:
        return self.part([maps[level] for level in range(self.levels)])
