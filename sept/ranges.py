"""The range of values of each setting: declared in the schema, and checked in the same way for all settings.

A field is declared by one of the helpers below, `lr: float = real(1e-3, above=0, most=1)`; `check_ranges` walks an
experiment and refuses the first value out of range. Rules for several settings are checked elsewhere.
"""

import difflib
import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from itertools import pairwise
from typing import Any, Protocol

from sept.errors import ConfigError

RULE = "rule"  # metadata key of a field's rule
MOST_SEED = 2**32 - 1  # accepted by every generator
MOST_SIDE = 16_384  # pixels of an image
MOST_EPOCHS = 1_000_000
MOST_BATCH = 65_536  # images
MOST_CHANNELS = 65_536

MOST_BLUR = 20  # pixels of a 224-px view
MOST_JITTER = 5  # times the published one: hue then goes all the way round


class Rule(Protocol):
    """What a setting's value must be, if it is not null."""

    def refusal(self, value: Any) -> str | None:
        """What the value must be, in words that follow the setting's name; None for a valid value."""


@dataclass(frozen=True)
class Number:
    """A finite number between bounds: `above` and `below` exclude the bound, `least` and `most` include it. words:
    strings allowed instead. whole: integers only."""

    whole: bool = False
    above: float | None = None
    least: float | None = None
    below: float | None = None
    most: float | None = None
    words: tuple[str, ...] = ()
    is_share: bool = False

    def refusal(self, value: Any) -> str | None:
        if isinstance(value, str):
            return None if value in self.words else f"must be {self._told(value)}"
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if number and not (self.whole and not isinstance(value, int)) and not (self._low(value) or self._high(value)):
            return None
        return f"is a share: it must be {self._told(value)}" if self.is_share else f"must be {self._told(value)}"

    def _low(self, value: float) -> bool:
        return (self.above is not None and value <= self.above) or (self.least is not None and value < self.least)

    def _high(self, value: float) -> bool:
        return (self.below is not None and value >= self.below) or (self.most is not None and value > self.most)

    def _told(self, value: Any) -> str:
        """The bound that the value violates; all bounds for a share, and for what is no number."""
        low, high = {"above": self.above, "at least": self.least}, {"below": self.below, "at most": self.most}
        number = not self.is_share and isinstance(value, int | float) and math.isfinite(value)
        beyond = low if number and self._low(value) else high if number and self._high(value) else None
        bounds = low | high if beyond is None else beyond
        said = " and ".join(f"{word} {bound:,}" for word, bound in bounds.items() if bound is not None)
        kind = "a whole number " if self.whole and beyond is None else ""
        return " or ".join([*self.words, kind + (said or "a finite number")])


@dataclass(frozen=True)
class Text:
    """Some text; with `values`, one of them; with `form`, text matching this regular expression, shown as `example`."""

    values: tuple[str, ...] = ()
    form: str = ""
    example: str = ""

    def refusal(self, value: Any) -> str | None:
        if self.values:
            return None if value in self.values else f"must be {one_of(value, self.values)}"
        if self.form:
            return None if re.fullmatch(self.form, value) else f"must be like {self.example}"
        if not value.strip() or not value.isprintable():
            return "must not be empty" if not value.strip() else "has characters that cannot be printed"
        return None


@dataclass(frozen=True)
class Several:
    """A list of values that `each` allows: `count` of them, or at least `fewest`; ascending: none less than the one
    before, or with `strictly` each greater."""

    each: Rule
    count: int | None = None
    fewest: int = 0
    ascending: bool = False
    strictly: bool = False

    def refusal(self, value: Any) -> str | None:
        if self.count is not None and len(value) != self.count:
            return f"must be {self.count} values"
        if len(value) < self.fewest:
            return f"must be {self.fewest} or more values"
        why = next((why for why in map(self.each.refusal, value) if why), None)
        if why:
            return f"each {why}"
        pairs = [*pairwise(value)]
        if self.ascending and any(first > second for first, second in pairs):
            return "must ascend"
        repeats = self.strictly and any(first >= second for first, second in pairs)
        return "must ascend without repetition" if repeats else None


# How fields are declared. `default` may be None where the type says so.


SHARE = Number(least=0, most=1, is_share=True)
COUNT = Number(whole=True, least=1, most=10**6)
SIDE = Number(whole=True, least=1, most=MOST_SIDE)
EPOCH = Number(whole=True, least=1, most=MOST_EPOCHS)
RATIO = Number(least=0.01, most=100)


def whole(default: int | str | None, *, least: int = 0, most: int = 10**9, words: tuple[str, ...] = ()) -> Any:
    """A whole number; or one of `words`, for a field that may hold text too."""
    return field(default=default, metadata={RULE: Number(whole=True, least=least, most=most, words=words)})


def real(default: float | None, **bounds: Any) -> Any:
    """A finite number, between bounds named as in `Number`."""
    return field(default=default, metadata={RULE: Number(**bounds)})


def share(default: float | None, **bounds: Any) -> Any:
    """A number from 0 to 1, or within narrower bounds."""
    return field(default=default, metadata={RULE: _share(bounds)})


