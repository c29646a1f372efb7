"""Bytes of an image file in, upright RGB pixels out; every kind of damage becomes one short `ImageError`.

What decoding takes is read from the header first: a small file can ask for gigabytes, or for half a minute.
"""

import io
import re
import struct
import warnings
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from sept.errors import DataError

MAX_ASPECT = 50
"""Longer over shorter side. Resizing the shorter side of a 1 x 4000 strip to 256 px would ask for 750 MiB."""
AMPLE = 2.8
"""Times the side that an image is resized to first: what a reduced decode leaves of its shorter side; see `decode`."""
STRIP_PIXELS = 1 << 22
"""Converted at a time: Pillow's conversions hold several copies."""
WEBP_PIXELS = 31_000_000
"""Of a WebP, whose decoder keeps two canvases of 4 bytes a pixel from the time it is opened."""
MAX_REASON = 160
"""Characters kept of a decoder's own message."""

# An allowlist: Pillow would also open EPS, which runs Ghostscript on what it reads.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
# EXIF orientation -> (swap the axes first, then flip rows, flip columns); 1 is upright (EXIF 2.3, tag 0x0112).
ORIENTATION_TAG = 0x0112
ORIENTATIONS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}

# What decoders raised under fuzzing, by damage. No wider: whatever else is raised has nothing to do with the file.
DECODER_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    SyntaxError,
    RuntimeError,  # torchvision's own
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    EOFError,
    MemoryError,  # of sizes that damage made
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

Pixels = NDArray[np.uint8]
Box = tuple[int, int, int, int]

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


class ImageError(DataError):
    """One image that cannot be used; the message is a short reason, fit for a list of skipped images."""


def ample(side: int) -> int:
    """The `least_side` for an image whose shorter side is resized to `side` next."""
    return round(AMPLE * side)


def decode(data: bytes, least_side: int | None = None) -> Pixels:
    """Pixels of the image file `data`: uint8 (H, W, 3), RGB, upright by its EXIF orientation, contiguous, writable.

    A JPEG whose shorter side is at least twice `least_side` is decoded at the smallest of 1/2, 1/4 and 1/8 of its size
    that leaves the shorter side so long: 1.1 to 1.2 times as fast at 1/2, 1.4 to 2 times at 1/4, in a fraction of the
    memory. With `ample` of the side it is resized to next, values are on average 0.3 grey levels off the full decode's
    and at most 4 (white noise: 1 and 6), with half of it 1 and 7. Boxes of the full image no longer fit.

    Transparent parts lie on white, 16-bit grey is scaled to 8 bit, an animation gives its first frame. Raises
    ImageError, and nothing else, for bytes that are no whole image of `FORMATS`, for sizes beyond `MAX_PIXELS` or
    `MAX_ASPECT` and for what takes too much memory or time (`sept.data.images`), which is read from the header before
    any pixel is. A damaged JPEG that still decodes cannot be told
    from a whole one; libjpeg inside torchvision may then write a line to stderr, which no option prevents.
    """
    assert not ImageFile.LOAD_TRUNCATED_IMAGES, "a package set PIL's LOAD_TRUNCATED_IMAGES: cut files would decode grey"
    if not data:
        raise ImageError("zero bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata and of sizes that are checked here
            if size := webp_size(data):
                _check_size(*size, WEBP_PIXELS)
            return np.ascontiguousarray(upright(*_stored(data, least_side)))
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"not an image of {'/'.join(FORMATS)} (begins with {data[:8]!r})") from None
    except Image.DecompressionBombError:
        raise ImageError(f"too large: over {MAX_PIXELS:,} pixels") from None
    except DECODER_ERRORS as error:
        raise ImageError(f"damaged or truncated ({_reason(error)})") from error


