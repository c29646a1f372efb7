"""A detector's step without values: the model's own code, with the maximum number of boxes."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from sept.gpu.live import Live

if TYPE_CHECKING:
    from sept.transfer.faster_rcnn import DetectorModel

OBJECTS = 20  # annotated in an image


@contextmanager
def largest_counts(model: "DetectorModel", images: int, sides: tuple[int, int], live: Live) -> Iterator[None]:
    """Inside, `model` trains on `images` images of `sides` pixels (shorter, longer) without data, `OBJECTS` boxes each.

    It finds as many boxes as it may and as many of them right. Left out: non-maximum suppression and the removal of
    small boxes before it, which hold some 10 MB, of one image at a time.
    """
    model.transform.min_size, model.transform.max_size = sides[:1], sides[1]
    rpn: Any = model.rpn
    sampler = model.roi_heads.fg_bg_sampler
    after_nms = rpn.post_nms_top_n()
    rpn.filter_proposals = partial(_filter, rpn, after_nms)
    sampled = min(sampler.batch_size_per_image, after_nms + OBJECTS)
    right = int(sampled * sampler.positive_fraction)
    levels = len(model.roi_heads.box_roi_pool.featmap_names)
    counts = [*_of_rpn(rpn, images), *[right, after_nms + OBJECTS - right] * images, *[sampled] * images]
    counts += [*_shares(images * sampled, levels), images * right]
    try:
        with live.finding(*counts):
            yield
    finally:
        del rpn.filter_proposals


def _of_rpn(rpn: Any, images: int) -> list[int]:
    """Of anchors: those that are best for an object, the right and wrong ones to draw from, and those drawn."""
    sampler = rpn.fg_bg_sampler
    right = int(sampler.batch_size_per_image * sampler.positive_fraction)
    wrong = sampler.batch_size_per_image - right
    return [*[OBJECTS] * images, *[right, sampler.batch_size_per_image] * images, images * right, images * wrong]


def _shares(boxes: int, levels: int) -> list[int]:
    """`boxes` spread evenly over the levels of RoI pooling."""
    return [boxes * (level + 1) // levels - boxes * level // levels for level in range(levels)]


def _filter(
    rpn: Any, count: int, proposals: Tensor, objectness: Tensor, shapes: list[tuple[int, int]], per_level: list[int]
) -> tuple[list[Tensor], list[Tensor]]:
    """As `RegionProposalNetwork.filter_proposals`: of the best boxes of each level the first `count`."""
    scores = objectness.detach().reshape(len(proposals), -1)
    best = rpn._get_top_n_idx(scores, per_level)
    rows = torch.arange(len(proposals), device=best.device)[:, None]
    probabilities = torch.sigmoid(scores[rows, best])
    boxes = [
        clip_boxes_to_image(each, shape)[:count] for each, shape in zip(proposals[rows, best], shapes, strict=True)
    ]
    return boxes, list(probabilities[:, :count].unbind())
