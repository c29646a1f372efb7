"""The worlds that are held back, from archives and images made here: what is on which side."""

import zipfile

import pytest
from PIL import Image
from world_files import png, sources, write_font

from benchmarks.worlds import cliparts, drawing, photos, scripts
from benchmarks.worlds.packages import Package


def clip_packages(folder):
    """Twenty birds and fruits, some of them in black and white too, a dolphin in two classes, and an arrow."""
    root = folder / "usr/share/openclipart/png"
    for place, letter in enumerate("abcdefghijklmnopqrtu"):
        for other, name in enumerate(("animals/birds/b{}", "animals/birds/b{}_bw", "food/fruit/f{}_02")):
            png(root / f"{name.format(letter)}.png", [place, other])
    for name in ("animals/birds/dolphin", "animals/fish/dolphin", "shapes/arrow", "animals/other"):
        png(root / f"{name}.png", [len(name), ord(name[-1])])
    return {"openclipart-png": Package("openclipart-png", "1", folder)}


def test_cliparts_split_drawings_with_their_variants(tmp_path):
    world = cliparts.world(clip_packages(tmp_path), seed=0)
    assert sources(world.train)
    assert sources(world.test)
    assert not sources(world.test) & (sources(world.train) | {each.source for each in world.pool})
    assert set(world.train) == set(world.test) == {"birds", "fruit"}
    pool = [(each.source, each.kind) for each in world.pool]
    assert ("arrow", "shapes") in pool
    assert {kind for _, kind in pool} == {"nature", "shapes"}
    assert "dolphin" not in sources(world.train) | sources(world.test)


@pytest.mark.parametrize(
    ("stem", "drawn_by"),
    [
        ("coffee_bw_ganson", "coffee"),
        ("coffee_ganson", "coffee"),
        ("fried_eggs_bw", "fried_egg"),
        ("fried_egg", "fried_egg"),
        ("gatto_cat_architetto_fra_03", "architetto"),
    ],
)
def test_variants_of_a_drawing_are_one(stem, drawn_by):
    assert cliparts.author(stem) == drawn_by


def photo_packages(folder):
    """Nine textures of brick and grass with a map of relief, other textures, two wallpapers, an icon and a font."""
    games = {name: folder / name / "usr/0.pk3" for name in (photos.TASK, photos.OTHER)}
    for seed, path in enumerate(games.values()):
        png(folder / "a.png", seed, 300)
        path.parent.mkdir(parents=True)
        with zipfile.ZipFile(path, "w") as archive:
            for label in photos.CLASSES:
                for place in range(9):
                    png(folder / "a.png", [seed, place, len(label)], 256)
                    archive.write(folder / "a.png", f"textures/{label}0{place}{'' if seed == 0 else 'b'}.png")
            archive.write(folder / "a.png", "textures/brick00.png" if seed else "textures/brick00_nm.png")
            archive.write(folder / "a.png", "textures/machine.png")
    for name in photos.PACKAGES:
        (folder / name).mkdir(exist_ok=True)
    png(folder / "mate-backgrounds/mate/nature/Dune.jpg", 1, 200)
    png(folder / "plasma-workspace-wallpapers/Kay/contents/images/1x1.png", 2, 100)
    png(folder / "plasma-workspace-wallpapers/Kay/contents/images/2x2.png", 3, 400)
    png(folder / "oxygen-icon-theme/icons/oxygen/64x64/apps/a.png", 4, 64)
    png(folder / "colobot-common-textures/planet.png", 5, 128)
    write_font(folder / "fonts-dejavu-core/a.ttf", "A", scripts.CYRILLIC, 6)
    return {name: Package(name, "1", folder / name) for name in photos.PACKAGES}


def test_photos_split_textures_and_leave_out_what_both_games_have(tmp_path):
    world = photos.world(photo_packages(tmp_path), seed=0)
    assert set(world.train) == set(world.test) == set(photos.CLASSES)
    pool = {each.source for each in world.pool}
    assert not sources(world.test) & (sources(world.train) | pool)
    assert not sources(world.train) & pool
    assert "textures/brick00_nm.png" not in pool | sources(world.train) | sources(world.test)
    assert pool >= {"Dune.jpg", "2x2.png", "planet.png", "textures/brick00b.png", "A", "oxygen"}
    assert not pool & {"1x1.png", "textures/machine.png"}  # the smaller of two; a file of both games
    assert {each.kind for each in world.pool} == {"materials", *photos.POOL}
    assert {each.image.size for each in world.pool} == {(photos.SIDE, photos.SIDE)}


def test_cells_lie_beside_one_another(tmp_path):
    png(tmp_path / "a.png", 0, 300)
    image = drawing.opened(tmp_path / "a.png")
    found = drawing.cells(image, 128, 64)
    assert [each.size for each in found] == [(64, 64)] * 4
    whole = image.resize((128, 128), Image.Resampling.LANCZOS)
    assert found[3].tobytes() == whole.crop((64, 64, 128, 128)).tobytes()
    assert len(drawing.cells(image.crop((0, 0, 300, 150)), 128, 64)) == 8
