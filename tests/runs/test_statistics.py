"""Statistics of a run: estimated once, kept with what they were made from, and used by sample and evaluate."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from mistakes import fails
from recorder import Recorder

import ddpm_jax
from ddpm_jax import figures
from ddpm_jax.commands import main
from ddpm_jax.diffusion import parameterizations, samplers
from ddpm_jax.experiment import with_parameterization
from ddpm_jax.runs import chunks, experiment_files
from ddpm_jax.runs.likelihood import bits_per_dim
from ddpm_jax.runs.report import unclipped
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.runs.requests import SampleRequest
from ddpm_jax.runs.statistics import Spread, statistics
from ddpm_jax.runs.steps import model
from ddpm_jax.sampling import Run


@pytest.fixture(scope="module")
def folder(finished, tmp_path_factory):
    """A copy of the finished run, with its statistics."""
    copy = shutil.copytree(finished, tmp_path_factory.mktemp("statistics") / "run")
    statistics(copy, ddpm_jax.load(copy), num=6)
    return copy


def estimated(folder, run, **options) -> bool:
    """Whether the statistics are estimated, instead of read."""
    reporter = Recorder()
    statistics(folder, run, reporter=reporter, **options)
    return bool(reporter.lines)


def test_the_statistics_are_estimated_again_where_they_would_be_others(folder, tmp_path):
    run, copy = ddpm_jax.load(folder), shutil.copytree(folder, tmp_path / "run")
    assert not list(copy.glob("statistics_*"))
    assert not estimated(copy, run, num=6) and not estimated(copy, run, num=5)
    assert estimated(copy, run, num=7)  # more images
    other = run._replace(params=jax.tree.map(lambda x: 1.01 * x, run.params))
    assert estimated(copy, other, num=7) and not estimated(copy, other, num=7)  # other parameters
    (copy / "statistics.npz").write_bytes((copy / "statistics.npz").read_bytes()[:-40])
    assert estimated(copy, other, num=7)  # a damaged file
    assert estimated(copy, other, num=7, weights="raw") and (copy / "statistics_raw.npz").is_file()


def test_the_statistics_without_clipping_are_others(folder, tmp_path):
    run, copy = ddpm_jax.load(folder), shutil.copytree(folder, tmp_path / "run")
    assert estimated(copy, unclipped(run), num=6) and estimated(copy, run, num=6)


def test_the_images_are_spread_over_all_of_them():
    """Data that are sorted by class would have one class in their first images."""
    assert list(Spread([0] * 50 + [1] * 50, 4)) == [0, 0, 1, 1]
    assert list(Spread("abcde", 5)) == list("abcde") and list(Spread("abc", 1)) == ["a"]


def test_the_statistics_are_the_same_on_any_number_of_devices(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("ddpm_jax.runs.statistics.AT_ONCE", 3)
    copy = shutil.copytree(folder, tmp_path / "run")
    run, of_devices = ddpm_jax.load(folder), []
    for devices in (1, 2):
        (copy / "statistics.npz").unlink()
        monkeypatch.setattr(chunks, "devices_for", lambda *_, devices=devices: devices)
        of_devices.append(statistics(copy, run, num=6))
    for one, two in zip(*of_devices, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.slow  # compiles the statistics and the bound
def test_evaluate_measures_a_model_of_few_steps(folder, capsys):
    options = ["--steps", "6", "--spacing", "optimal", "--variance", "analytic"]
    assert main(["evaluate", str(folder), "--num", "4", *options]) == 0
    printed = capsys.readouterr().out
    assert "4 examples, 5 chain terms each" in printed and "reverse steps" not in printed
    record = json.loads((folder / "evaluation.json").read_text())[-1]
    assert record["protocol"]["variance"] == "analytic" and record["protocol"]["steps"] == 6
    visits = record["bpd"]["visits"]
    assert record["bpd"]["K"] is None and record["bpd"]["rate"] is None
    run = ddpm_jax.load(folder)
    found = statistics(folder, run, num=6)
    np.testing.assert_array_equal(visits, samplers.best_times(found.costs(run, "analytic"), 6))
    analytic = parameterizations.with_variance(run.experiment.parameterization, found.variance("analytic"))
    stepped = Run(with_parameterization(run.experiment, analytic), run.params, 0)
    source = run.experiment.data.open("test")
    expected = bits_per_dim(stepped, source, num=4, batch_size=4, visits=np.array(visits))
    np.testing.assert_allclose(record["bpd"]["total"], expected.total, rtol=1e-5)


def test_samples_record_the_statistics_that_they_depend_on(folder, capsys):
    options = ["--steps", "4", "--spacing", "optimal", "--variance", "analytic", "--num", "8", "--threshold", "0.9"]
    assert main(["sample", str(folder), *options]) == 0
    [picture] = (folder / "samples").glob("*optimal_analytic_threshold0.9*")
    provenance = figures.provenance_of(picture)
    assert provenance["variance"] == "analytic" and provenance["threshold"] == 0.9 and provenance["statistics"]
    assert main(["sample", str(folder), *options]) == 0
    assert "holds these images already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("sample", ["--variance", "analytic", "--sampler", "ddim"], "only --sampler ancestral has a variance"),
        ("sample", ["--variance", "fixed_large", "--eta", "0"], "only --sampler ancestral has a variance"),
        ("sample", ["--variance", "analytic", "--guidance", "2"], "leave out --guidance 2, or choose fixed_small or"),
        ("sample", ["--spacing", "optimal", "--guidance", "3"], "statistics of the network without guidance"),
        ("evaluate", ["--metrics", "fid", "--spacing", "optimal", "--guidance", "2"], "or choose another spacing"),
        ("sample", ["--spacing", "optimal", "--steps", "51"], "--steps must be between 1 and 50, got 51"),
        ("sample", ["--threshold", "2"], "--threshold must lie in (0, 1], got 2"),
        (
            "evaluate",
            ["--metrics", "K", "--steps", "5"],
            "--steps applies to --metrics bpd, parzen, fid",
        ),
        ("evaluate", ["--metrics", "bpd", "K", "--steps", "5"], "--metrics K measures all T steps"),
        ("evaluate", ["--steps", "5", "--times", "3"], "--times estimates the bound of all T steps"),
        (
            "evaluate",
            ["--metrics", "bpd", "--sampler", "ddim"],
            "--sampler applies to --metrics parzen, fid",
        ),
    ],
)
def test_mistakes(folder, capsys, command, options, message):
    assert message in fails(capsys, command, str(folder), *options)


def test_the_times_of_a_learned_variance_need_another(folder):
    """Its costs are not known from the errors; with the analytic variance they are."""
    run = ddpm_jax.load(folder)
    own = parameterizations.learned(run.experiment.process, run.experiment.parameterization)
    made = run._replace(experiment=dataclasses.replace(run.experiment, parameterization=own))
    with pytest.raises(ValueError, match="add --variance analytic"):
        model(made, SampleRequest(folder, steps=5, spacing="optimal"), Reporter())
    with pytest.raises(ValueError, match=r"--steps 5: .* add --variance analytic"):
        bits_per_dim(made, run.experiment.data.open("test"), visits=samplers.times(50, 5))


def test_bits_have_neither(tmp_path):
    made = experiment_files.read(experiment_files.find("sohl_dickstein_2015/heartbeat"))(timesteps=6)
    for chosen in ({"spacing": "optimal"}, {"variance": "analytic"}):
        with pytest.raises(ValueError, match="binomial"):
            model(Run(made, {}, 0), SampleRequest(tmp_path, **chosen), Reporter())
