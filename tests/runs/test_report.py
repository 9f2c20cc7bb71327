"""What `evaluate` measures: the estimate from some of the times is unbiased, the batch decides nothing."""

import dataclasses
import json
import shutil

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from mistakes import fails

from ddpm_jax.commands import main
from ddpm_jax.data import Data, digits, load
from ddpm_jax.diffusion import gaussian, parameterizations, schedules
from ddpm_jax.experiment import Experiment
from ddpm_jax.metrics import parzen
from ddpm_jax.runs import chunks
from ddpm_jax.runs.likelihood import bits_per_dim
from ddpm_jax.runs.records import add_record
from ddpm_jax.runs.report import coding_table, unclipped
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.sampling import Run


class Linear(nn.Module):
    """A predictor of the noise that is wrong by a different amount at each time."""

    @nn.compact
    def __call__(self, x, index, label=None, train=False):
        return 0.1 * x * jnp.sin(index)[:, None, None, None]


def run(num_steps: int = 12) -> Run:
    process = gaussian.process(schedules.linear(num_steps, 0.01, 0.4))
    experiment = Experiment(
        data=Data("none", (2, 2, 1), open=lambda split: []),
        process=process,
        parameterization=parameterizations.eps(process),
        network=Linear(),
        optimizer=optax.sgd(0.1),
        batch_size=4,
        num_steps=1,
        ema_decay=0.9,
    )
    return Run(experiment, {}, 0)


def images(count: int) -> list[dict[str, np.ndarray]]:
    return [{"image": np.full((2, 2, 1), 40 * (i % 6), np.uint8)} for i in range(count)]


@pytest.mark.parametrize("times", [1, 3, 11])
def test_some_of_the_times_estimate_all_of_them(times):
    whole = bits_per_dim(run(), images(3000), batch_size=3000)
    some = bits_per_dim(run(), images(3000), times=times, batch_size=3000, seed=1)
    error = np.hypot(whole.chain[1], some.chain[1])
    assert error < 0.1 * whole.chain[0]
    assert abs(some.chain[0] - whole.chain[0]) < 3 * error
    assert some.rate is None and whole.rate.shape == (12,)


def test_clipping_can_be_left_out():
    """A predictor that is wrong estimates x_0 far outside the data, where holding it inside helps."""
    plain = run()
    parameterization = plain.experiment.parameterization
    clipped = dataclasses.replace(
        plain.experiment, parameterization=parameterizations.clipped(plain.experiment.process, parameterization)
    )
    with_clip, without = (
        bits_per_dim(each, images(20)).total[0] for each in (Run(clipped, {}, 0), unclipped(Run(clipped, {}, 0)))
    )
    assert with_clip < without
    assert without == pytest.approx(bits_per_dim(plain, images(20)).total[0])


