"""Worlds of real artefacts, from fonts and PNG files made here: sources of test images, seeds, refusals."""

import csv
import json
import os
import re
import string
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from world_files import png, sources, write_font

from benchmarks.worlds import __main__ as command
from benchmarks.worlds import drawing, folders, fonts, glyphs, icons, packages, scripts, sheet
from benchmarks.worlds.packages import Package
from benchmarks.worlds.pictures import Picture, World, distinct, near, spread, thumbnails, without_copies
from sept.errors import ConfigError, DataError


def font_packages(folder):
    """One package for training, testing and the pool, each with two families; the pool's draw Latin, too."""
    found = {}
    for place, name in enumerate(("fonts-lato", "fonts-play", "fonts-noto-core")):
        letters = scripts.CYRILLIC + (string.ascii_letters if name == "fonts-noto-core" else "")
        for style in range(2):
            path = folder / name / "usr" / f"{name}-{style}.ttf"
            write_font(path, f"{name} {style}", letters, seed=10 * place + style)
        found[name] = Package(name, "1-1", folder / name)
    return found


def icon_packages(folder):
    """Themes of training, test and pool in one package: two devices each, and an application."""
    for place, theme in enumerate(("gnome", "mate", "Tango", "oxygen", "Paper", "Faenza")):
        for other, name in enumerate(("devices/printer", "devices/phone", "apps/editor", "devices/clock")):
            context, stem = name.split("/")
            png(folder / "usr/share/icons" / theme / "48x48" / context / f"{stem}.png", [place, other], mode="RGBA")
    return {"themes": Package("themes", "2:3", folder)}


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    return font_packages(tmp_path_factory.mktemp("fonts"))


def test_glyphs_share_no_family_between_test_training_and_pool(letters):
    world = glyphs.world(letters, seed=0)
    assert set(world.train) == set(world.test) == {f"{ord(each):04x}" for each in scripts.CYRILLIC}
    assert sources(world.train) == {"fonts-lato 0", "fonts-lato 1"}
    assert sources(world.test) == {"fonts-play 0", "fonts-play 1"}
    assert {each.source for each in world.pool} == {"fonts-noto-core 0", "fonts-noto-core 1"}
    assert {each.kind for each in world.pool} == {"cyrillic", "latin"}
    assert {each.image.size for each in world.pool} == {(fonts.SIDE, fonts.SIDE)}


def test_a_package_of_fonts_or_a_theme_is_on_one_side():
    for lists in ((glyphs.TRAIN, glyphs.TEST, glyphs.POOL), (icons.TRAIN, icons.TEST, icons.POOL)):
        names = [name for each in lists for name in each]
        assert len(names) == len(set(names))
    assert not set(scripts.ONLY) - set(glyphs.PACKAGES)


def test_no_letter_of_the_pool_looks_like_one_of_the_task_by_its_table():
    assert len(set(scripts.CYRILLIC)) == len(scripts.CYRILLIC) == 46
    assert not set("ABCEHKMOPTXYaeopcyx") & set(scripts.letters("latin"))
    assert {len(scripts.letters(script)) > 15 for script in scripts.SCRIPTS} == {True}


def test_blank_missing_and_repeated_glyphs_are_no_pictures(tmp_path):
    write_font(tmp_path / "a.ttf", "A", "abcdef", seed=1, alike="cd", blank="e")
    (tmp_path / "b.ttf").write_bytes(b"no font")
    [font] = fonts.read([tmp_path / "a.ttf", tmp_path / "b.ttf"])
    assert set(fonts.drawn(font, "abcdefg", "latin")) == {"a", "b", "f"}
    assert font.draws("abcdefg")
    assert not font.draws("abcdxyz")


