"""The casts of CUDA's autocast, by function name (torch documentation, "CUDA Op-Specific Behavior"), including
functions composed of those."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sept.gpu.pretended.storages import on_device, tensors_in

LOWER = {
    *(
        "__matmul__",
        "__rmatmul__",
        "matmul",
        "mm",
        "mv",
        "bmm",
        "addmm",
        "addmv",
        "addr",
        "addbmm",
        "baddbmm",
        "linear",
    ),
    *("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "conv_tbc", "prelu"),
    *(
        "chain_matmul",
        "multi_dot",
        "einsum",
        "scaled_dot_product_attention",
        "multi_head_attention_forward",
        "bilinear",
    ),
    *("gru_cell", "lstm_cell", "rnn_tanh_cell", "rnn_relu_cell"),
}
FLOAT32 = {
    *("__pow__", "__rpow__", "pow", "__rdiv__", "__rtruediv__", "reciprocal", "acos", "asin", "cosh", "sinh", "tan"),
    *(
        "erfinv",
        "exp",
        "expm1",
        "log",
        "log10",
        "log1p",
        "log2",
        "logsumexp",
        "rsqrt",
        "cumprod",
        "cumsum",
        "prod",
        "sum",
    ),
    *("cdist", "pdist", "dist", "norm", "normalize", "renorm", "cosine_similarity", "group_norm", "layer_norm"),
    *("softmax", "softmin", "log_softmax", "softplus", "cross_entropy", "nll_loss", "kl_div", "l1_loss", "mse_loss"),
    *("smooth_l1_loss", "huber_loss", "binary_cross_entropy_with_logits", "cosine_embedding_loss", "poisson_nll_loss"),
    *(
        "hinge_embedding_loss",
        "margin_ranking_loss",
        "multilabel_margin_loss",
        "multi_margin_loss",
        "gaussian_nll_loss",
    ),
    *("soft_margin_loss", "multilabel_soft_margin_loss", "triplet_margin_loss"),
    *("nms", "roi_align", "roi_pool"),  # torchvision's own
}
WIDEST = {
    *("addcdiv", "addcmul", "atan2", "cross", "dot", "vdot", "grid_sample", "index_put", "scatter_add", "tensordot"),
    *("cat", "stack"),
}
REFUSED = {"binary_cross_entropy"}


class Autocast:
    """Casts of a thread; casts of parameters are cached until autocast ends, as in torch."""

    def __init__(self) -> None:
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, name: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """The arguments as autocast casts them. Raises RuntimeError for functions that are unsafe in half precision."""
        if name in REFUSED:
            raise RuntimeError(f"torch.nn.functional.{name} is unsafe to autocast: use {name}_with_logits")
        if name in LOWER:
            return self._each(args, self._lower), self._each(kwargs, self._lower)
        if name in FLOAT32:
            return self._each(args, _single), self._each(kwargs, _single)
        if name in WIDEST and (kinds := {t.dtype for t in tensors_in([args, kwargs]) if t.is_floating_point()}):
            widest = max(kinds, key=lambda kind: torch.finfo(kind).bits)
            cast = lambda tensor: _to(tensor, widest)  # noqa: E731
            return self._each(args, cast), self._each(kwargs, cast)
        return args, kwargs

    def _lower(self, tensor: Tensor) -> Tensor:
        kind = torch.get_autocast_dtype("cuda")
        if not _eligible(tensor) or tensor.dtype == kind:
            return tensor
        kept = tensor.is_leaf and tensor.requires_grad and torch.is_grad_enabled() and torch.is_autocast_cache_enabled()
        if not kept:
            return tensor.to(kind)
        if id(tensor) not in self.kept:
            self.kept[id(tensor)] = tensor, tensor.to(kind)
        return self.kept[id(tensor)][1]

    def _each(self, x: Any, cast: Callable[[Tensor], Tensor]) -> Any:
        if isinstance(x, Tensor):
            return cast(x)
        if isinstance(x, (list, tuple)) and not hasattr(x, "_fields"):
            return type(x)(self._each(each, cast) for each in x)
        return {key: self._each(value, cast) for key, value in x.items()} if isinstance(x, dict) else x


def _single(tensor: Tensor) -> Tensor:
    return _to(tensor, torch.float32) if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def _to(tensor: Tensor, kind: torch.dtype) -> Tensor:
    return tensor.to(kind) if _eligible(tensor) and tensor.dtype != kind else tensor


def _eligible(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dtype != torch.float64 and on_device(tensor)
