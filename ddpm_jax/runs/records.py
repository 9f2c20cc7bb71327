"""The records of measurements in ``evaluation.json`` of a workdir."""

import json
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ddpm_jax.system.files import read_json, write_json
from ddpm_jax.system.locks import locked
from ddpm_jax.training import distributed


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of the run in ``evaluation.json``; none without the file. Raises ValueError naming a damaged file.

    Those of images from elsewhere, which were compared with the data of the run, are left out.
    """
    return [record for record in all_records(path) if "images" not in record]


def all_records(path: Path) -> list[dict[str, Any]]:
    """The records in ``evaluation.json``, also those of images from elsewhere; errors as `read_records`."""
    return read_json(path) if path.exists() else []


def add_record(path: Path, record: dict[str, Any]) -> None:
    """Adds a record to the list in the JSON file `path`, in place of one with the same step and protocol."""
    with locked(path.with_name(f".{path.name}.lock"), wait=True):  # of two evaluations at once, both records are kept
        records = all_records(path)
        record = json.loads(json.dumps(record))  # tuples become lists, as in the file
        by_protocol = {_key(other["step"], other["protocol"]): other for other in (*records, record)}
        write_json(path, list(by_protocol.values()))


def _key(step: int | None, protocol: dict[str, Any]) -> str:
    return json.dumps([step, protocol])


def differences(mine: dict[str, Any], other: dict[str, Any]) -> str:
    """What differs between two protocols, such as ``samples 500, not 1000; split train, not test``; "" if nothing."""
    names = [name for name in mine | other if mine.get(name) != other.get(name)]
    return "; ".join(f"{name} {other.get(name)}, not {mine.get(name)}" for name in names)


@contextmanager
def unfinished(folder: Path, name: str, identity: Any) -> Iterator[Path]:
    """A new or kept folder in `folder` for the results of an unfinished measurement; its name depends on `identity`.

    At the end it is removed if it is empty, with the folders that were made for it: a request that is refused leaves
    nothing. Every process must call this function. Raises ValueError if the processes have different identities, which
    are JSON values, or do not share the folder.
    """
    text = json.dumps(identity, sort_keys=True)
    if not distributed.is_same(text):
        raise ValueError(f"the processes have different data, or other parameters in {folder}")
    found = folder / f"{name}_{zlib.crc32(text.encode()):08x}"
    new = [found, *(each for each in found.parents if not each.exists())]
    with distributed.all_or_none(f"process 0 cannot write into {folder}"):
        if distributed.is_leader():
            found.mkdir(exist_ok=True, parents=True)
    if not distributed.agree(found.is_dir()):
        raise ValueError(f"{folder} is not the same folder for all processes: give them one that they share")
    try:
        yield found
    finally:
        with suppress(OSError):
            for each in new:
                each.rmdir()


def finish(record: dict[str, Any], keep: Path, folder: Path | None, file: Path | None) -> None:
    """Adds the record to ``evaluation.json`` in `folder`, writes it to the JSON file, and removes the folder `keep`.

    Without a folder or a file it is not written there. Every process must call this function.
    """
    distributed.wait_for_all("evaluation")  # until then other processes read what is kept
    with distributed.all_or_none(f"process 0 cannot write into {folder or file}"):
        if distributed.is_leader():
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
                add_record(folder / "evaluation.json", record)
            if file is not None:
                write_json(file, record)
            shutil.rmtree(keep, ignore_errors=True)  # last: what failed to be written can be written again
