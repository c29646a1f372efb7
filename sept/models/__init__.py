"""Networks and their parts: backbones from timm, heads, momentum copies, the key queue, weights in and out."""
