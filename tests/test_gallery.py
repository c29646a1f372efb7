"""The gallery shows the images it was given, and the page needs nothing but itself."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

from sept.retrieval.drawings import curve
from sept.retrieval.gallery import GAP, TILE, Match, Row, write_html, write_png

COLOURS = {"red": (200, 30, 30), "green": (30, 160, 60), "blue": (40, 60, 200)}


def plain(name: str, height: int = 32, width: int = 32) -> np.ndarray:
    return np.full((height, width, 3), COLOURS[name], dtype=np.uint8)


def rows() -> list[Row]:
    return [
        Row("a rose", plain("red"), [Match("pool/7.jpg", plain("green"), 0.9125), Match("8", plain("blue"), 0.5)]),
        Row("<b>iris</b> & co", plain("blue", 600, 300), [Match("x" * 300, plain("red"), -0.25)]),
    ]


def assert_colour(pixel: tuple[int, ...], name: str) -> None:
    assert np.abs(np.array(pixel, dtype=int) - COLOURS[name]).max() <= 3  # JPEG rounds


def test_the_png_shows_each_query_before_its_matches(tmp_path: Path) -> None:
    write_png(tmp_path / "gallery.png", rows())
    with Image.open(tmp_path / "gallery.png") as sheet:
        middle = [GAP + TILE // 2 + column * (TILE + GAP) + (GAP if column else 0) for column in range(3)]
        assert [sheet.getpixel((x, GAP + TILE // 2)) for x in middle] == [COLOURS[c] for c in ("red", "green", "blue")]
        second = sheet.height - (sheet.height - GAP) // 2 + TILE // 2
        assert [sheet.getpixel((x, second)) for x in middle] == [COLOURS["blue"], COLOURS["red"], (255, 255, 255)]
        assert sheet.getpixel((GAP + 10, second)) == (255, 255, 255)  # a tall image keeps its shape
        under = np.asarray(sheet.crop((middle[1] - TILE // 2, GAP + TILE, middle[1] + TILE // 2, GAP + TILE + 20)))
        assert under.min() < 100  # the caption


def test_the_page_is_self_contained_and_escapes_names(tmp_path: Path) -> None:
    write_html(tmp_path / "g.html", "<Roses> & more", rows(), {"images": 1200, "similarity_min": 0.123456})
    page = (tmp_path / "g.html").read_text()
    assert "<b>iris" not in page
    assert "&lt;b&gt;iris&lt;/b&gt; &amp; co" in page
    assert "<title>&lt;Roses&gt; &amp; more</title>" in page
    assert "<th>similarity min</th><td>0.1235</td>" in page
    assert "<th>images</th><td>1,200</td>" in page
    assert "0.912 pool/7.jpg" in page
    assert not re.search(r"https?:|//|url\(|@import|<script|<link", re.sub(r"base64,[^\"]*", "", page))

    sources: list[str] = []
    open_tags: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag == "img":
                sources.append(dict(attrs)["src"] or "")
            elif tag != "meta":
                open_tags.append(tag)

        def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            pass

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Reader().feed(page)
    assert not open_tags
    images = [
        Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/jpeg;base64,")))) for source in sources
    ]
    for image, name in zip(images, ["red", "green", "blue", "blue", "red"], strict=True):
        assert image.size == (TILE, TILE)
        assert_colour(image.getpixel((TILE // 2, TILE // 2)), name)


def test_the_chart_falls_from_the_first_rank_to_the_last(tmp_path: Path) -> None:
    write_html(tmp_path / "g.html", "t", [], {}, drawings={"ranks": curve(np.linspace(0.9, 0.1, 5000).tolist())})
    page = (tmp_path / "g.html").read_text()
    points = np.array([p.split(",") for p in re.findall(r'points="([^"]*)"', page)[0].split()], dtype=float)
    assert len(points) <= 300
    assert (np.diff(points, axis=0) > 0).all()  # to the right and, in SVG, down
    assert ">0.900<" in page
    assert ">0.100<" in page
    assert ">5,000<" in page


def test_odd_contents_do_not_stop_a_gallery(tmp_path: Path) -> None:
    odd = [Row("\udce9", plain("red", 1, 4000), [])]
    write_png(tmp_path / "g.png", odd)
    write_html(tmp_path / "g.html", "t", odd, {}, drawings={"one rank": curve([0.5])})
    write_png(tmp_path / "empty.png", [])
    assert {path.name for path in tmp_path.iterdir()} == {"g.png", "g.html", "empty.png"}
