"""Intercepts every operator at torch's dispatcher: checks it by CUDA's rules, counts it, and tags its results."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sept.gpu.pretended.order import HOST
from sept.gpu.pretended.rules import FREE, INDEXED, LIKE, SCALAR_READS, Rule, require_one_device, rule_of
from sept.gpu.pretended.state import BYTES, FROM_DEVICE, OPERATORS, SCALARS, SIZES, TO_DEVICE, Device
from sept.gpu.pretended.storages import Placed, Tag, placed, tensors_in


class Operators(TorchDispatchMode):
    """Runs operators on the CPU as if those whose tensors are tagged ran on the device."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunction():
            return self._run(func, rule_of(func), args, kwargs or {})

    def _run(self, func: Any, rule: Rule, args: tuple, kwargs: dict[str, Any]) -> Any:
        given = [each for tensor in tensors_in([args, kwargs]) if (each := placed(tensor)) is not None]
        there = any(_there(tag) for _, _, tag in given)
        if rule.name in FREE:
            return func(*args, **kwargs)
        if rule.name == "aten::copy_" and len(given) == 2 and _there(given[0][2]) != _there(given[1][2]):
            result = func(*args, **kwargs)
            self._cross(given[0], given[1], bool(kwargs.get("non_blocking") or (len(args) > 2 and args[2])))
            return result
        if rule.name == "aten::_to_copy" and self.device.here.target not in (None, there):
            return self._moved(func, args, kwargs, given[0])
        if rule.name in LIKE:
            there = there if self.device.here.target is None else self.device.here.target
        elif not given:
            there = self.device.here.factories
        return self._computed(func, rule, args, kwargs, given, there)

    def _computed(self, func: Any, rule: Rule, args: tuple, kwargs: Any, given: list[Placed], there: bool) -> Any:
        """An operator that computes on one side."""
        named = [kwargs.get(at) if isinstance(at, str) else args[at : at + 1] for at in rule.written]
        written = {id(tensor) for tensor in tensors_in(named)}
        if there and given and rule.name not in LIKE:
            require_one_device(func, rule, args, given, written)
        if rule.launches or rule.name in SCALAR_READS:
            self._order([] if rule.name in LIKE else given, there, written)
        result = func(*args, **kwargs)
        if there:
            self.device.put(result, but=[storage for _, storage, tag in given if tag is None])
            self._count(rule, given, result)
        return result

    def _order(self, given: list[Placed], there: bool, written: set[int]) -> None:
        """Checks the ordering of the operator's memory accesses, and records them as one more piece of work."""
        mark = self.device.clock.launch() if there else None
        for tensor, _, tag in given:
            if tag is None:
                continue
            write = id(tensor) in written
            self.device.use(tag, mark[0] if mark is not None and tag.on_device else HOST, write)
            if mark is not None and tag.on_device:
                _mark(tag, mark, write)

    def _count(self, rule: Rule, given: list[Placed], result: Any) -> None:
        """Counts the operator's work on the device, and whether the host waited for it."""
        device = self.device
        if rule.launches:
            results = [each for tensor in tensors_in(result) if (each := placed(tensor)) is not None]
            fresh = [each for each in results if not any(each[1] is storage for _, storage, _ in given)]
            for _, _, tag in fresh:
                if tag is not None and tag.write is None:
                    tag.write = (device.clock.stream, device.clock.launched[device.clock.stream])
            device.counts[OPERATORS] += 1
            device.counts[BYTES] += sum(_bytes(tensor, storage) for tensor, storage, _ in [*given, *fresh])
        if rule.name in INDEXED:
            for tensor, _, tag in given[1:]:
                if not _there(tag) and tensor.ndim:
                    device.count_wait(TO_DEVICE, _size(tensor))
        if rule.name in SCALAR_READS:
            device.count_wait(SCALARS)
        elif rule.waits_for_size([tensor for tensor, _, tag in given if _there(tag)]):
            device.count_wait(SIZES)

    def _moved(self, func: Any, args: tuple, kwargs: Any, source: Placed) -> Any:
        """A copy to the other side, as new memory; `Python` says which. An asynchronous copy to the host is in pinned
        memory, as in torch."""
        there, later = bool(self.device.here.target), bool(kwargs.get("non_blocking"))
        result = func(*args, **kwargs)
        if there or later:
            self.device.put(result, there)
        fresh = placed(result)
        assert fresh is not None
        self._cross(fresh, source, later)
        return result

    def _cross(self, to: Placed, source: Placed, later: bool) -> None:
        """A copy between the sides. The host waits unless non_blocking is set, its memory is pinned, and the bytes are
        copied unchanged: torch converts types on the host."""
        clock, (to_tag, from_tag) = self.device.clock, (to[2], source[2])
        to_device = _there(to_tag)
        mark = clock.launch()
        later = later and to_tag is not None and from_tag is not None and _as_they_are(to[0], source[0], to_device)
        for tag, write in ((to_tag, True), (from_tag, False)):
            if tag is not None:
                self.device.use(tag, mark[0] if later or tag.on_device else HOST, write)
                _mark(tag, mark, write)
        if not later:
            self.device.count_wait(TO_DEVICE if to_device else FROM_DEVICE, _size(to[0]))


def _as_they_are(to: Tensor, source: Tensor, to_device: bool) -> bool:
    if to.dtype != source.dtype or to.shape != source.shape:
        return False
    span = 1 + sum((length - 1) * stride for length, stride in zip(to.shape, to.stride(), strict=True))
    if to.stride() == source.stride() and span == to.numel():
        return True
    return (source if to_device else to).is_contiguous()  # the device packs and unpacks its own side


def _mark(tag: Tag, mark: tuple[int, int], write: bool) -> None:
    if write:
        tag.write = mark
    else:
        tag.reads[mark[0]] = mark[1]


def _there(tag: Tag | None) -> bool:
    return tag is not None and tag.on_device


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _bytes(tensor: Tensor, storage: Any) -> int:
    """Of an expanded tensor those that are there."""
    return min(_size(tensor), storage.nbytes())
