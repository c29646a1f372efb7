"""Segmentation tasks one file a layout. torch is needed by `views` alone."""

from sept.data.segmentation.ade20k import read_ade20k
from sept.data.segmentation.masks import IGNORE, Masked, SegmentationTask, check_masks, digest, read_mask, read_masked
from sept.data.segmentation.patterns_masks import read_patterns_masks, write_masks
from sept.data.segmentation.voc import read_voc_masks

__all__ = [
    "IGNORE",
    "Masked",
    "SegmentationTask",
    "check_masks",
    "digest",
    "read_ade20k",
    "read_mask",
    "read_masked",
    "read_patterns_masks",
    "read_voc_masks",
    "write_masks",
]
