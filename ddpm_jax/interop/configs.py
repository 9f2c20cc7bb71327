"""What both kinds of config file are checked for: a guess would give other images, not an error."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

Kind = tuple[str, Callable[[Any], bool]]
"""What an entry should be, in words and as a test."""


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


COUNT: Kind = ("a whole number above zero", _is_count)
COUNT_OR_NONE: Kind = ("a whole number above zero, or null", lambda value: value is None or _is_count(value))
COUNTS: Kind = ("a list of whole numbers above zero", lambda value: _is_list(value) and all(map(_is_count, value)))
SIZE: Kind = ("the size of the images, or their height and width", lambda value: _is_count(value) or _is_pair(value))
POSITIVE: Kind = ("a number above zero", lambda value: _is_number(value) and value > 0)
SHARE: Kind = ("a number from 0 to below 1", lambda value: _is_number(value) and 0 <= value < 1)
BIT: Kind = ("0 or 1", lambda value: _is_number(value) and value in (0, 1))
TRUTH: Kind = ("true or false", lambda value: type(value) is bool)
NAMES: Kind = ("a list of names", lambda value: _is_list(value) and all(isinstance(each, str) for each in value))
NAME: Kind = ("a name", lambda value: isinstance(value, str))
BETAS: Kind = (
    "a list of numbers, or null",
    lambda value: value is None or (_is_list(value) and all(map(_is_number, value))),
)


def _is_list(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) > 0


def _is_numbers(value: Any) -> bool:
    return _is_list(value) and all(map(_is_number, value))


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(_is_count, value))


def check_known(name: str, config: Mapping[str, Any], known: Collection[str]) -> None:
    """Raises ValueError for an entry that means nothing here."""
    unknown = sorted(key for key in config if not key.startswith("_") and key not in known)
    if unknown:
        raise ValueError(f"{name} has entries that ddpm_jax does not know: {', '.join(unknown)}")


def check_fixed(name: str, config: Mapping[str, Any], fixed: Mapping[str, tuple[Any, ...]]) -> None:
    """Raises ValueError for an entry with a value that is not supported."""
    for key, values in fixed.items():
        if key in config and config[key] not in values:
            raise ValueError(f"{name}: {key} {config[key]!r} is not supported; {' or '.join(map(repr, values))} is")


def read(name: str, config: Mapping[str, Any], entries: Mapping[str, tuple[Any, Kind]]) -> dict[str, Any]:
    """The entries, each a default and its kind; lists as tuples. Raises ValueError for one of another kind."""
    told = {key: config.get(key, default) for key, (default, _) in entries.items()}
    told = {key: tuple(value) if isinstance(value, list) else value for key, value in told.items()}
    for key, (_, (words, is_one)) in entries.items():
        if not is_one(told[key]):
            raise ValueError(f"{name}: {key} {told[key]!r} should be {words}")
    return told
