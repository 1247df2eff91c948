"""A device that pretends to be a GPU: it computes on the CPU, and counts where the CPU would wait for the GPU.

    gpu = PretendedGpu()
    with gpu:
        model = gpu.moved(model)
        losses = model.losses(gpu.batch(batch), ...)
    assert gpu.waits["..."] <= 3

Tensors on it are `PretendedTensor`. Every operation that mixes them with tensors of the CPU is refused, as CUDA does.
A wait is `item()` or `tolist()`, a mask as index, `nonzero`, a copy to the CPU, and a copy from it unless it is made
with ``non_blocking``: torch then waits until the pageable memory has been read. Backward passes cannot run on it.
"""

import sys
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

_WAITING = {
    "_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2", "unique_dim",
    "unique_consecutive", "bincount", "nms",
}  # fmt: skip
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
_COPYING = {"_to_copy", "copy_"}


class PretendedTensor(Tensor):
    """A tensor of the CPU with the name of another device."""

    on_cpu: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, on_cpu: Tensor, device: torch.device) -> "PretendedTensor":
        made = torch.Tensor._make_wrapper_subclass(
            cls, on_cpu.size(), strides=on_cpu.stride(), storage_offset=on_cpu.storage_offset(),
            dtype=on_cpu.dtype, layout=on_cpu.layout, device=device,
        )  # fmt: skip
        made.on_cpu = on_cpu
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} outside of the pretended GPU's context")

    def __repr__(self) -> str:
        return f"Pretended({self.on_cpu})"

    def tolist(self) -> Any:
        """As torch: one copy, whatever the size."""
        return self.cpu().tolist()


class PretendedGpu(TorchDispatchMode):
    """Within its context, operations on `PretendedTensor` run and `waits` are counted by what waits and where."""

    def __init__(self, kind: str = "cuda") -> None:
        super().__init__()
        self.device = torch.device(kind, 0)
        self.waits: Counter[str] = Counter()

    def __enter__(self) -> "PretendedGpu":
        torch._C._ensureCUDADeviceGuardSet()  # where there is no CUDA, torch would search for its driver
        self._lifted = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor(1, device=...)` is made on the CPU, and copied
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        torch._C._set_only_lift_cpu_tensors(self._lifted)
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.__name__.split(".")[0]
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        mine = [tensor for tensor in tensors if isinstance(tensor, PretendedTensor)]
        device = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
        if mine:
            self._refuse_mixed(name, tensors, args)
        self._count(name, tensors, mine, device, args, kwargs)
        plain_args, plain_kwargs = tree_map_only(PretendedTensor, lambda tensor: tensor.on_cpu, (args, kwargs))
        if device is not None:
            plain_kwargs = {**plain_kwargs, "device": torch.device("cpu")}
            plain_kwargs.pop("pin_memory", None)
        result = func(*plain_args, **plain_kwargs)
        is_mine = device.type == self.device.type if device is not None else bool(mine)
        if (
            not is_mine
            or name == "_local_scalar_dense"
            or (name == "copy_" and not isinstance(args[0], PretendedTensor))
        ):
            return _own_memory(result, mine) if mine else result
        wrapped = tree_map_only(Tensor, self._pretend, result)
        return return_and_correct_aliasing(func, args, kwargs, wrapped) if mine and name != "lift_fresh" else wrapped

    def moved(self, module: nn.Module) -> nn.Module:
        """The module itself, with its parameters and buffers on the pretended GPU; no wait is counted."""
        for part in module.modules():
            for name, parameter in part._parameters.items():
                if parameter is not None:
                    part._parameters[name] = nn.Parameter(self._pretend(parameter.detach()), parameter.requires_grad)
            for name, buffer in part._buffers.items():
                if buffer is not None:
                    part._buffers[name] = self._pretend(buffer.detach())
        return module

    def put(self, tensor: Tensor) -> Tensor:
        """The tensor on the pretended GPU; no wait is counted."""
        return self._pretend(tensor)

    def _pretend(self, tensor: Tensor) -> PretendedTensor:
        if self.device.type == "mps" and tensor.dtype == torch.float64:
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
            )
        return PretendedTensor(tensor, self.device)

    def _refuse_mixed(self, name: str, tensors: list[Tensor], args: Any) -> None:
        """As CUDA: only numbers without dimensions may lie on the CPU, and indices, which are copied."""
        plain = [t for t in tensors if not isinstance(t, PretendedTensor) and t.dim() > 0]
        if plain and name not in _COPYING and not (name in _INDEXING and isinstance(args[0], PretendedTensor)):
            raise RuntimeError(f"Expected all tensors to be on the same device: {name} at {_place()}")

    def _count(self, name: str, tensors: list[Tensor], mine: list[Any], device: Any, args: Any, kwargs: Any) -> None:
        to_cpu = bool(mine) and name in _COPYING and (device is not None and device.type == "cpu")
        to_me = bool(tensors) and not mine and device is not None and device.type == self.device.type
        if name == "copy_" and isinstance(args[0], PretendedTensor) != isinstance(args[1], PretendedTensor):
            to_cpu, to_me = not isinstance(args[0], PretendedTensor), isinstance(args[0], PretendedTensor)
        waits = bool(mine) and name in _WAITING
        if mine and name in _INDEXING:
            is_fill = name != "index" and not isinstance(args[2], PretendedTensor) and args[2].numel() == 1
            indices = [index for index in args[1] if index is not None]
            masks = any(index.dtype in (torch.bool, torch.uint8) for index in indices)
            waits = (masks and not is_fill) or any(not isinstance(index, PretendedTensor) for index in indices)
        if waits or ((to_cpu or to_me) and not kwargs.get("non_blocking", False)):
            what = "copy to the CPU" if to_cpu else "copy to the GPU" if to_me else name
            self.waits[f"{what} at {_place()}"] += 1


def _own_memory(result: Any, mine: list[PretendedTensor]) -> Any:
    """A copy to the CPU shares no memory with the pretended GPU."""
    return tree_map_only(Tensor, lambda t: t.clone() if any(t is tensor.on_cpu for tensor in mine) else t, result)


def _place() -> str:
    """The line of the library that runs, or of whoever calls torch."""
    frame, last = sys._getframe(1), ""
    while frame is not None:
        file = frame.f_code.co_filename
        if "/src/fasterrcnn/" in file:
            return f"{file.split('/src/fasterrcnn/')[1]}:{frame.f_lineno}"
        if not last and "/torch/" not in file and "pretended_gpu" not in file:
            last = f"{file}:{frame.f_lineno}"
        frame = frame.f_back
    return last
