"""Small files that ask for much are refused from their headers; what is decoded stays within a bound of memory."""

import io
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from test_images import encode

from sept.data import images
from sept.data.images import ImageError, decode

MODES = ["1", "L", "P", "RGB", "RGBA", "LA", "I;16", "CMYK", "I", "F", "LAB", "YCbCr"]


def drawn(mode: str, size: tuple[int, int] = (37, 53)) -> Image.Image:
    values = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 4)).astype(np.uint8)
    kinds = {"I": np.int32, "F": np.float32, "I;16": np.uint16}
    if mode in kinds:
        return Image.fromarray(values[..., 0].astype(kinds[mode]) * 257)
    if mode == "LAB":
        return Image.frombytes(mode, size, values[..., :3].tobytes())
    return Image.fromarray(values if mode in ("RGBA", "LA") else values[..., :3]).convert(mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "GIF", "BMP", "JPEG"])
def test_strips_give_the_pixels_of_the_whole(mode, format, monkeypatch):
    try:
        data = encode(drawn(mode), format)
    except (OSError, KeyError, ValueError):
        pytest.skip("the format has no such mode")
    whole = decode(data)
    monkeypatch.setattr(images, "STRIP_PIXELS", 37 * 5 + 1)
    assert np.array_equal(decode(data), whole)


def test_transparent_palettes_and_keys_are_the_same_by_strips(monkeypatch):
    files = [encode(drawn("P"), "PNG", transparency=bytes(range(0, 256))), encode(drawn("RGB"), "PNG")]
    files += [encode(drawn("P"), "GIF", transparency=7), encode(drawn("L"), "PNG", transparency=9)]
    whole = [decode(data) for data in files]
    monkeypatch.setattr(images, "STRIP_PIXELS", 37)
    assert all(np.array_equal(decode(data), pixels) for data, pixels in zip(files, whole, strict=True))


def with_scans(data: bytes, count: int) -> bytes:
    """A progressive JPEG whose last scan is there `count` times more."""
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + data[-2:]


@pytest.mark.parametrize("least", [None, 8])
def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded(least):
    data = encode(Image.new("RGB", (64, 64)), "JPEG", progressive=True)
    assert 5 < images.count_scans(data) < 15
    assert decode(with_scans(data, 50), least).shape[2] == 3
    with pytest.raises(ImageError, match=r"too costly: 1\d\d scans of 64 x 64 pixels"):
        decode(with_scans(data, 100), least)
    big = with_scans(encode(Image.new("L", (6000, 6000)), "JPEG", progressive=True), 60)
    start = time.perf_counter()
    with pytest.raises(ImageError, match=r"too costly: \d\d scans of 6,000 x 6,000 pixels"):
        decode(big, least)
    assert time.perf_counter() - start < 0.1


def test_scans_inside_metadata_or_behind_the_end_do_not_count():
    data = encode(drawn("RGB"), "JPEG", quality=95)
    thumbnails = b"\xff\xe1" + struct.pack(">H", 60_002) + b"\xff\xda\0\0" * 15_000
    assert images.count_scans(data) == images.count_scans(data[:2] + thumbnails + data[2:] + b"\xff\xda" * 500) == 1
    assert np.array_equal(decode(data[:2] + thumbnails + data[2:]), decode(data))


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": b"Exif\0\0II*\0\0\0\0\0"}])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_the_size_of_a_webp_is_told_before_it_is_opened(mode, options):
    data = encode(Image.new(mode, (321, 123)), "WEBP", **options)
    assert images.webp_size(data) == (321, 123)
    assert images.webp_size(encode(Image.new("L", (3, 3)), "PNG")) is None
    assert all(images.webp_size(data[:n]) in (None, (321, 123)) or n < 31 for n in range(60))


def test_a_tile_larger_than_its_image_is_refused():
    image = encode(Image.new("L", (20, 20)), "TIFF", tiffinfo={322: 1 << 15, 323: 1 << 15})
    with Image.open(io.BytesIO(image)) as opened:
        if 322 in opened.tag_v2:
            assert images.too_costly(opened, image, False, False) is not None


SMALL = [
    ("PNG", "L", (9990, 9990), {}),
    ("PNG", "RGBA", (9200, 9200), {}),
    ("PNG", "LA", (9200, 9200), {}),
    ("PNG", "I;16", (9990, 9990), {}),
    ("TIFF", "F", (7300, 7300), {"compression": "tiff_adobe_deflate"}),
    ("TIFF", "CMYK", (7300, 7300), {"compression": "tiff_adobe_deflate"}),
    ("WEBP", "RGBA", (5500, 5500), {"lossless": True}),
    ("GIF", "P", (8600, 8600), {}),
    ("JPEG", "RGB", (9990, 9990), {}),
    ("JPEG", "RGB", (8100, 8100), {"progressive": True, "subsampling": 0}),
    ("JPEG", "CMYK", (7000, 7000), {"progressive": True}),
]
"""Near the most that is accepted of each."""
PEAK = """
import sys
from sept.data.images import decode
data = sys.stdin.buffer.read()
def kb(name):
    return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1])
decode(bytes.fromhex(sys.argv[1]))
open("/proc/self/clear_refs", "w").write("5")
before = kb("VmRSS")
decode(data)
print(kb("VmHWM") - before)
"""
BESIDE_KB = 100_000


def peak_kb(data: bytes) -> int:
    first = encode(Image.new("RGB", (8, 8)), "JPEG").hex()  # brings torchvision
    ran = subprocess.run([sys.executable, "-c", PEAK, first], input=data, capture_output=True, check=True)
    return int(ran.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
@pytest.mark.parametrize(("format", "mode", "size", "options"), SMALL)
def test_a_small_file_takes_no_more_memory_than_the_bound(format, mode, size, options):
    data = encode(Image.new(mode, size), format, **options)
    assert peak_kb(data) * 1024 < images.MAX_BYTES + BESIDE_KB * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
def test_a_large_grey_png_is_decoded_by_strips_in_a_fifth_of_the_memory():
    data = encode(Image.new("I;16", (4000, 4000)), "PNG")  # 19 bytes a pixel as a whole: 305 MB
    assert peak_kb(data) < 16_000 * 5 + 90_000


LARGE = [("WEBP", "RGB", (5600, 5600)), ("TIFF", "RGBA", (7500, 7500)), ("PNG", "RGB", (9300, 9300))]


@pytest.mark.slow
@pytest.mark.parametrize(("format", "mode", "size"), LARGE)
def test_what_would_take_more_is_refused_from_its_header(format, mode, size):
    data = encode(Image.new(mode, size), format)
    start = time.perf_counter()
    with pytest.raises(ImageError, match=r"too (costly|large)"):
        decode(data)
    assert time.perf_counter() - start < 0.1