def test_icons_share_no_theme_between_test_and_the_rest(tmp_path):
    world = icons.world(icon_packages(tmp_path), seed=0)
    assert set(world.train) == set(world.test) == {"printer", "phone"}
    assert sources(world.train) == {"gnome", "mate"}
    assert sources(world.test) == {"Tango", "oxygen"}
    found = [(each.source, each.kind) for each in world.pool]
    assert found.count(("gnome", "devices")) == 1  # the clock, which is no class
    assert found.count(("Paper", "devices")) == 3
    assert not {"Tango", "oxygen"} & {source for source, _ in found}


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/icons/Tango/32x32/devices/a.png", ("devices", 32, False)),
        ("/icons/Faenza/apps/48/a.png", ("apps", 48, False)),
        ("/icons/Yaru/24x24@2x/mimetypes/a.png", ("mimetypes", 48, True)),
        ("/icons/elementary-xfce/mimes/64/a.png", ("mimetypes", 64, False)),
        ("/icons/Tango/32x32/devices/a-symbolic.png", None),
        ("/icons/Tango/scalable/devices/a.png", None),
        ("/pixmaps/32x32/devices/a.png", None),
    ],
)
def test_an_icons_path_tells_its_context_and_size(path, told):
    found = icons.icon(Path(path))
    assert (found and (found.context, found.pixels, found.doubled)) == told


def test_transparent_images_lie_on_white_and_blank_ones_are_seen(tmp_path):
    Image.new("RGBA", (20, 10), (0, 0, 0, 0)).save(tmp_path / "a.png")
    Image.new("RGB", (20, 10), "black").save(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes(b"no image")
    assert drawing.blank(drawing.on_white(tmp_path / "a.png", 48))
    black = drawing.on_white(tmp_path / "b.png", 48)
    assert not drawing.blank(black)
    assert black.size == (48, 48)
    assert black.getpixel((0, 0)) == (255, 255, 255)
    assert black.getpixel((24, 24)) == (0, 0, 0)
    assert drawing.on_white(tmp_path / "c.png", 48) is None


def noise(seed, kind="a", source="s"):
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
    return Picture(Image.fromarray(pixels).resize((48, 48), Image.Resampling.NEAREST), kind, source)


def shifted(picture, by):
    pixels = np.asarray(picture.image).astype(int) + by
    return Picture(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), picture.kind, picture.source)


def test_copies_of_test_images_leave_the_pool_and_training():
    tests = [noise(1), noise(2)]
    pool = [noise(3), noise(3), shifted(tests[0], 1), noise(4)]
    cleaned = without_copies(World("w", "a", pool, {"c": [noise(5), tests[1]]}, {"c": [*tests, noise(1)]}))
    assert cleaned.pool == [pool[0], pool[3]]
    assert len(cleaned.train["c"]) == 1
    assert cleaned.test["c"] == tests
    assert [*cleaned.removed.values()] == [1, 1, 1, 1]


def test_nearness_equals_that_of_a_slow_loop():
    rng = np.random.default_rng(0)
    first, second = rng.uniform(0, 8, (30, 12)).astype(np.float32), rng.uniform(0, 8, (9, 12)).astype(np.float32)
    slow = [min(np.sqrt(((row - other) ** 2).mean()) for other in second) < 3 for row in first]
    assert near(first, second).tolist() == slow
    assert 0 < sum(slow) < 30
    assert not near(first, second[:0]).any()


def test_thumbnails_and_distinct_pictures():
    assert thumbnails([noise(1), noise(2)]).shape == (2, 192)
    assert thumbnails([]).shape == (0, 192)
    both = [noise(1), noise(2), noise(1)]
    assert distinct(both) == both[:2]


def test_spread_takes_as_many_of_each_source_as_there_are():
    items = ["a"] * 50 + ["b"] * 3 + ["c"] * 20
    found = spread(items, str, 15, np.random.default_rng(0))
    assert sorted(map(found.count, "abc")) == [3, 6, 6]
    assert len(spread(items, str, 1000, np.random.default_rng(0))) == len(items)


