"""Allocated bytes, operator by operator, and a GPU's operators on tensors without data.

`Live` counts. `cuda_operators` makes a CPU step save what a CUDA step saves: bf16 autocast with CUDA's float32
operators, and memory-efficient attention.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

# Operators that allocate no memory, or do not write it: a GPU runs no kernel for them.
NO_KERNEL = {"_unsafe_view", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
NO_OPERATORS = ("prim", "profiler")  # namespaces: questions to a tensor, and marks in a profile
MASK_ALIGNMENT = 8  # values in a row of a mask that attention takes as it is
# PyTorch, "CUDA Ops that can autocast to float32"; those that the learners' networks and losses can reach.
FLOAT32 = {
    *("__pow__", "__rpow__", "binary_cross_entropy_with_logits", "cosine_similarity", "cross_entropy", "cumsum", "exp"),
    *("group_norm", "kl_div", "l1_loss", "layer_norm", "log", "log_softmax", "mse_loss", "nll_loss", "norm"),
    *("normalize", "pow", "prod", "reciprocal", "rsqrt", "smooth_l1_loss", "softmax", "softplus", "sum", "vector_norm"),
}


class Live(TorchDispatchMode):
    """Counts the bytes of all live storages that operators allocated inside, and the operators.

    Works on real tensors and on those of a FakeTensorMode, which is to be entered before this one. Of the latter,
    reading a value gives True, False where `any` made it, or 0; `nonzero` returns as many indices as `finding` was
    given.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self.operators = 0  # that run a kernel
        self._storages: dict[int, weakref.ref] = {}
        self._places: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace in NO_OPERATORS:
            return func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::")
        try:
            result = self._nonzero(args[0]) if name == "nonzero" and self._places else func(*args, **(kwargs or {}))
        except DataDependentOutputException:
            result = getattr(args[0], "read_as", args[0].dtype == torch.bool)
        self.operators += not func.is_view and name not in NO_KERNEL
        for each in tree_leaves(result):
            if isinstance(each, Tensor):
                self._add(each.untyped_storage())
                if name == "any":
                    each.read_as = False  # type: ignore[attr-defined]
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages:
            return

        def gone(_: Any) -> None:
            del self._storages[key]
            self.bytes -= size

        self._storages[key] = weakref.ref(storage, gone)
        self.bytes += size
        self.peak = max(self.peak, self.bytes)

    def _nonzero(self, tensor: Tensor) -> Tensor:
        return tensor.new_empty(self._places.pop(0), tensor.ndim, dtype=torch.long)

    @contextmanager
    def finding(self, *places: int) -> Iterator[None]:
        """Context manager: `nonzero` returns this many indices, call by call; all calls must occur."""
        self._places = list(places)
        yield
        assert not self._places, f"{len(self._places)} calls of nonzero were expected and did not come"

    def restart(self) -> tuple[int, int]:
        """The peak and the operators since the last call, or the start."""
        found = self.peak, self.operators
        self.peak, self.operators = self.bytes, 0
        return found


class CudaOperators(TorchFunctionMode):
    """CUDA's rules for what autocast to bf16 does in float32, and its attention, in steps that run on the CPU."""

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.is_autocast_enabled("cpu"):
            if func is F.scaled_dot_product_attention:
                return _attention(*args, **kwargs)
            if getattr(func, "__name__", "") in FLOAT32:
                args, kwargs = tree_map(_single, (args, kwargs))
        return func(*args, **kwargs)


@contextmanager
def cuda_operators() -> Iterator[None]:
    """`CudaOperators` inside, and in what a backward pass inside computes again, which torch would leave out."""
    backward = torch.autograd._engine_run_backward  # type: ignore[attr-defined]

    def with_rules(*args: Any, **kwargs: Any) -> Any:
        with CudaOperators():
            return backward(*args, **kwargs)

    with patch("torch.autograd._engine_run_backward", with_rules), CudaOperators():
        yield


def _single(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.bfloat16 else value


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **options: Any,
) -> Any:
    """The memory-efficient kernel's output, (B, H, L, D) bfloat16; it keeps its arguments, the output and row sums.

    As torch does, a mask whose rows are no multiple of `MASK_ALIGNMENT` values is copied into rows that are.
    """
    with torch.autocast("cpu", enabled=False):
        query, key, value = (each.bfloat16() for each in (query, key, value))
        if attn_mask is not None:
            attn_mask = attn_mask.bfloat16()
            columns = attn_mask.shape[-1]
            if columns % MASK_ALIGNMENT:
                attn_mask = F.pad(attn_mask, (0, -columns % MASK_ALIGNMENT))[..., :columns]
            attn_mask = attn_mask.expand(*query.shape[:3], columns)
        kernel = torch.ops.aten._scaled_dot_product_efficient_attention
        return kernel(query, key, value, attn_mask, torch.is_grad_enabled(), dropout_p, is_causal, **options)[0]