def test_what_was_clipped_is_kept_with_the_measurement(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    assert main(["evaluate", str(run), "--num", "4", "--times", "3", "--no-clip"]) == 0
    assert json.loads((run / "evaluation.json").read_text())[-1]["protocol"]["clip"] is False


def test_the_last_batch_may_be_smaller():
    whole, parts = (bits_per_dim(run(), images(10), batch_size=size) for size in (10, 4))
    np.testing.assert_allclose(whole.total, parts.total, rtol=1e-5)
    np.testing.assert_allclose(whole.distortion, parts.distortion, rtol=1e-5)


@pytest.mark.parametrize("devices", [2, 8])
def test_the_bound_is_the_same_on_any_number_of_devices(monkeypatch, devices):
    measured = []
    for count in (1, devices):
        monkeypatch.setattr(chunks, "devices_for", lambda *_, count=count: count)
        measured.append(bits_per_dim(run(), images(11), times=5, batch_size=2))
    np.testing.assert_equal(measured[0]._asdict(), measured[1]._asdict())


def test_an_interrupted_measurement_goes_on_where_it_stood(tmp_path):
    """The figures are the same, and no example is evaluated twice."""

    class Interrupted(Reporter):
        """Ctrl-C at the third round."""

        def track(self, items, unit, total=None):
            for number, first in enumerate(items):
                if number == 2:
                    raise KeyboardInterrupt
                yield first

    class Seen(Reporter):
        def track(self, items, unit, total=None):
            seen.extend(items)
            return iter(items)

    seen, options = [], {"batch_size": 1, "keep": tmp_path / "part"}
    with pytest.raises(KeyboardInterrupt):
        bits_per_dim(run(), images(20), reporter=Interrupted(), **options)
    rest = bits_per_dim(run(), images(20), reporter=Seen(), **options)
    whole = bits_per_dim(run(), images(20), batch_size=1)
    assert seen == [[16, 17, 18, 19]]  # two rounds of eight devices are kept
    np.testing.assert_equal(rest._asdict(), whole._asdict())


def test_damaged_results_are_computed_again(tmp_path):
    whole = bits_per_dim(run(), images(4), batch_size=1, keep=tmp_path / "part")
    cut, garbled, *_ = sorted((tmp_path / "part").iterdir())
    cut.write_bytes(cut.read_bytes()[:-30])
    content = bytearray(garbled.read_bytes())
    content[200] ^= 1
    garbled.write_bytes(content)
    np.testing.assert_equal(bits_per_dim(run(), images(4), batch_size=1, keep=tmp_path / "part").total, whole.total)


def test_a_finished_measurement_leaves_nothing_unfinished(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    assert main(["evaluate", str(run), "--num", "8"]) == 0
    assert not list(run.glob("evaluation_*"))
    printed = json.loads((run / "evaluation.json").read_text())
    assert printed[-1]["weights"] == "ema"
    assert main(["evaluate", str(run), "--times", "1000"]) == 2
    assert main(["evaluate", str(run), "--metrics", "memorisation", "--split", "train"]) == 2
    assert not list(run.glob("evaluation_*"))


def test_the_parzen_window_of_a_run_s_own_samples(finished, tmp_path, capsys):
    run = shutil.copytree(finished, tmp_path / "run")
    before = json.loads((run / "evaluation.json").read_text())
    assert main(["evaluate", str(run), "--metrics", "parzen", "--samples", "32", "--num", "20"]) == 0
    assert "32 samples, 20 examples" in capsys.readouterr().out
    (*others, measured) = json.loads((run / "evaluation.json").read_text())
    assert others == before and "bpd" not in measured
    assert main(["sample", str(run), "--num", "32", "--out", str(tmp_path / "x.npz")]) == 0
    drawn = np.load(tmp_path / "x.npz")["arr_0"].reshape(32, 64) / 255
    train, test = (load(digits().open(split))["image"].reshape(-1, 64) / 16 for split in ("train", "test"))
    expected = parzen(*(jnp.asarray(each, jnp.float32) for each in (drawn, train[:1000], test[:20])))
    # the test images are shown as bytes there, rounded
    np.testing.assert_allclose(measured["parzen"]["nats"], expected[:2], rtol=0.02)
    assert measured["parzen"]["width"] == pytest.approx(expected[2])
    assert main(["evaluate", str(run), "--metrics", "parzen", "--samples", "32", "--num", "1"]) == 0
    assert json.loads((run / "evaluation.json").read_text())[-1]["parzen"]["nats"][1] is None


def test_the_samples_of_a_parzen_window_can_have_another_sampler(finished, tmp_path, capsys):
    """They are those that `sample` draws; the record has their options, and other metrics refuse them."""
    run = shutil.copytree(finished, tmp_path / "run")
    options = ["--sampler", "dpm++2m", "--steps", "5", "--spacing", "logsnr"]
    assert main(["evaluate", str(run), "--metrics", "parzen", "--samples", "32", "--num", "20", *options]) == 0
    assert "32 samples, sampler dpm++2m, steps 5, spacing logsnr, 20 examples" in capsys.readouterr().out
    measured = json.loads((run / "evaluation.json").read_text())[-1]
    assert measured["parzen"]["steps"] == 5
    assert main(["sample", str(run), "--num", "32", "--out", str(tmp_path / "x.npz"), *options]) == 0
    drawn = np.load(tmp_path / "x.npz")["arr_0"].reshape(32, 64) / 255
    train, test = (load(digits().open(split))["image"].reshape(-1, 64) / 16 for split in ("train", "test"))
    expected = parzen(*(jnp.asarray(each, jnp.float32) for each in (drawn, train[:1000], test[:20])))
    np.testing.assert_allclose(measured["parzen"]["nats"], expected[:2], rtol=0.02)
    assert "--sampler applies to --metrics parzen, fid, sfid, kid, pr, prdc, is, authenticity, not to bpd" in fails(
        capsys, "evaluate", str(run), "--metrics", "bpd", "--sampler", "ddim"
    )


def test_the_coding_table_has_ten_rows_and_the_papers_order():
    rate, distortion = np.linspace(0, 2, 1000), np.linspace(70, 1, 1000)
    rows = [line.split() for line in coding_table(rate, distortion).split("\n")[1:]]
    assert [row[0] for row in rows] == [str(n) for n in range(1000, 0, -100)]
    assert rows[0] == ["1000", "2.00000", "1.00000"]


def test_a_single_step_has_no_chain():
    """T = 1: the bound is its prior and its decoder."""
    measured = bits_per_dim(run(1), images(6))
    assert measured.chain[0] == 0 and np.isfinite(measured.total[0])
    assert measured.rate.shape == measured.distortion.shape == (1,)


def test_as_many_times_as_there_are_terms():
    with pytest.raises(ValueError, match="--times must be between 1 and 11, got 12"):
        bits_per_dim(run(), images(2), times=12)


def test_a_measurement_made_again_takes_the_place_of_the_first(tmp_path):
    for step, seed, value in ((1, 0, "a"), (1, 1, "b"), (1, 0, "c"), (2, 0, "d")):
        add_record(tmp_path / "evaluation.json", {"step": step, "protocol": {"seed": seed}, "bpd": value})
    assert [row["bpd"] for row in json.loads((tmp_path / "evaluation.json").read_text())] == ["c", "b", "d"]
