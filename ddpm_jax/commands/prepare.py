"""Builds a TFDS data set for training, by download or from local files: prepare NAME [--source DIR]"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PrepareRequest:
    """Builds a TFDS data set in the format that training reads. Needs the extra [prepare]."""

    name: str
    """Name of the data set in TFDS."""
    source: Path | None = None
    """Folder with the files of the data set, instead of a download. Supported for fashion_mnist only."""
    data_dir: Path | None = None
    """Folder in which TFDS keeps data sets. Default: TFDS's own, ~/tensorflow_datasets."""


def run(args: list[str], own_process: bool) -> int:
    """Runs the command; returns the exit status."""
    from ddpm_jax.commands.parsing import Usage, parse

    request = parse(PrepareRequest, args, "prepare")

    from ddpm_jax.data.prepare import prepare

    try:
        prepared = prepare(request.name, request.source, request.data_dir)
    except ModuleNotFoundError as error:
        raise Usage(str(error)) from None
    print(prepared.folder if prepared.new else f"{request.name} is prepared already: {prepared.folder}")
    return 0
