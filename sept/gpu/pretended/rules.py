"""CUDA's requirements on an operator's tensors, and which operators synchronise, derived from the operator's schema."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from sept.gpu.pretended.storages import Placed, Tag

FREE = {"aten::set_data", "aten::_has_compatible_shallow_copy_type"}  # whatever the devices
INDEXED = {"aten::index", "aten::_unsafe_index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
LIKE = {
    *(f"aten::{kind}_like" for kind in ("empty", "zeros", "ones", "full", "rand", "randn", "randint")),
    *(f"aten::new_{kind}" for kind in ("empty", "zeros", "ones", "full", "empty_strided")),
}
ALLOCATE = {"aten::empty", "aten::empty_strided", "aten::empty_like", "aten::new_empty", "aten::new_empty_strided"}
ALIASES = {"aten::_unsafe_view", "aten::lift_fresh", "aten::detach", "aten::alias", "aten::set_", "aten::resize_"}
ONE_NUMBER = {"aten::where", "aten::masked_fill", "aten::masked_fill_", "aten::fill", "aten::fill_"}  # as if pointwise
SCALAR_READS = {"aten::_local_scalar_dense", "aten::equal", "aten::is_nonzero"}
SIZE_READS = {
    *(f"aten::{name}" for name in ("nonzero", "masked_select", "_unique", "_unique2", "unique_dim", "bincount")),
    *("aten::unique_consecutive", "aten::unique_dim_consecutive", "torchvision::nms"),
    # LAPACK's status is checked
    *(f"aten::{name}" for name in ("_linalg_eigh", "linalg_eig", "_linalg_svd", "linalg_lstsq")),
}


class MixedDevices(RuntimeError):
    """An operator was called with tensors on several devices."""


@dataclass(frozen=True)
class Rule:
    """name: without overload. written: positions or names of arguments that the operator writes to. pointwise: host
    tensors with one element are allowed. launches: runs something on the device."""

    name: str
    written: frozenset[int | str]
    pointwise: bool
    launches: bool

    def waits_for_size(self, on_device: list[Any]) -> bool:
        """on_device: the operator's tensors there."""
        if self.name in INDEXED:
            return any(tensor.dtype in (torch.bool, torch.uint8) for tensor in on_device[1:])
        return self.name in SIZE_READS or (self.name == "aten::repeat_interleave" and len(on_device) == 1)


@cache
def rule_of(func: Any) -> Rule:
    schema, name = func._schema, func._schema.name
    written = {
        argument.name if argument.kwarg_only else place
        for place, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    }
    aliases = func.is_view or name in ALIASES or name in ALLOCATE or name in SCALAR_READS - {"aten::equal"}
    pointwise = torch.Tag.pointwise in func.tags or name in ONE_NUMBER or _on_lists(name, func)
    return Rule(name, frozenset(written), pointwise, not aliases)


def _on_lists(name: str, func: Any) -> bool:
    return name.startswith("aten::_foreach_") and "Tensor" not in func._schema.overload_name


def require_one_device(func: Any, rule: Rule, args: tuple, given: list[Placed], written: set[int]) -> None:
    """Raises MixedDevices if CUDA would; some of `given` are on the device. written: ids of tensors."""
    for tensor, _, tag in given:
        if _there(tag) or _allowed(rule, args, tensor, written):
            continue
        what = ", ".join(f"{'cuda:0' if _there(t) else 'cpu'} {list(each.shape)}" for each, _, t in given)
        raise MixedDevices(f"Expected all tensors to be on the same device, {func} was given {what}")


def _allowed(rule: Rule, args: tuple, tensor: Any, written: set[int]) -> bool:
    """Whether a host tensor may be combined with one on the device."""
    if rule.name in INDEXED:
        return tensor is not args[0] and (tensor.ndim == 0 or any(tensor is index for index in args[1]))
    return tensor.ndim == 0 and rule.pointwise and id(tensor) not in written


def _there(tag: Tag | None) -> bool:
    return tag is not None and tag.on_device
