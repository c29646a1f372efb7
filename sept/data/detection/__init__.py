"""Detection tasks read from their official files, one file a layout. torch is needed by `targets` and `crops` alone."""

from sept.data.annotated import draw_images
from sept.data.detection.boxes import Boxed, DetectionTask, Instance, digest, instances
from sept.data.detection.cityscapes import read_cityscapes
from sept.data.detection.logodet import read_logodet, read_split, write_split
from sept.data.detection.voc import read_voc

__all__ = [
    "Boxed",
    "DetectionTask",
    "Instance",
    "digest",
    "draw_images",
    "instances",
    "read_cityscapes",
    "read_logodet",
    "read_split",
    "read_voc",
    "write_split",
]
