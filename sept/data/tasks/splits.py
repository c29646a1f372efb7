"""Which names of folders say that what they hold is a split, so that none is ever taken for a class in silence."""

import difflib
import re
import unicodedata
from collections.abc import Iterable

TRAIN, TEST, VALIDATION = "train", "test", "val"
ROLES = {
    TRAIN: TRAIN,
    "training": TRAIN,
    TEST: TEST,
    "testing": TEST,
    VALIDATION: VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
}
"""Names of split folders, in any case, and what they hold."""
UNREAD = {
    *("trainval", "trn", "tst", "dev", "devel", "development", "eval", "evaluation", "holdout", "heldout"),
    *("split", "fold", "labelled", "labeled", "unlabelled", "unlabeled", "gallery", "query"),
}
"""Words of splits that are not read."""
NEUTRAL = {"image", "images", "img", "imgs", "photo", "photos", "data", "dataset", "set", "folder", "my"}
"""Words that may stand beside those, or at their end."""
NEAR = 0.8
"""Share of letters in common from which a word of the same first letter is a slip: trainn, vaild."""


def role(name: str) -> str | None:
    """`TRAIN`, `TEST` or `VALIDATION` for a name of `ROLES` in any case; None for any other name."""
    return ROLES.get(unicodedata.normalize("NFKC", name).strip().casefold())


def resembles(name: str) -> bool:
    """Whether a name reads like a split's: train_images, Test2017, split1, trainn."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", name))
    words = [word for word in re.findall("[a-z]+", parted.casefold()) if word not in NEUTRAL]
    return bool(words) and all(map(_near, words))


def _near(word: str) -> bool:
    bare = re.sub(f"({'|'.join(NEUTRAL)}|s)$", "", word) or word
    return any(bare == known or (bare[0] == known[0] and _slip(bare, known)) for known in (*ROLES, *UNREAD))


def _slip(word: str, known: str) -> bool:
    """Of the pen. Short words have too many neighbours that mean something else."""
    close = difflib.SequenceMatcher(None, word, known).ratio() >= NEAR
    return len(known) > 3 and (close or sorted(word) == sorted(known))


def told(found: Iterable[str], most: int = 5) -> str:
    """Names for a message: the first ones, and how many more there are."""
    names = list(found)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