def _share(bounds: dict[str, Any]) -> Number:
    low: dict[str, Any] = {} if "above" in bounds else {"least": 0}
    high: dict[str, Any] = {} if "below" in bounds else {"most": 1}
    return Number(is_share=True, **{**low, **high, **bounds})


def seed() -> Any:
    return whole(0, most=MOST_SEED)


def side(default: int | None, least: int = 1) -> Any:
    """Pixels of a square image, or of one side of an image."""
    return whole(default, least=least, most=MOST_SIDE)


def epochs(default: int | None, least: int = 0) -> Any:
    return whole(default, least=least, most=MOST_EPOCHS)


def batch(default: int, least: int = 1) -> Any:
    return whole(default, least=least, most=MOST_BATCH)


def channels(default: int | None) -> Any:
    """Width of a layer; a single channel carries no information after normalisation."""
    return whole(default, least=2, most=MOST_CHANNELS)


def rate(default: float) -> Any:
    """The highest learning rate: AdamW moves a weight by about this much per step."""
    return real(default, above=0, most=1)


def least_rate(default: float) -> Any:
    """A learning rate at which a schedule begins or ends."""
    return real(default, least=0, most=1)


def clip(default: float | None) -> Any:
    """The norm that gradients are clipped to."""
    return real(default, above=0, most=1e6)


def temperature(default: float) -> Any:
    """Temperature of a softmax over cosines: lower ones overflow, higher ones do not discriminate."""
    return real(default, least=1e-3, most=10)


def choice(default: str | None, values: Collection[str]) -> Any:
    """One of these strings."""
    return field(default=default, metadata={RULE: Text(values=tuple(values))})


def text(default: str | None, *, form: str = "", example: str = "") -> Any:
    """A name, a path or an address: any non-empty text; or text of a form."""
    return field(default=default, metadata={RULE: Text(form=form, example=example)})


def pair(low: float, high: float, *, ordered: bool = True, **bounds: Any) -> Any:
    """Two numbers within the bounds, the first not above the second; or, not ordered, one for each of two views."""
    rule = Several(Number(**bounds), count=2, ascending=ordered)
    return field(default_factory=lambda: [low, high], metadata={RULE: rule})


def several(default: Sequence[Any], each: Rule, **how: Any) -> Any:
    """A list of values that `each` allows; `how` as in `Several`."""
    return field(default_factory=lambda: [*default], metadata={RULE: Several(each, **how)})


# How they are checked


def check_ranges(group: Any, prefix: str = "") -> None:
    """ConfigError for the first setting in `group`, a dataclass, and in what it holds, whose value is out of range.

    None passes: whether a setting may be null depends on its type, and is checked when a config is composed.
    """
    for name, value, rule in declared(group, prefix):
        why = rule.refusal(value) if value is not None else None
        if why:
            raise ConfigError(f"{name}={format_value(value)}: {why}")


def declared(group: Any, prefix: str = "") -> Iterator[tuple[str, Any, Rule]]:
    """Name, value and rule of every setting that has a rule, in the order of the schema."""
    for item in fields(group):
        value, name = getattr(group, item.name), prefix + item.name
        if is_dataclass(value):
            yield from declared(value, f"{name}.")
        elif RULE in item.metadata:
            yield name, value, item.metadata[RULE]
        elif isinstance(value, dict):
            for key, part in value.items():
                if is_dataclass(part):
                    yield from declared(part, f"{name}.{key}.")


def format_value(value: Any) -> str:
    """A value as it would be written on a command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{','.join(map(format_value, value))}]" if isinstance(value, list) else str(value)


def one_of(value: Any, values: Collection[str]) -> str:
    """`values` in words, and the nearest of them."""
    close = difflib.get_close_matches(str(value), values, n=1, cutoff=0.5)
    return f"one of {', '.join(values)}" + (f"; did you mean {close[0]}?" if close else "")


def require_unset(group: Any, prefix: str, names: Collection[str], why: str) -> None:
    """ConfigError for the first of these settings that is set: it would have no effect, which `why` explains."""
    for name in names:
        value = getattr(group, name)
        if value not in (None, [], {}):
            told = (
                format_value(value if isinstance(value, list) else [*value])
                if isinstance(value, list | dict)
                else value
            )
            raise ConfigError(f"{prefix}.{name}={told} would have no effect: {why}")


def require_one_of(key: str, value: str, values: Collection[str]) -> None:
    """ConfigError, which names the nearest, for a value that is none of these."""
    if value not in values:
        raise ConfigError(f"{key}={value}: must be {one_of(value, values)}")


def require_rates(prefix: str, peak: float, times: float, others: dict[str, float], most: float = 1) -> None:
    """ConfigError for a peak rate that, scaled by `times`, is above `most`, or that is below one of the other rates."""
    if peak * times > most:
        raise ConfigError(f"{prefix}.lr={peak} is {peak * times:g} for this batch: a step would be larger than weights")
    for name, rate in others.items():
        if rate > peak:
            raise ConfigError(f"{prefix}.{name}={rate} is more than {prefix}.lr={peak}, the highest rate")


def require_set(group: str, spec: Any, names: tuple[str, ...]) -> None:
    for name in names:
        if getattr(spec, name) is None:
            raise ConfigError(f"{group}.{name} is not set: {group}={spec.kind} needs {group}.{name}=...")