def _stored(data: bytes, least_side: int | None) -> tuple[Pixels, int]:
    """(H, W, 3) as stored, and the EXIF orientation. Pillow's own copy of the pixels ends here."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        _check_size(*image.size)
        turned = image.format in ("JPEG", "MPO") and _orientation(image) != 1
        if reason := too_costly(image, data, _is_plain_jpeg(image), turned):
            raise ImageError(reason)
        return _pixels(image, data, least_side), _orientation(image)


def _check_size(width: int, height: int, most: int = MAX_PIXELS) -> None:
    shorter, longer = sorted((width, height))
    if shorter < 1:
        raise ImageError(f"no pixels: {width} x {height}")
    if width * height > most:
        raise ImageError(f"too large: {width} x {height} is over {most:,} pixels")
    if longer > MAX_ASPECT * shorter:
        raise ImageError(f"too narrow: {width} x {height} is over {MAX_ASPECT} to 1")


def _pixels(image: Image.Image, data: bytes, least_side: int | None) -> Pixels:
    """(H, W, 3) as stored, by the decoder that suits `image`, which was opened on `data`."""
    if not _is_plain_jpeg(image):
        return _rgb(image)
    if least_side is None or min(image.size) < 2 * least_side:
        return _jpeg(data)
    image.draft(None, (least_side, least_side))  # only Pillow hands libjpeg's scaling through
    return _rgb(image)


def _is_plain_jpeg(image: Image.Image) -> bool:
    """Whether torchvision decodes it; CMYK goes to Pillow. MPO is a JPEG followed by further ones."""
    return image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB")


def _jpeg(data: bytes) -> Pixels:
    """(H, W, 3) as stored. torchvision is 1.4 to 2 times as fast as Pillow on JPEG; its PNG decoder segfaults."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    return decode_jpeg(encoded, mode=ImageReadMode.RGB).permute(1, 2, 0).numpy()


def _rgb(image: Image.Image) -> Pixels:
    """(H, W, 3) of any Pillow mode, on white where it is transparent; by strips, for the sake of memory."""
    image.load()
    strips = _strips(image)
    wide = image.mode in ("I", "F") or image.mode.startswith("I;16")
    low, scale = _range(image, strips) if wide else (0.0, 0.0)
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for box in strips:
        strip = _cut(image, box)
        pixels[box[1] : box[3]] = _grey8(np.asarray(strip), low, scale)[..., None] if wide else _colours(strip)
    return pixels


def _colours(image: Image.Image) -> Pixels:
    """(H, W, 3) of a mode of 8 bits."""
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, "white")
        ground.alpha_composite(image.convert("RGBA"))
        return np.array(ground.convert("RGB"))
    return np.array(image.convert("RGB"))


def _strips(image: Image.Image) -> list[Box]:
    rows = max(1, STRIP_PIXELS // image.width)
    return [(0, top, image.width, min(top + rows, image.height)) for top in range(0, image.height, rows)]


def _cut(image: Image.Image, box: Box) -> Image.Image:
    return image if box == (0, 0, *image.size) else image.crop(box)


def _range(image: Image.Image, strips: list[Box]) -> tuple[float, float]:
    """(low, scale) of grey of more than 8 bits: Pillow's own conversion clips 16-bit grey to white (Pillow #3011).

    Integers within 16 bits are scaled by 65535; wider integers and floats name no white, so they are stretched from
    their own least to their own greatest value.
    """
    lows, highs, kinds = [], [], set()
    for box in strips:
        values = np.asarray(_cut(image, box))
        if not np.isfinite(values).all():
            raise ImageError("infinite or undefined pixel values")
        lows.append(float(values.min()))
        highs.append(float(values.max()))
        kinds.add(values.dtype.kind)
    low, high = min(lows), max(highs)
    if kinds <= {"i", "u"} and low >= 0 and high <= 65535:
        low, high = 0.0, 65535.0
    return low, 255.0 / (high - low) if high > low else 0.0


def _grey8(values: NDArray[Any], low: float, scale: float) -> Pixels:
    """(H, W) of 8 bits."""
    return np.rint((values.astype(np.float64) - low) * scale).astype(np.uint8)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation still to be applied (Pillow turns TIFFs itself, on load); 1 where EXIF is unreadable."""
    try:
        return int(image.getexif().get(ORIENTATION_TAG, 1))
    except DECODER_ERRORS:  # damaged metadata is common on the web and says nothing about the pixels
        return 1


def upright(pixels: Pixels, orientation: int) -> Pixels:
    swap, flip_rows, flip_columns = ORIENTATIONS.get(orientation, (False, False, False))
    turned = pixels.swapaxes(0, 1) if swap else pixels
    return turned[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def _reason(error: Exception) -> str:
    """One short line of a decoder's message, without torchvision's source position."""
    first_line = (str(error).splitlines() or [""])[0]
    return re.sub(r"^.*\.cpp:\d+, ", "", first_line)[:MAX_REASON] or type(error).__name__


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
