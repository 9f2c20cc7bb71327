"""The tables of docs/ that are made from records, so that pages and measurements cannot disagree.

    python .ci/results.py                    writes all tables anew
    python .ci/results.py add NAME WORKDIR --command "ddpm-jax train ..." --device "1 CPU core" --time "5 min"
    python .ci/results.py add NAME WORKDIR --study FILE --command "ddpm-jax study ..." --device "1 CPU core"

A record, docs/records/NAME.json, is what `train`, `evaluate` and `study` wrote about one run, with its versions, its
commit and its protocols, and three fields that no file has: command, device and time. A table is between the lines
`<!-- begin: FUNCTION ARGUMENT ... -->` and `<!-- end -->`, where FUNCTION is a key of `tables.TABLES`.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import tables

DOCS = Path(__file__).parents[1] / "docs"
CURVES = ("rate", "distortion")
"""The lists of T numbers in a measurement of the bound, which no table shows."""


def add(name: str, workdir: Path, study: Path | None, **stated: str | None) -> None:
    """Writes a record from the files of a workdir and, with `study`, from the JSON file of a study of it."""
    made = {key: value for key, value in stated.items() if value is not None}
    made |= {"experiment": _shared(json.loads((workdir / "experiment.json").read_text()))}
    if study is not None:
        made |= {"study": _shared(json.loads(study.read_text()))}
    else:
        made |= {"evaluation": _shared(json.loads((workdir / "evaluation.json").read_text()))}
    tables.RECORDS.mkdir(exist_ok=True)
    (tables.RECORDS / f"{name}.json").write_text(json.dumps(made, indent=1) + "\n")


def _shared(value: Any) -> Any:
    """A value without curves, and with names in place of absolute paths."""
    if isinstance(value, dict):
        return {key: _shared(each) for key, each in value.items() if key not in CURVES}
    if isinstance(value, list):
        return [_shared(each) for each in value]
    return Path(value).name if isinstance(value, str) and value.startswith("/") else value


MARKED = re.compile(r"(<!-- begin: ([^>]*?) -->\n).*?(<!-- end -->)", re.DOTALL)


def written(page: str) -> str:
    """The text of a page with its tables written anew."""

    def fill(found: re.Match[str]) -> str:
        function, *arguments = found[2].split()
        return f"{found[1]}\n{tables.TABLES[function](*arguments)}\n\n{found[3]}"

    return MARKED.sub(fill, page)


def pages() -> list[Path]:
    """The pages that have tables made from records."""
    return [page for page in sorted(DOCS.glob("*.md")) if MARKED.search(page.read_text())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    new = parser.add_subparsers(dest="action").add_parser("add", help="add or replace a record")
    new.add_argument("name")
    new.add_argument("workdir", type=Path)
    new.add_argument("--study", type=Path)
    for name in ("--command", "--device", "--time"):
        new.add_argument(name, required=name != "--time")
    given = vars(parser.parse_args())
    if given.pop("action"):
        add(**given)
    for page in pages():
        page.write_text(written(page.read_text()))


if __name__ == "__main__":
    main()
