"""What timm records of the networks that it has: where their weights are, and what images they are for."""

import difflib

import timm
from timm.models import PretrainedCfg

from sept.errors import ConfigError

NEAR = 5  # names in a message


def record_of(name: str, key: str) -> PretrainedCfg | None:
    """timm's record of its model `name`, which may end in a tag of weights; None where it keeps none.

    key: the setting that holds the name, for messages. Raises ConfigError with the nearest names for one that timm
    does not have, and with the tags there are for an unknown tag.
    """
    architecture, _, tag = name.partition(".")
    if not timm.is_model(name):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=NEAR, cutoff=0.5)
        raise ConfigError(
            f"{key}={name}: timm {timm.__version__} has no such model; near it: {', '.join(near) or 'none'}"
        )
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError:  # timm knows the model, and not the tag
        known = [each.partition(".")[2] for each in timm.list_pretrained(f"{architecture}.*")]
        raise ConfigError(
            f"{key}={name}: timm {timm.__version__} has no weights {tag} of {architecture}; "
            f"known are {', '.join(known) or 'none'}"
        ) from None
