"""The tables of docs/ are those that the records give, and a record has all that its tables need."""

import importlib.util
import json
import math
import sys
from pathlib import Path

import pytest

CI = Path(__file__).parent.parent / ".ci"


@pytest.fixture(scope="module")
def results():
    """The module `.ci/results.py` with those beside it, in a folder that is no package."""
    sys.path.insert(0, str(CI))
    try:
        spec = importlib.util.spec_from_file_location("results", CI / "results.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(CI))


def test_the_pages_agree_with_the_records(results):
    """If this fails, run `python .ci/results.py` and look at what changed."""
    assert {page.name for page in results.pages()} >= {"results.md", "sampling.md"}
    for page in results.pages():
        assert results.written(page.read_text()) == page.read_text(), page


def test_every_record_is_in_a_page(results):
    text = "".join(page.read_text() for page in results.pages())
    assert [path.name for path in results.tables.RECORDS.glob("*.json") if f"records/{path.name}" not in text] == []


@pytest.mark.parametrize(("name", "label"), [("digits", "360 test digits"), ("fashion_mnist", "500 test images")])
def test_the_readme_has_the_bounds_of_the_records(results, name, label):
    row = next(line for line in (CI.parent / "README.md").read_text().splitlines() if label in line)
    total = next(line for line in results.tables.likelihood(name).splitlines() if line.startswith("| total |"))
    assert total.split("|")[2].strip() in row


@pytest.mark.parametrize(
    ("table", "name", "label"),
    [
        ("paper_2015", "heartbeat", "[binary heartbeat]"),
        *(("paper_2015", name, "[swiss roll]") for name in ("swiss_roll", "swiss_roll_512")),
        ("paper_2015", "dead_leaves_one_scale", "[dead leaves]"),
        *(("parzen", f"mnist_{n}", "[MNIST]") for n in ("both", "unet")),
    ],
)
def test_the_readme_has_the_figures_of_2015_of_the_records(results, table, name, label):
    """The last row of each table has the figure: of Parzen windows that of most samples."""
    row = next(line for line in (CI.parent / "README.md").read_text().splitlines() if label in line)
    cells = [cell.strip() for cell in results.tables.TABLES[table](name).splitlines()[-1].split("|")]
    assert next(cell for cell in cells if " +- " in cell) in row


def test_a_figure_has_two_digits_of_its_error(results):
    assert results.tables.figure((2.92746, 0.02731)) == "2.927 +- 0.027"
    assert results.tables.figure((-2.38531, 0.00112)) == "-2.3853 +- 0.0011"
    assert results.tables.figure((12.3, 11.7)) == "12 +- 12"
    assert results.tables.figure((2.08e-5, 7.2e-8)) == "2.1e-05 +- 7e-08"
    assert results.tables.figure((3.0, None)) == "3.000"
    assert results.tables.figure((-0.00003, 0.0012)) == "0.0000 +- 0.0012"


def test_a_run_becomes_a_record_without_its_curves_and_a_table(results, tmp_path, monkeypatch):
    """With all terms if they were measured, and with the metrics of a way to draw in one row."""
    bpd = {"total": [3.0, 0.1], "prior": [0.0, 0.0], "chain": [2.5, 0.1], "decoder": [0.5, 0.1], "num_examples": 9}
    drawn = {"sampler": "ddim", "steps": 50, "guidance": 2.0, "spacing": "even"}
    protocol = {"samples": 100, "features": "/somewhere/classifier", "split": "test", "reference": 9}
    common = {"drawn": drawn, "protocol": protocol}
    (tmp_path / "evaluation.json").write_text(
        json.dumps(
            [
                {"bpd": bpd | {"times": 50, "rate": [1.0] * 1000}, "protocol": {}},
                {"bpd": bpd | {"times": 999, "total": [2.9, 0.1]}, "protocol": {}},
                {"fid": common | {"fid": [1.5, 0.1]}, "kid": common | {"kid": [0.01, 0.001]}, "protocol": {}},
                {"pr": common | {"precision": [0.8, 0.01], "recall": [0.7, 0.01]}, "protocol": {}},
            ]
        )
    )
    versions = {"ddpm_jax": "0.2.0", "jax": "0.12"}
    (tmp_path / "experiment.json").write_text(json.dumps({"versions": versions, "commit": "0123456789"}))
    monkeypatch.setattr(results.tables, "RECORDS", tmp_path / "records")
    with pytest.raises(FileNotFoundError, match=r"mine\.json"):
        results.tables.likelihood("mine")
    results.add("mine", tmp_path, None, command="ddpm-jax train mine", device="1 CPU core", time="5 min")
    assert "somewhere" not in (tmp_path / "records" / "mine.json").read_text()
    assert "rate" not in results.tables.record("mine")["evaluation"][0]["bpd"]
    assert "| total | 2.90 +- 0.10 | 9 | 999 terms of the chain each |" in results.tables.likelihood("mine")
    made = json.loads((tmp_path / "records" / "mine.json").read_text())
    made["evaluation"].insert(0, {"bpd": bpd | {"times": 50, "total": [3.1, 0.05]}, "protocol": {}})
    (tmp_path / "records" / "mine.json").write_text(json.dumps(made))
    first, *_, last = (row for row in results.tables.likelihood("mine").splitlines() if row.startswith("| total |"))
    assert "| 3.100 +- 0.050 | 9 | 50 terms" in first and "| 2.90 +- 0.10 | 9 | 999 terms" in last
    row = "| 100 by `ddim` in 50 steps, guidance 2.0 | 9 test images | classifier | 1.50 +- 0.10 | 0.0100 +- 0.0010 |"
    assert f"{row} 0.800 +- 0.010 | 0.700 +- 0.010 |" in results.tables.quality("mine")
    made["evaluation"] = [each | {"step": 70} for each in made["evaluation"]]
    (tmp_path / "records" / "mine.json").write_text(json.dumps(made))
    last = "| [mine](records/mine.json) | 70 | 5 min on 1 CPU core | 2.90 +- 0.10 | 1.50 +- 0.10 |"
    assert results.tables.compared("mine").splitlines()[-1] == last
    source = "`ddpm-jax train mine`, 5 min on 1 CPU core, trained with ddpm_jax 0.2.0, JAX 0.12, commit 0123456."
    assert results.tables.quality("mine").endswith(source)


def test_a_study_that_has_no_record_is_not_measured(results, tmp_path, monkeypatch):
    assert "not measured" not in results.tables.descendants("digits")
    monkeypatch.setattr(results.tables, "RECORDS", tmp_path)
    rows = results.tables.descendants("digits").splitlines()[2:]
    assert rows and all(row.endswith("| not measured |  |") for row in rows)


def test_k_of_2015_and_parzen_windows_are_those_of_the_record(results, tmp_path, monkeypatch):
    """K of the measurement with most terms; nats of a Parzen window become bits."""
    bpd = {"K": [1.5, 0.1], "K_over_null": [3.5, 0.1], "num_examples": 500, "times": 50}
    window = {"nats": [math.log(2), math.log(4)], "samples": 1000, "num_examples": 9}
    made = {
        "command": "ddpm-jax train images --data mnist_5000 --workdir runs/mnist",
        "device": "1 CPU core",
        "time": "5 min",
        "experiment": {"experiment": "images.py", "knobs": {"data": "mnist_5000"}},
        "evaluation": [
            {"bpd": bpd},
            {"bpd": bpd | {"K": [1.6, 0.1], "times": 999}},
            {"parzen": window, "protocol": {"steps": 250}},
        ],
    }
    (tmp_path / "mine.json").write_text(json.dumps(made))
    monkeypatch.setattr(results.tables, "RECORDS", tmp_path)
    assert "| 500, 999 | 1.60 +- 0.10 | 3.500 |" in results.tables.paper_2015("mine")
    assert results.tables.paper_2015("mine").endswith("| 5 min on 1 CPU core |")
    row = results.tables.parzen("mine").splitlines()[-1]
    assert row == "| [`--data mnist_5000`](records/mine.json) | 1,000 | `ancestral` in 250 steps | 9 | 1.0 +- 2.0 |"


@pytest.mark.parametrize(
    ("distances", "verdict"),
    [((0.2, 0.3), "yes"), ((0.3, 0.2), "**no**"), ((0.2, 0.3, 0.3, 0.2, 0.2, 0.3), "in part: 2 of 3")],
)
def test_a_relation_is_decided_by_the_record(results, distances, verdict):
    """Pairs of the distances at even and at optimal times, for three variances; another number of steps is left out."""
    relations, variances = results.tables.relations, ("fixed_small", "fixed_large", "analytic")
    pairs = zip(*[iter((distances * 3)[:6])] * 2, strict=True)
    drawn = [
        (variance, spacing, 10, distance)
        for variance, pair in zip(variances, pairs, strict=True)
        for spacing, distance in zip(("even", "optimal"), pair, strict=True)
    ]
    drawn += [(variance, spacing, 25, 9.0) for variance in variances for spacing in ("even", "optimal")]
    made = [
        {
            "fid": {
                "fid": [distance, 0.01],
                "drawn": {"variance": variance, "spacing": spacing, "steps": steps, "clip": True},
                "protocol": {"features": "pixels"},
            }
        }
        for variance, spacing, steps, distance in drawn
    ]
    assert relations.worse_samples(lambda name: {"evaluation": made})[1] == verdict
    assert relations.decided([(5, True), (10, False)]) == "in part: at 5 of 5, 10 steps"
    assert relations.rising((1, 2, 3)) and not relations.rising((1, 2, 2))