def test_a_world_is_written_the_same_again_and_tells_nothing_in_its_paths(tmp_path, letters):
    for name in ("one", "two"):
        folders.write(without_copies(glyphs.world(letters, 0)), tmp_path / name, {"world": "glyphs"}, 0)
    found = tree(tmp_path / "one")
    assert found == tree(tmp_path / "two")
    folders.write(without_copies(glyphs.world(letters, 1)), tmp_path / "three", {"world": "glyphs"}, 1)
    assert tree(tmp_path / "three") != found
    pool = sorted(name for name in found if name.startswith("pool/"))
    assert all(re.fullmatch(r"pool/\d{3}/\d{6}\.png", name) for name in pool)
    rows = list(csv.DictReader(found["kinds.csv"].decode().splitlines()))
    assert [row["path"] for row in rows] == pool
    own = {row["path"].removeprefix("pool/") for row in rows if row["kind"] == "cyrillic"}
    oracle = tmp_path / "one" / "oracle"
    assert {path.relative_to(oracle).as_posix() for path in oracle.rglob("*.png")} == own
    assert all(os.path.samefile(oracle / name, tmp_path / "one" / "pool" / name) for name in own)
    tests = {content for name, content in found.items() if name.startswith("task/test")}
    assert not tests & {content for name, content in found.items() if name.startswith(("pool", "task/train"))}
    told = json.loads((tmp_path / "one" / "world.json").read_text())
    assert told["pool"] == len(pool)
    assert told["of the kind"] == len(own)
    assert not (tmp_path / "one.part").exists()
    drawn = sheet.sheet(tmp_path / "one")
    assert drawn.width > drawn.height / 4


def test_a_world_that_is_there_is_left_and_another_folder_refused(tmp_path):
    recipe = {"world": "icons", "seed": 0, "packages": {"themes": "1"}}
    assert not folders.already(tmp_path / "new", recipe)
    world = icons.world(icon_packages(tmp_path / "themes"), 0)
    folders.write(world, tmp_path / "new", recipe, 0)
    assert folders.already(tmp_path / "new", recipe)
    for other in (tmp_path / "new", tmp_path / "themes"):
        with pytest.raises(ConfigError, match="name another folder, or remove it"):
            folders.already(other, {**recipe, "seed": 1})


def deb(folder, name, cache):
    """A Debian archive made with the real tool."""
    (folder / "DEBIAN").mkdir(parents=True)
    (folder / "DEBIAN" / "control").write_text(
        f"Package: {name}\nVersion: 1:2-3\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: d\n"
    )
    png(folder / "usr/share/icons/Tango/48x48/apps/a.png", 0)
    cache.mkdir(exist_ok=True)
    subprocess.run(
        ["dpkg-deb", "--build", str(folder), str(cache / f"{name}_1%3a2-3_all.deb")], check=True, capture_output=True
    )


@pytest.mark.skipif(os.system("command -v dpkg-deb >/dev/null") != 0, reason="needs dpkg-deb")
def test_an_archive_that_is_there_is_unpacked_once(tmp_path):
    deb(tmp_path / "made", "one", tmp_path / "cache")
    for _ in range(2):
        found = packages.fetched(["one"], tmp_path / "cache")["one"]
        assert (found.name, found.version) == ("one", "1:2-3")
        assert [path.name for path in found.files(".png")] == ["a.png"]


def test_absent_tools_and_packages_are_one_line(tmp_path, monkeypatch):
    tool = tmp_path / "bin" / "apt-get"
    tool.parent.mkdir()
    monkeypatch.setenv("PATH", str(tool.parent))
    with pytest.raises(DataError, match=r"^apt-get is not there; .*Debian"):
        packages.fetched(["one"], tmp_path / "cache")
    tool.write_text("#!/bin/sh\necho 'W: odd' >&2; echo 'E: Unable to locate package one' >&2; exit 100\n")
    tool.chmod(0o755)
    with pytest.raises(DataError, match=r"^apt-get download: E: Unable to locate package one; `apt-get update`"):
        packages.fetched(["one"], tmp_path / "cache")
    for version in "12":
        (tmp_path / "cache" / f"two_{version}_all.deb").touch()
    with pytest.raises(DataError, match=r"has 2 archives two_\*\.deb; leave one there"):
        packages.fetched(["two"], tmp_path / "cache")


def test_the_command_refuses_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("sys.argv", ["worlds", "icons", str(tmp_path / "icons")])
    assert command.main() == DataError.exit_code
    assert len(capsys.readouterr().err.splitlines()) == 1
