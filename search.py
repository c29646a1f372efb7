"""Stops at the selection: `python search.py budget=1k` prints its statistics and draws the gallery of SEPT Fig. 5.

The same as `sept search`: `sept/commands/search.py`.
"""

from sept.__main__ import start

if __name__ == "__main__":  # not where a data worker imports this file
    start("search")
