"""Annotations in the XML of Pascal VOC, which LogoDet-3K uses too. A file name inside one is never used as a path."""

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sept.data.detection.boxes import Boxed
from sept.data.detection.frames import Size, clip, read_frame, turn_upright
from sept.data.sources.packed import AnyPath, reference
from sept.errors import DataError

CORNERS = ("xmin", "ymin", "xmax", "ymax")
SHOWN = 60
"""Characters shown of a text found in a file."""


class Object(NamedTuple):
    """box: left, top, right, bottom as the file has them, counted from 1, the last column and row included."""

    name: str
    box: tuple[float, ...]
    difficult: bool


class Annotation(NamedTuple):
    """size: as stated; none where it is left out or 0 x 0, as some tools write."""

    size: Size | None
    objects: list[Object]


def shown(text: str | None) -> str:
    """A text found in a file, fit for a message of one line."""
    return repr(text) if text is None or len(text) <= SHOWN else f"{text[:SHOWN]!r}..."


def read_annotation(path: AnyPath) -> Annotation:
    """The size and the objects of one file. Raises DataError for a missing file and for every kind of damage."""
    try:
        return _annotation(_parse(path.read_bytes()))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); restore this file from its archive") from error
    except ValueError as error:
        raise DataError(f"{path}: {error}; restore this file from its archive") from error


def read_boxed(image_id: str, image: AnyPath, path: AnyPath, label: Callable[[str], int]) -> tuple[Boxed, int]:
    """An image with the boxes of the annotation at `path`, and how many of them were cut at its edges.

    `label` gives the label of a class name, or raises ValueError. Raises DataError as `read_annotation` does, for a
    box without area in the image, and for an image that is missing, none, or of another size than the annotation says.
    """
    annotation, frame = read_annotation(path), read_frame(image)
    try:
        labels = np.array([label(found.name) for found in annotation.objects], np.int64)
        found_boxes = np.array([found.box for found in annotation.objects], np.float64).reshape(-1, 4)
        found_boxes[:, :2] -= 1  # from 1, inclusive, to edges: only the left and top ones move
        boxes, clipped = clip(turn_upright(found_boxes, annotation.size, frame), frame.upright)
    except ValueError as error:
        raise DataError(f"{path}: {error}; restore this file and its image from their archive") from error
    ignore = np.array([found.difficult for found in annotation.objects], np.bool_)
    return Boxed(image_id, reference(image), boxes.astype(np.float32), labels, ignore), clipped


def _parse(data: bytes) -> ElementTree.Element:
    """The root element. Entities could ask for gigabytes, and no annotation needs them: declarations are refused."""
    plain = data.replace(b"\0", b"")  # UTF-16 is the one other encoding of ASCII that the parser knows
    if b"<!DOCTYPE" in plain or b"<!ENTITY" in plain:
        raise ValueError("declares a DOCTYPE or ENTITY, which no annotation does")
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise ValueError(f"no well-formed XML ({error})") from error
    if root.tag != "annotation":
        raise ValueError(f"its root is {shown(root.tag)}, not 'annotation'")
    return root


def _annotation(root: ElementTree.Element) -> Annotation:
    size = root.find("size")
    width, height = (0, 0) if size is None else (round(_number(size, name)) for name in ("width", "height"))
    stated = (width, height) if width > 0 and height > 0 else None
    return Annotation(stated, [_object(element) for element in root.findall("object")])


def _object(element: ElementTree.Element) -> Object:
    """Children only: parts of a person (head, hand, foot) have names and boxes of their own, further down."""
    name, box = (element.findtext("name") or "").strip(), element.find("bndbox")
    if not name:
        raise ValueError("has an object without a name")
    if box is None:
        raise ValueError(f"object {shown(name)} has no bndbox")
    difficult = (element.findtext("difficult") or "0").strip()
    if difficult not in ("0", "1"):
        raise ValueError(f"object {shown(name)}: difficult is {shown(difficult)}, neither 0 nor 1")
    return Object(name, tuple(_number(box, corner) for corner in CORNERS), difficult == "1")


def _number(element: ElementTree.Element, name: str) -> float:
    """VOC 2012 has a few fractions among its coordinates."""
    text = element.findtext(name)
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{element.tag} has no number {name}, but {shown(text)}")
    return value
