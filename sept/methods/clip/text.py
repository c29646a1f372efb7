"""CLIP's text tower: captions as tokens, and a causal transformer whose feature is that of the end-of-text token."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sept.methods.clip.recipe import MLP, ClipRecipe

TOKEN_STD, PLACE_STD = 0.02, 0.01
BYTES = 256
KNOWN = 1 << 20  # captions whose tokens are kept: the words of one take a quarter of a millisecond


@dataclass(frozen=True)
class Tokens:
    """encode: the tokens of a text. start, end: those around it. size: of the vocabulary."""

    encode: Callable[[str], Sequence[int]]
    start: int
    end: int
    size: int

    def batch(self, captions: Sequence[str], context: int) -> tuple[Tensor, Tensor]:
        """int64 (B, T) tokens, T that of the longest caption but at most `context`, zeros behind; (B,) places of the
        end tokens. Of a caption that is cut the end token takes the last place, too."""
        rows = [[self.start, *self.encode(caption)[: context - 2], self.end] for caption in captions]
        longest = max(map(len, rows))
        padded = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        return padded, torch.tensor([len(row) - 1 for row in rows])


def tokens_of(name: str) -> Tokens:
    """`bpe`: CLIP's byte pairs, by open_clip. `bytes`: of UTF-8, in lower case as CLIP's are."""
    if name == "bytes":
        return Tokens(lambda text: [*text.lower().encode()], BYTES, BYTES + 1, BYTES + 2)
    from open_clip.tokenizer import SimpleTokenizer

    clip = SimpleTokenizer()
    return Tokens(lru_cache(KNOWN)(clip.encode), clip.sot_token_id, clip.eot_token_id, clip.vocab_size)


class Block(nn.Module):
    """Pre-norm causal self-attention and an MLP with GELU."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, MLP * width), nn.Linear(MLP * width, width)
        residual = width**-0.5 * (2 * layers) ** -0.5
        stds = ((self.qkv, width**-0.5), (self.proj, residual), (self.fc1, (2 * width) ** -0.5), (self.fc2, residual))
        for linear, std in stds:
            nn.init.normal_(linear.weight, std=std)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(attended.transpose(1, 2).flatten(2))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))  # type: ignore[no-any-return]


class TextTower(nn.Module):
    """Widths of the recipe, initial weights of CLIP's released code. What stands behind the end token is not seen."""

    def __init__(self, recipe: ClipRecipe, vocabulary: int) -> None:
        super().__init__()
        width, layers = recipe.text_width, recipe.text_layers
        self.tokens = nn.Embedding(vocabulary, width)
        self.places = nn.Parameter(torch.empty(recipe.context, width))
        self.blocks = nn.Sequential(*(Block(width, recipe.text_heads, layers) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.tokens.weight, std=TOKEN_STD)
        nn.init.normal_(self.places, std=PLACE_STD)

    def forward(self, tokens: Tensor, ends: Tensor) -> Tensor:
        """(B, width) of (B, T) tokens whose end tokens are at the places (B,)."""
        x = self.blocks(self.tokens(tokens) + self.places[: tokens.shape[1]])
        return self.norm(x[torch.arange(len(x), device=x.device), ends])  # type: ignore[no-any-return]
