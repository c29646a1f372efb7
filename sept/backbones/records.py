"""What timm records of the networks that it has: where their weights are, and what images they are for."""

from difflib import SequenceMatcher
from functools import lru_cache
from importlib import import_module

import timm
from timm.models import PretrainedCfg

from sept.backbones import OWN
from sept.errors import ConfigError

NEAR = 5  # names in a message


def record_of(name: str, key: str) -> PretrainedCfg | None:
    """timm's record of its model `name`, which may end in a tag of weights; None where it keeps none.

    key: the setting that holds the name, for messages. Raises ConfigError with the nearest names for one that timm
    does not have, and with the tags there are for an unknown tag.
    """
    architecture, _, tag = name.partition(".")
    if architecture in OWN:
        import_module(OWN[architecture])
    if not timm.is_model(architecture):
        near = ", ".join(_near(architecture, (*timm.list_models(), *OWN)))
        raise ConfigError(f"{key}={name}: timm {timm.__version__} has no such model; near it: {near}")
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError:  # timm knows the model, and not the tag
        known = _near(tag, tuple(each.partition(".")[2] for each in timm.list_pretrained(f"{architecture}.*")))
        raise ConfigError(
            f"{key}={name}: timm {timm.__version__} has no weights {tag} of {architecture}; "
            f"it has {', '.join(known) or 'none'}"
        ) from None


@lru_cache(maxsize=16)
def _near(name: str, known: tuple[str, ...]) -> list[str]:
    """Names that begin most like it, the shortest first among equals."""

    def unlike(other: str) -> tuple[float, int, str]:
        return -SequenceMatcher(None, name, other[: len(name)]).ratio(), len(other), other

    return sorted(known, key=unlike)[:NEAR]
