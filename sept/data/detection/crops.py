"""An annotated box as an image of its own: the queries of `query=instance` (SEPT, detection tasks)."""

import numpy as np
from numpy.typing import NDArray

from sept.data.images import Pixels
from sept.data.transforms import embed_view


def crop_instance(pixels: Pixels, box: NDArray[np.float32], side: int) -> Pixels:
    """uint8 (side, side, 3): the box (4,) of a uint8 (H, W, 3) image, resized straight to that square.

    Bicubic, antialiased and by the same resizing as the pool's images. Edges between pixels move outwards; a box
    smaller than a pixel gives that pixel.
    """
    height, width = pixels.shape[:2]
    left, top = (min(int(edge), length - 1) for edge, length in zip(box[:2], (width, height), strict=True))
    right, bottom = (max(int(np.ceil(edge)), start + 1) for edge, start in zip(box[2:], (left, top), strict=True))
    assert min(left, top) >= 0, f"a box {box.tolist()} that begins outside the image"
    view = embed_view(np.ascontiguousarray(pixels[top:bottom, left:right]), side, side, squash=True)
    return np.ascontiguousarray(view.permute(1, 2, 0).numpy())
