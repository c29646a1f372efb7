"""Development world `glyphs`: letters of 44 scripts from fonts; the task is to name 46 Cyrillic letters.

Training and test letters come from two lists of packages, the pool from a third, in which Cyrillic is one script among
many. Fonts known to be drawn after another (URW's Nimbus and FreeFont, Liberation and Croscore, Bitstream Vera and
Hack) are on one side, or left out.
"""

from collections.abc import Mapping

import numpy as np

from benchmarks.worlds import fonts
from benchmarks.worlds.fonts import Font
from benchmarks.worlds.packages import Package, words
from benchmarks.worlds.pictures import Picture, World, distinct, spread
from benchmarks.worlds.scripts import ONLY, SCRIPTS, letters

VERSION = 2
KIND = "cyrillic"
OF_KIND, OF_OTHERS = 1_050, 360  # images of a script in the pool
TRAIN_IMAGES, TEST_IMAGES = 16, 24  # of a class

TRAIN = words("""
    anonymous-pro cantarell clear-sans cmu jetbrains-mono jura lato oldstandard paratype roboto-slab sil-andika
    terminus
""")
TEST = words("""
    3270 agave babelstone-modern comfortaa fantasque-sans go linuxlibertine manrope monofur okolaks play
    triod-postnaja tuffy urw-base35 vollkorn yanone-kaffeesatz
""")
NOT_TESTED = (  # families of these packages
    *("Nimbus",),  # have a relative in the pool
    *("Go Smallcaps", "Linux Libertine Initials"),  # draw small letters as large ones
)
POOL = words("""
    adf-berenis aksharyogini2 alee aoyagi-soseki arabeyes arphic-bkai00mp arphic-bsmi00lp arphic-gbsn00lp
    arphic-gkai00mp arundina beng-extra bpg-georgian cardo cherrybomb croscore ddc-uchen dejavu-core deva-extra
    dzongkha ebgaramond eeyek evertype-conakry farsiweb firacode freefont-ttf gargi gemunu-libre georgewilliams
    gfs-artemisia gfs-baskerville gfs-complutum gfs-didot gfs-didot-classic gfs-gazis gfs-neohellenic gfs-olga
    gfs-porson gfs-solomos gfs-theokritos gubbi gujr-extra guru-extra inter ipafont-gothic ipafont-mincho kacst
    kalapi karla khmeros klaudia-berenika komatuna konatu kouzan-mouhitsu ldco lexi-gulim lg-aboriginal
    lklug-sinhala lohit-beng-assamese lohit-beng-bengali lohit-deva lohit-gujr lohit-guru lohit-knda lohit-mlym
    lohit-orya lohit-taml lohit-telu manchufont meera-inimai misaki mmcedar monlam monoid mononoki motoya-l-maruberi
    mph-2b-damase myanmar nakula navilu noto-core open-sans orya-extra paktype rit-sundar sahadeva sambhota-tsugring
    sambhota-yigchung samyak-deva samyak-gujr samyak-mlym samyak-orya samyak-taml sarai sawarabi-gothic
    sawarabi-mincho senamirmir-washra seto sil-abyssinica sil-annapurna sil-charis sil-dai-banna sil-ezra sil-lateef
    sil-mingzat sil-mondulkiri sil-nuosusil sil-padauk smc-anjalioldlipi smc-chilanka smc-dyuthi smc-gayathri
    smc-karumbi smc-keraleeyam smc-manjari smc-meera smc-rachana smc-raghumalayalamsans smc-suruma smc-uroob stix
    symbola taml-tamu telu-extra teluguvijayam tibetan-machine tlwg-garuda-ttf tlwg-kinnari-ttf tlwg-laksaman-ttf
    tlwg-loma-ttf tlwg-mono-ttf tlwg-norasi-ttf tlwg-purisa-ttf tlwg-sawasdee-ttf tlwg-typewriter-ttf
    tlwg-umpush-ttf tlwg-waree-ttf ukij-uyghur unfonts-extra unifont uniol yrsa-rasa
""")
PACKAGES = [f"fonts-{name}" for name in (*TRAIN, *TEST, *POOL)]


def world(packages: Mapping[str, Package], seed: int) -> World:
    """Letters of the fonts in these packages."""
    rng = np.random.default_rng([seed, 0])
    read = {name: fonts.read(package.files(".ttf", ".otf")) for name, package in packages.items()}

    def chosen(names: list[str], script: str) -> list[Font]:
        able = [f"fonts-{name}" for name in names if script in ONLY.get(f"fonts-{name}", SCRIPTS)]
        return [font for name in able for font in read.get(name, [])]

    tested = [font for font in chosen(TEST, KIND) if not font.family.startswith(NOT_TESTED)]
    train = classes(chosen(TRAIN, KIND), TRAIN_IMAGES, rng)
    test = classes(tested, TEST_IMAGES, rng)
    pool = []
    for script in SCRIPTS:
        pool += of_script(chosen(POOL, script), script, OF_KIND if script == KIND else OF_OTHERS, rng)
    return World("glyphs", KIND, pool, train, test)


def classes(found: list[Font], count: int, rng: np.random.Generator) -> dict[str, list[Picture]]:
    """`count` pictures of each letter of the task, from as many families as there are; classes are code points."""
    every = [fonts.drawn(font, letters(KIND), KIND) for font in found if font.draws(letters(KIND))]
    named = {f"{ord(each):04x}": [drawn[each] for drawn in every if each in drawn] for each in letters(KIND)}
    return {name: spread(distinct(pictures), lambda each: each.source, count, rng) for name, pictures in named.items()}


def of_script(found: list[Font], script: str, count: int, rng: np.random.Generator) -> list[Picture]:
    """At most `count` pictures of a script's letters, from as many families as there are."""
    able = [font for font in found if font.draws(letters(script))]
    every = [picture for font in able for picture in fonts.drawn(font, letters(script), script).values()]
    return spread(distinct(every), lambda each: each.source, count, rng)
