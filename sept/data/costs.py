"""What decoding an image file takes, told from its header: a small file can ask for gigabytes, or for half a minute."""

import re

from PIL import Image

MAX_PIXELS = 100_000_000
"""Larger images are refused from their header, whatever they are."""
MAX_BYTES = 600_000_000
"""Of memory to decode one image, by `bytes_a_pixel`; some 60 MB for strips and the file itself come on top."""
MAX_SCANS = 100
"""Of a JPEG. Encoders write 1 to 12; the most that the standard's own steps make of three colours is about 100."""
MAX_SCANNED_PIXELS = 1_000_000_000
"""Pixels times scans: each scan goes over all of the image. 24 megapixels may have 41 scans."""

OUTPUT = 3  # bytes a pixel of what is given: RGB
_ONE_BYTE = ("1", "L", "P")
_PROGRESSIVE = ("progressive", "progression")  # names in Pillow's info
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # tags of TIFF
# Of a JPEG outside of its entropy-coded bytes: a marker that is not stuffing, fill or a restart.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_SCAN, _END = 0xDA, 0xD9


def too_costly(image: Image.Image, data: bytes, by_torch: bool, turned: bool) -> str | None:
    """Why the image `data`, of which `image` has read the header, is not decoded; None where it is.

    by_torch: torchvision decodes it. turned: EXIF wants it rotated or mirrored, which takes a copy.
    """
    pixels = image.width * image.height
    scans = count_scans(data) if image.format in ("JPEG", "MPO") else 1
    if scans > MAX_SCANS or scans * pixels > MAX_SCANNED_PIXELS:
        return f"too costly: {scans} scans of {_size(*image.size)} pixels"
    buffered = scans > 1 or any(image.info.get(name) for name in _PROGRESSIVE)
    needed = bytes_a_pixel(image, by_torch, turned, buffered) * pixels + _tile_bytes(image)
    if needed > MAX_BYTES:
        kind = f"{image.format} of mode {image.mode}{' in several scans' if buffered else ''}"
        return f"too costly: {_size(*image.size)} pixels of {kind} take {needed / 1e6:,.0f} MB to decode"
    return None


def bytes_a_pixel(image: Image.Image, by_torch: bool, turned: bool, buffered: bool) -> int:
    """The most that is held at a time, by measurement: Pillow's own pixels (4 bytes for any colour), what the format's
    decoder keeps beside them, and the output. `buffered`: libjpeg keeps two bytes of every sample of all scans."""
    own = 1 if image.mode in _ONE_BYTE else 2 if image.mode.startswith("I;16") else 4
    beside = {"TIFF": own, "GIF": 4, "BMP": 2, "WEBP": 12}.get(str(image.format), 0)
    samples = 2 * len(image.getbands()) if buffered else 0
    decoding = OUTPUT + samples if by_torch else own + max(beside + OUTPUT, samples)
    return max(decoding, 2 * OUTPUT if turned else 0)


def count_scans(data: bytes) -> int:
    """Scans of a JPEG up to its end; those of thumbnails inside of its metadata do not count."""
    if data.count(b"\xff\xda") <= 1:
        return 1
    scans, place = 0, 2
    while (found := _MARKER.search(data, place)) is not None:
        marker, place = data[found.start() + 1], found.end()
        if marker == _END:
            break
        scans += marker == _SCAN
        place += int.from_bytes(data[place : place + 2], "big")
    return scans


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a WebP: opening one already takes 8 bytes a pixel. None for what is none."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return None
    chunk, head = data[12:16], data[:30].ljust(30, b"\0")
    if chunk == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if chunk == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF


def _tile_bytes(image: Image.Image) -> int:
    """Of one tile of a TIFF, which may be larger than the image."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    return 4 * int(tags.get(_TILE_WIDTH, 0)) * int(tags.get(_TILE_LENGTH, 0))


def _size(width: int, height: int) -> str:
    return f"{width:,} x {height:,}"
