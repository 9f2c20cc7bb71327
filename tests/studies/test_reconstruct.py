"""The error of reconstruction: data whose error is known, its order in the steps, and what the command writes."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from mistakes import fails
from studies.models import Shrinking, pulses_run, run_of, shrinking_run

from ddpm_jax.commands import main
from ddpm_jax.data import digits
from ddpm_jax.diffusion import gaussian, parameterizations, schedules
from ddpm_jax.studies.reconstruct import PAPER, Point, reconstruct, table

PROCESS = gaussian.process(schedules.linear(1000), gaussian.discretized(17))


class Constant(nn.Module):
    """The estimate of x_0 for data of one grey, 0.5."""

    @nn.compact
    def __call__(self, x, index, label=None, train=False):
        return jnp.full_like(x, 0.5)


def test_a_network_of_one_grey_returns_that_grey():
    """So the error is the distance of the images from it, pixels of 0..1, whatever the number of steps."""
    run = run_of(digits(), PROCESS, parameterizations.x0(PROCESS), Constant())
    points = reconstruct(run, (3, 20), num=40)
    images = np.stack([run.experiment.data.open("test")[i]["image"] for i in range(40)]) / 16
    each = np.square(images - 0.75).mean(axis=(1, 2, 3))
    for point in points:
        np.testing.assert_allclose(point.error, (each.mean(), each.std(ddof=1) / np.sqrt(40)), rtol=1e-4)


def test_the_error_of_the_image_falls_with_the_number_of_steps_in_first_order():
    """DDIM is of first order: twice the steps, half the error, a quarter of its square."""
    network = Shrinking(tuple(map(float, PROCESS.schedule.alpha_bar)))
    run = run_of(digits(), PROCESS, parameterizations.eps(PROCESS), network)
    points = reconstruct(run, (2000, 400, 100, 200), num=4)
    assert [point.steps for point in points] == [100, 200, 400]  # more than T are left out
    errors = np.sqrt([point.error[0] for point in points])
    np.testing.assert_allclose(errors[:-1] / errors[1:], 2, rtol=0.05)


def test_a_number_of_steps_has_the_same_error_alone_and_among_others():
    run = shrinking_run()
    among = {point.steps: point.error for point in reconstruct(run, (2, 5, 16), "quadratic", num=5)}
    [alone] = reconstruct(run, (5,), "quadratic", num=5)
    np.testing.assert_allclose(alone.error, among[5], rtol=1e-4)


def test_the_images_of_a_conditional_run_are_encoded_with_their_labels():
    """Without labels this network cannot be called: it has no label dropout."""
    plain, classes = (reconstruct(shrinking_run(num_classes=n), (4,), num=20)[0].error[0] for n in (None, 10))
    assert plain != classes


def test_the_table_is_beside_that_of_the_paper():
    assert table([Point(10, (0.5, 0.1)), Point(30, (0.2, None))]).split("\n")[2:] == [
        f"| 10 | 0.5 | 0.1 | {PAPER[10]} |",
        "| 30 | 0.2 |  |  |",
    ]


def test_the_command_writes_a_chart_and_its_numbers(finished, tmp_path, capsys):
    out = tmp_path / "reconstruct.png"
    given = ("--steps", "2", "10", "99", "--num", "6", "--out", str(out))
    assert main(["study", "reconstruct", str(finished), *given]) == 0
    records = json.loads(out.with_suffix(".json").read_text())
    assert [each["steps"] for each in records] == [2, 10] and out.exists()
    assert "| 10 | " in capsys.readouterr().out
    out.unlink()
    assert "reconstruct.json exists" in fails(capsys, "study", "reconstruct", str(finished), "--out", str(out))
    assert "--steps 60: this run has 50 steps" in fails(capsys, "study", "reconstruct", str(finished), "--steps", "60")


def test_bits_have_none():
    with pytest.raises(ValueError, match="reconstruct needs a Gaussian process"):
        reconstruct(pulses_run(8), (2,))
