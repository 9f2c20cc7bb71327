"""Validation of diffusers' config files, since an entry read wrongly would change the images without an error."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

Kind = tuple[str, Callable[[Any], bool]]
"""What the value of an entry must be, in words and as a predicate."""


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_list(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) > 0


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(_is_count, value))


COUNT: Kind = ("a positive integer", _is_count)
COUNT_OR_NONE: Kind = ("a positive integer or null", lambda value: value is None or _is_count(value))
COUNTS: Kind = ("a list of positive integers", lambda value: _is_list(value) and all(map(_is_count, value)))
SIZE: Kind = ("the size of the images, or [height, width]", lambda value: _is_count(value) or _is_pair(value))
POSITIVE: Kind = ("a positive number", lambda value: _is_number(value) and value > 0)
PROBABILITY: Kind = ("a number in [0, 1)", lambda value: _is_number(value) and 0 <= value < 1)
BIT: Kind = ("0 or 1", lambda value: _is_number(value) and value in (0, 1))
BOOLEAN: Kind = ("true or false", lambda value: type(value) is bool)
NAME: Kind = ("a string", lambda value: isinstance(value, str))
NAMES: Kind = ("a list of strings", lambda value: _is_list(value) and all(isinstance(name, str) for name in value))
NUMBERS_OR_NONE: Kind = (
    "a list of numbers or null",
    lambda value: value is None or (_is_list(value) and all(map(_is_number, value))),
)


def check_known(name: str, config: Mapping[str, Any], known: Collection[str]) -> None:
    """Raises ValueError if the config has entries that are not in `known`; names with an underscore are ignored.

    `name` is the file name, for the error messages here and below.
    """
    unknown = sorted(key for key in config if not key.startswith("_") and key not in known)
    if unknown:
        raise ValueError(f"{name} has entries that ddpm_jax does not know: {', '.join(unknown)}")


def check_fixed(name: str, config: Mapping[str, Any], fixed: Mapping[str, tuple[Any, ...]]) -> None:
    """Raises ValueError if an entry has a value other than the supported ones that `fixed` lists for it."""
    for key, values in fixed.items():
        if key in config and config[key] not in values:
            supported = " or ".join(map(repr, values))
            raise ValueError(f"{name}: {key} {config[key]!r} is not supported: it must be {supported}")


def read(name: str, config: Mapping[str, Any], entries: Mapping[str, tuple[Any, Kind]]) -> dict[str, Any]:
    """The values of `entries`, which gives a default and a kind for each; lists become tuples.

    Raises ValueError for a value that is not of its kind.
    """
    values = {key: config.get(key, default) for key, (default, _) in entries.items()}
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    for key, (_, (description, is_valid)) in entries.items():
        if not is_valid(values[key]):
            raise ValueError(f"{name}: {key} {values[key]!r} must be {description}")
    return values
