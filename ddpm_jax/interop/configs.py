"""What both kinds of config file are checked for."""

from collections.abc import Collection, Mapping
from typing import Any


def check_known(name: str, config: Mapping[str, Any], known: Collection[str]) -> None:
    """Raises ValueError for an entry that means nothing here: a guess would give other images, not an error."""
    unknown = sorted(key for key in config if not key.startswith("_") and key not in known)
    if unknown:
        raise ValueError(f"{name} has entries that ddpm_jax does not know: {', '.join(unknown)}")


def check_fixed(name: str, config: Mapping[str, Any], fixed: Mapping[str, tuple[Any, ...]]) -> None:
    """Raises ValueError for an entry with a value that is not supported."""
    for key, values in fixed.items():
        if key in config and config[key] not in values:
            raise ValueError(f"{name}: {key} {config[key]!r} is not supported; {' or '.join(map(repr, values))} is")


def read(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that have defaults; lists as tuples."""
    told = {key: config.get(key, default) for key, default in defaults.items()}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in told.items()}
