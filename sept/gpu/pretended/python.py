"""The simulated device at Python level: locations of tensors, moves, factories, and a card's errors."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sept.gpu.pretended.autocast import Autocast
from sept.gpu.pretended.generators import require_generator
from sept.gpu.pretended.moving import moved, parsed, place_of
from sept.gpu.pretended.state import CUDA, SCALARS, Device, any_there, wants_device
from sept.gpu.pretended.storages import on_device, tag_of, tensors_in

Handler = Callable[["Python", Any, tuple, dict[str, Any]], Any]
HANDLERS: dict[Any, Handler] = {}
ATTRIBUTES = {getattr(torch._C.TensorBase, name): name for name in ("device", "is_cuda", "is_cpu", "grad")}


def handles(*functions: Any) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(functions, handler))
        return handler

    return register


class Python(TorchFunctionMode):
    """Intercepts every torch function called from Python; inactive inside them."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device, self.autocast = device, Autocast()

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("__get__", "__set__"):
            return self._attribute(func, name, args)
        if func in HANDLERS:
            return HANDLERS[func](self, func, args, kwargs)
        return self.call(func, name, args, kwargs)

    def call(self, func: Any, name: str, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Functions without special handling."""
        there = any_there(args, kwargs)
        device, pinned = kwargs.get("device"), bool(kwargs.get("pin_memory"))
        target = there if device is None else wants_device(device)
        require_generator(func, args, kwargs, target)
        if pinned and target:
            raise RuntimeError("Only dense CPU tensors can be pinned")
        if device is not None and target:
            kwargs = {**kwargs, "device": "cpu"}
        if pinned:
            kwargs = {**kwargs, "pin_memory": False}
        if there and torch.is_autocast_enabled("cuda") and "out" not in kwargs:
            args, kwargs = self.autocast(name, args, kwargs)
        with self.device.making(target), nullcontext() if device is None else self.device.towards(target):
            result = func(*args, **kwargs)
        if pinned:
            self.device.put(result, there=False)
        return result

    def _attribute(self, func: Any, name: str, args: tuple) -> Any:
        attribute = ATTRIBUTES.get(func.__self__)
        if attribute == "grad":
            if name == "__set__" and isinstance(args[1], Tensor) and on_device(args[0]) != on_device(args[1]):
                raise RuntimeError("assigned grad has data located on a different device")
        elif attribute is not None and on_device(args[0]):
            return {"device": CUDA, "is_cuda": True, "is_cpu": False}[attribute]
        return func(*args)


@handles(Tensor.to, Tensor.cuda, Tensor.cpu, Tensor.type_as)
def _to(mode: Python, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    move = parsed(func, args, kwargs)
    return moved(mode.device, args[0], move)


@handles(torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor)
def _from_data(mode: Python, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Created from values on the host and copied to the device synchronously."""
    data = args[1] if func is Tensor.new_tensor else args[0] if args else kwargs["data"]
    device, wants_grad = kwargs.get("device"), kwargs.get("requires_grad", False)
    like = args[0] if func is Tensor.new_tensor else data if isinstance(data, Tensor) else None
    target = wants_device(device) if device is not None else like is not None and on_device(like)
    if not isinstance(data, Tensor):
        for tensor in tensors_in(data):
            if on_device(tensor):
                mode.device.count_wait(SCALARS)
    there = isinstance(data, Tensor) and on_device(data)
    if func is Tensor.new_tensor:
        func, args = torch.tensor, (data,)
        kwargs = {"dtype": None if like is None or kwargs.get("dtype") else like.dtype, **kwargs}
    kwargs = {key: value for key, value in kwargs.items() if key not in ("device", "requires_grad")}
    with mode.device.making(there):
        made = mode.call(func, func.__name__, args, kwargs)
    if target != there:
        made = moved(mode.device, made, place_of(target, made.dtype))
    return made.requires_grad_() if wants_grad else made


@handles(Tensor.numpy, Tensor.__array__, Tensor.__dlpack__)
def _numpy(mode: Python, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """A view of the values, through which they may be written."""
    if on_device(args[0]):
        if not kwargs.get("force"):
            raise TypeError("can't convert cuda:0 device type tensor to numpy: copy it to the host first, Tensor.cpu()")
        return func(moved(mode.device, args[0], place_of(False, args[0].dtype)), **kwargs)
    mode.device.read_by_host(args[0], write=True)
    return func(*args, **kwargs)


@handles(Tensor.tolist)
def _tolist(mode: Python, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    tag = tag_of(args[0])
    if tag is not None and tag.on_device:
        mode.device.use(tag, mode.device.clock.stream, write=False)
        mode.device.count_wait(SCALARS)
    mode.device.read_by_host(args[0])
    return func(*args, **kwargs)


@handles(Tensor.pin_memory)
def _pin_memory(mode: Python, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    tag = tag_of(args[0])
    if tag is not None and tag.on_device:
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")
    if tag is not None:
        return args[0]
    pinned = args[0].clone()
    mode.device.put(pinned, there=False)
    return pinned


@handles(Tensor.is_pinned)
def _is_pinned(mode: Python, func: Any, args: tuple, kwargs: dict[str, Any]) -> bool:
    tag = tag_of(args[0])
    return tag is not None and not tag.on_device


@handles(Tensor.get_device)
def _get_device(mode: Python, func: Any, args: tuple, kwargs: dict[str, Any]) -> int:
    return 0 if on_device(args[0]) else func(*args)


@handles(Tensor.__deepcopy__)
def _deepcopy(mode: Python, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Copies the storage behind torch's back."""
    copied = func(*args, **kwargs)
    if on_device(args[0]):
        mode.device.put(copied)
    return copied


@handles(F.one_hot, torch._C._nn.one_hot)
def _one_hot(mode: Python, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """On CPUs torch checks that classes are in range; on CUDA it synchronises only to find the number of classes if not
    given."""
    classes = args[1] if len(args) > 1 else kwargs.get("num_classes", -1)
    if classes < 0 and on_device(args[0]):
        mode.device.count_wait(SCALARS)
    mode.device.here.unseen = True
    try:
        return mode.call(func, "one_hot", args, kwargs)
    finally:
        mode.device.here.unseen = False


@handles(Tensor.__getitem__, Tensor.__setitem__)
def _item(mode: Python, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Host lists, arrays and tensors that index a device tensor are first copied to the device."""
    if on_device(args[0]):
        args = (args[0], _indices(mode, args[1]), *args[2:])
    return mode.call(func, func.__name__, args, kwargs)


def _indices(mode: Python, index: Any) -> Any:
    found: list[Any] = []
    for each in index if isinstance(index, tuple) else (index,):
        if isinstance(each, (list, np.ndarray)) and not _of_slices(each):
            each = torch.as_tensor(each, dtype=None if len(each) else torch.long)
        if isinstance(each, Tensor) and each.ndim and not on_device(each):
            whole = each.nonzero(as_tuple=True) if each.dtype in (torch.bool, torch.uint8) else (each,)
            found += [moved(mode.device, part, place_of(True, part.dtype)) for part in whole]
        else:
            found.append(each)
    return tuple(found) if isinstance(index, tuple) or len(found) > 1 else found[0]


def _of_slices(each: Any) -> bool:
    return isinstance(each, list) and any(isinstance(part, (slice, Tensor, type(None))) for part in each)
