"""Small image worlds made of real artefacts that Debian packages carry: a pool, a labelled task, an oracle.

    python -m benchmarks.worlds NAME DIR                  # glyphs, icons (development); photos, cliparts (held back)
    python -m benchmarks.worlds.sheet DIR SHEET.png       # what is in it, as one picture

DIR holds `pool/` (unlabelled images, whose paths tell nothing of what they show), `task/train/CLASS` and
`task/test/CLASS`, `oracle/` (links to the pool's images of the task's kind), `kinds.csv` (path, kind and source of
every image of the pool: for evaluation alone) and `world.json` (seed, exact versions of the packages, counts). The
sources of test images (font families, icon themes, texture sets) give nothing to the training images nor to the pool.
Packages are fetched with apt-get into DIR/../packages and unpacked there, never installed. Equal seed and package
versions give equal files.
"""
