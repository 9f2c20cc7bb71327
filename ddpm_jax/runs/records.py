"""The records of measurements in ``evaluation.json`` of a workdir."""

import json
from pathlib import Path
from typing import Any

from ddpm_jax.system.files import read_json, write_json
from ddpm_jax.system.locks import locked


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records in ``evaluation.json``; none if it does not exist. Raises ValueError naming a damaged file."""
    return read_json(path) if path.exists() else []


def add_record(path: Path, record: dict[str, Any]) -> None:
    """Adds a record to the list in the JSON file `path`, in place of one with the same step and protocol."""
    with locked(path.with_name(f".{path.name}.lock"), wait=True):  # of two evaluations at once, both records are kept
        records = read_records(path)
        record = json.loads(json.dumps(record))  # tuples become lists, as in the file
        by_protocol = {_key(other["step"], other["protocol"]): other for other in (*records, record)}
        write_json(path, list(by_protocol.values()))


def _key(step: int, protocol: dict[str, Any]) -> str:
    return json.dumps([step, protocol])


def differences(mine: dict[str, Any], other: dict[str, Any]) -> str:
    """What differs between two protocols, such as ``samples 500, not 1000; split train, not test``; "" if nothing."""
    names = [name for name in mine | other if mine.get(name) != other.get(name)]
    return "; ".join(f"{name} {other.get(name)}, not {mine.get(name)}" for name in names)
