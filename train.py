"""Runs an experiment, or a named table of them: `python train.py +experiment=food101_5shot budget=500k`.

The same as `sept train`: `sept/commands/train.py`.
"""

from sept.__main__ import start

if __name__ == "__main__":  # not where a data worker imports this file
    start("train")
