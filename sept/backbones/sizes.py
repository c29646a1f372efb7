"""In what a file's network differs in size from the model: what people set, told from the shapes of its tensors."""

from collections.abc import Mapping
from math import isqrt

from torch import Tensor

PATCHES, PLACES, WINDOWS = "patch_embed.proj.weight", "pos_embed", "relative_position_bias_table"
State = Mapping[str, Tensor]


def sizes_apart(own: State, state: State) -> str:
    """ "; its images are of 224 pixels, the model's of 96 ..", for each size that both have and that differs."""
    lines = []
    for what, unit, size in (
        ("patches", " pixels", _patch),
        ("images", " pixels", _side),
        ("windows", " patches", _window),
        ("width", "", _width),
        ("depth", "", _depth),
    ):
        theirs, ours = size(state), size(own)
        if theirs and ours and theirs != ours:
            lines.append(f"its {what} are {theirs}{unit}, the model's {ours}{unit}")
    return "; " + ", ".join(lines) + ": take the network of the file, by its name and args" if lines else ""


def _patch(state: State) -> int:
    weight = state.get(PATCHES)
    return weight.shape[-1] if weight is not None and weight.ndim == 4 else 0


def _side(state: State) -> int:
    """Pixels of the images that the position embedding is for, of as many tokens as a square of patches and a few."""
    places, patch = state.get(PLACES), _patch(state)
    if places is None or places.ndim != 3 or not patch:
        return 0
    grid = isqrt(places.shape[1])
    return grid * patch if places.shape[1] - grid**2 <= 2 * grid else 0


def _window(state: State) -> int:
    table = next((value for key, value in sorted(state.items()) if key.endswith(WINDOWS)), None)
    return 0 if table is None or table.ndim != 2 else (isqrt(table.shape[0]) + 1) // 2


def _width(state: State) -> int:
    weight = state.get(PATCHES)
    return weight.shape[0] if weight is not None and weight.ndim == 4 else 0


def _depth(state: State) -> int:
    """Blocks, over all stages."""
    return len(
        {key.partition("blocks.")[0] + key.partition("blocks.")[2].split(".")[0] for key in state if "blocks." in key}
    )
