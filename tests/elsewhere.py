"""Devices that are not there: tensors which say that they are on one, and refuse to meet those of another.

They compute on the CPU. What a machine with several GPUs would refuse is refused here: a CPU tensor without dimensions
may meet any other, and CPU indices may index, but nothing else.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

KIND = "lazy"  # a device that torch can be asked for, and has not got
_TO, _INTO = torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default
_INDEXED = {
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put_.default,
    torch.ops.aten.index_put.default,
    torch.ops.aten._index_put_impl_.default,
}


class Elsewhere(Tensor):
    """A tensor on a device that is not there."""

    inside: Tensor

    @staticmethod
    def __new__(cls, inside: Tensor, device: torch.device) -> "Elsewhere":
        form = {"strides": inside.stride(), "storage_offset": inside.storage_offset(), "dtype": inside.dtype}
        made: Elsewhere = Tensor._make_wrapper_subclass(cls, inside.shape, device=device, **form)  # type: ignore[attr-defined]
        made.inside = inside
        return made

    def tolist(self) -> Any:
        return self.inside.tolist()

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(function, args, kwargs or {})


@contextmanager
def devices() -> Iterator[None]:
    """While it is entered, tensors can be made on such devices."""
    # Older releases of transformers ask whether what they compute is cast on a device.
    asked = torch.is_autocast_enabled
    with mock.patch.object(torch, "is_autocast_enabled", lambda *kind: kind != (KIND,) and asked(*kind)):
        with _FromLists(), _Everything():
            yield


def place(module: nn.Module, device: torch.device) -> None:
    """Put a module there, and, when it is called, whatever is given to it: as accelerate's hooks do."""
    for part in module.modules():
        hold(part, device)

    def there(one: Any) -> Any:
        return one.to(device) if isinstance(one, Tensor) else one

    def bring(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return tree_map(there, args), tree_map(there, kwargs)

    module.register_forward_pre_hook(bring, with_kwargs=True)


@torch.inference_mode()
def hold(module: nn.Module, device: torch.device) -> None:
    """Put there what is the module's own, not its parts'."""
    for held in (module._parameters, module._buffers):
        for name, tensor in held.items():
            if tensor is not None:
                held[name] = Elsewhere(tensor.data, device)  # type: ignore[assignment]


class _Everything(TorchDispatchMode):
    """Also sees what is made of no tensor."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(function, args, kwargs or {})


class _FromLists(TorchFunctionMode):
    """Tensors that torch makes of lists, without asking the mode above."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(kwargs or {})
        if function is torch.tensor and (device := given.pop("device", None)) is not None:
            return function(*args, **given).to(device)
        if function is Tensor.__getitem__ and isinstance(args[1], tuple):
            args = args[0], tuple(torch.tensor(one) if isinstance(one, list) else one for one in args[1])
        return function(*args, **given)


def _computed(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What a function of torch gives, computed on the CPU, said to be where it would be."""
    with _Everything():  # what is made of other functions is seen as those
        out = function.decompose(*args, **kwargs)
    if out is not NotImplemented:
        return out
    given = dict(kwargs)
    tensors = [one for one in tree_leaves((args, given)) if isinstance(one, Tensor)]
    if (wanted := given.get("device")) is not None:
        given["device"] = torch.device("cpu")
        device = torch.device(wanted)
        if function is not _TO:
            _one_device(function, args, tensors)
    else:
        device = tensors[0].device if function in (_TO, _INTO) else _one_device(function, args, tensors)
    out = function(*tree_map(_opened, args), **tree_map(_opened, given))
    if device.type != KIND:
        return out
    known = {id(one.inside): one for one in tensors if isinstance(one, Elsewhere)}  # what was computed in place
    return tree_map(lambda one: known[id(one)] if id(one) in known else _there(one, device), out)


def _opened(one: Any) -> Any:
    return one.inside if isinstance(one, Elsewhere) else one


def _there(one: Any, device: torch.device) -> Any:
    return Elsewhere(one, device) if isinstance(one, Tensor) else one


def _one_device(function: Any, args: Sequence[Any], tensors: Sequence[Tensor]) -> torch.device:
    """Where tensors are that meet. Raises `RuntimeError` if that is in several places."""
    if function in _INDEXED:
        free = {id(one) for one in tree_leaves(args[1]) if isinstance(one, Tensor) and one.device.type == "cpu"}
        tensors = [one for one in tensors if id(one) not in free]
    found = {one.device for one in tensors if one.device.type == KIND or one.ndim}
    if len(found) > 1:
        raise RuntimeError(f"{function}: tensors of {', '.join(sorted(map(str, found)))} meet")
    return found.pop() if found else torch.device("cpu")
