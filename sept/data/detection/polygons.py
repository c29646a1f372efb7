"""Cityscapes' *_polygons.json, drawn to a map of instances as the official json2instanceImg draws it."""

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sept.data.detection.annotation import shown
from sept.data.detection.frames import Size
from sept.data.sources.packed import AnyPath
from sept.errors import DataError

INSTANCED = {
    **{"person": 24, "rider": 25, "car": 26, "truck": 27, "bus": 28, "caravan": 29, "trailer": 30, "train": 31},
    **{"motorcycle": 32, "bicycle": 33},
}
"""Ids of the classes with instances; caravans and trailers are not evaluated."""
PER_CLASS = 1000
"""Instance k of class c has the value 1000 c + k; c itself is a group whose members were not told apart (a crowd)."""
OTHERS = {
    *("unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground", "road"),
    *("sidewalk", "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge", "tunnel", "pole"),
    *("polegroup", "traffic light", "traffic sign", "vegetation", "terrain", "sky"),
}
"""They hide what lies behind them, and have no instances."""
UNDRAWN = "license plate"  # its id is -1
GROUP = "group"
FAR = 10
"""Corners may lie a little outside; this many image sides away, the file is damaged."""


def draw_polygons(path: AnyPath, size: Size) -> NDArray[np.uint16]:
    """(H, W) as in *_instanceIds.png, but 0 for every class without instances.

    Later polygons hide earlier ones, deleted ones are skipped, and "<class>group" is a crowd. Raises DataError for a
    file that cannot be read, lacks a key, is for another size, or has an unknown class or a damaged polygon.
    """
    try:
        annotation = json.loads(path.read_bytes())
        stated = (_key(annotation, "imgWidth"), _key(annotation, "imgHeight"))
        if stated != size:
            raise ValueError(f"is for {shown(str(stated))} pixels, but the image has {size}")
        return _draw(_key(annotation, "objects"), size)
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: {reason}; restore this file from gtFine_trainvaltest.zip") from error


def _key(value: Any, name: str) -> Any:
    if not isinstance(value, dict) or name not in value:
        raise ValueError(f"lacks the key {name!r}")
    return value[name]


def _draw(objects: Any, size: Size) -> NDArray[np.uint16]:
    if not isinstance(objects, list):
        raise ValueError("its objects are no list")
    image = Image.new("I", size, 0)
    drawer = ImageDraw.Draw(image)
    counts = dict.fromkeys(INSTANCED, 0)
    for number, found in enumerate(objects):
        label = _key(found, "label")
        if found.get("deleted") or label == UNDRAWN:
            continue
        value = _value(label, number, counts)
        corners = _corners(_key(found, "polygon"), number, size)
        if value and _outside(corners, size):
            raise ValueError(f"object {number}, {shown(label)}, lies outside the image of {size} pixels")
        drawer.polygon(corners, fill=value)
    return np.asarray(image).astype(np.uint16)


def _value(label: Any, number: int, counts: dict[str, int]) -> int:
    """The value an object is drawn with; counts it where it is an instance."""
    name = label if isinstance(label, str) else ""
    group = name not in OTHERS and name.endswith(GROUP)
    name = name.removesuffix(GROUP) if group else name
    if name in OTHERS:
        return 0
    if name not in INSTANCED:
        raise ValueError(f"object {number}: {shown(str(label))} is no class of Cityscapes")
    if group:
        return INSTANCED[name]
    counts[name] += 1
    if counts[name] > PER_CLASS:
        raise ValueError(f"object {number}: more than {PER_CLASS} of {name!r}")
    return INSTANCED[name] * PER_CLASS + counts[name] - 1


def _corners(polygon: Any, number: int, size: Size) -> list[tuple[float, float]]:
    corners = [tuple(corner) for corner in polygon] if _is_points(polygon) else []
    if len(corners) < 2:  # what the official tool draws, too
        raise ValueError(f"object {number}: its polygon is no list of at least 2 (x, y)")
    for corner in corners:
        if any(not abs(at) <= FAR * side for at, side in zip(corner, size, strict=True)):
            raise ValueError(
                f"object {number}: its corner {shown(str(corner))} lies far outside the image of {size} pixels"
            )
    return corners


def _outside(corners: list[tuple[float, float]], size: Size) -> bool:
    return any(max(at) < 0 or min(at) >= side for at, side in zip(zip(*corners, strict=True), size, strict=True))


def _is_points(polygon: Any) -> bool:
    return isinstance(polygon, list) and all(
        isinstance(corner, list) and len(corner) == 2 and all(type(at) in (int, float) for at in corner)
        for corner in polygon
    )
