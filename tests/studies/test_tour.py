"""The tour: the models and chains that its pictures are computed from, and the page that contains them."""

from html.parser import HTMLParser

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from recorder import Recorder

from ddpm_jax.commands import main
from ddpm_jax.diffusion import gaussian, samplers, schedules
from ddpm_jax.studies.requests import TourRequest
from ddpm_jax.studies.tour.forward import T, bit_matrix, states
from ddpm_jax.studies.tour.page import LESSONS, tour
from ddpm_jax.studies.tour.subject import optimal_network, subject_of
from ddpm_jax.training.keys import keys

PROCESS = gaussian.process(schedules.linear(T))


def test_the_optimal_network_weighs_its_examples_by_bayes_rule():
    x_0 = jnp.array([[-1.0, 0.5], [0.3, 0.2], [1.0, -0.4]])
    x_t = jnp.array([[0.1, 0.1], [-2.0, 1.0]])
    network = optimal_network(PROCESS, x_0)
    for t in (1, 300, T):
        joint = jnp.stack([PROCESS.marginal(jnp.broadcast_to(x, x_t.shape), t).log_prob(x_t).sum(axis=1) for x in x_0])
        expected = jax.nn.softmax(joint, axis=0).T @ x_0
        np.testing.assert_allclose(network(x_t, t, None), expected, atol=1e-3)
    np.testing.assert_allclose(network(x_0, 1, None), x_0, atol=1e-6)
    np.testing.assert_allclose(network(x_t, T, None), jnp.broadcast_to(x_0.mean(axis=0), (2, 2)), atol=2e-2)


@pytest.mark.parametrize("shrink", [True, False])
def test_the_factor_keeps_the_variance_and_without_it_betas_add_up(shrink):
    x_0 = jax.random.normal(jax.random.key(0), (500, 20))
    times = [100, 400, T]
    betas = np.linspace(1e-4, 0.02, T)
    for t, x_t in zip(times, states(PROCESS, x_0, times, seed=1, shrink=shrink), strict=True):
        expected = 1.0 if shrink else 1 + betas[:t].sum()
        np.testing.assert_allclose(jnp.square(x_t).mean(), expected, rtol=0.05)


def test_a_chain_is_the_same_at_whichever_times_it_is_shown():
    x_0 = jax.random.normal(jax.random.key(0), (3, 5))
    *_, often = states(PROCESS, x_0, [0, 7, 100, 250], seed=1)
    [once] = states(PROCESS, x_0, [250], seed=1)
    np.testing.assert_array_equal(often, once)


def test_the_matrix_of_several_steps_is_a_power_of_that_of_one():
    schedule = schedules.constant(40, 0.15)
    for t in (2, 5, 40):
        power = np.linalg.matrix_power(bit_matrix(schedule, 1, 0.25).astype(float), t)
        rounding = t * np.finfo(np.float32).eps  # of the matrix of one step, which its power multiplies by t
        np.testing.assert_allclose(bit_matrix(schedule, t, 0.25), power, rtol=rounding)
    np.testing.assert_allclose([0.75, 0.25] @ bit_matrix(schedule, 1, 0.25), [0.75, 0.25], atol=1e-6)


class Page(HTMLParser):
    """The pictures of a page; fails where a tag is closed that is not the last one opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.pictures, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.pictures.append(dict(attrs)["src"])
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.mark.slow  # draws all nine pictures
def test_a_tour_of_a_run_is_one_page_that_contains_its_pictures(finished, tmp_path, capsys):
    out, recorder = tmp_path / "tour", Recorder()
    assert str(out / "index.html") in tour(TourRequest(str(finished), out), recorder)
    assert len(recorder.items) == len(LESSONS) and capsys.readouterr().out == ""
    page = Page()
    page.feed((out / "index.html").read_text(encoding="utf-8"))
    assert not page.open and "$" not in page.text
    assert str(finished) in page.text
    pictures = sorted(out.glob("*.png"))
    assert len(page.pictures) == len(pictures) == 9
    assert all(source.startswith("data:image/png;base64,") for source in page.pictures)
    for path in pictures:
        assert np.asarray(Image.open(path).convert("L")).std() > 5, path
    assert main(["tour", str(finished), "--out", str(out)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    (out / "notes.txt").write_text("mine")
    assert main(["tour", str(finished), "--out", str(out), "--overwrite"]) == 2
    assert (out / "notes.txt").read_text() == "mine"


def test_the_model_of_a_data_set_reproduces_its_training_images():
    subject = subject_of("digits", optimal=True)
    assert len(subject.train) == 1437 and "optimal model of 1437 training images" in subject.description
    x_T = jax.random.normal(jax.random.key(0), (4, 8, 8, 1))
    x_0 = samplers.sample(keys(0, 4), subject.sampler, x_T, samplers.times(1000, 50))
    nearest = jnp.square(x_0[:, None] - subject.train[None]).mean(axis=(2, 3, 4)).min(axis=1)
    np.testing.assert_allclose(nearest, 0, atol=1e-3)


def test_a_model_that_comes_with_the_library_is_shown_by_its_name():
    assert "the network of the run <code>digits</code> after 2000" in subject_of("digits").description


def test_mistakes_are_refused_before_anything_is_lost(tmp_path, capsys):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "index.html").write_text("mine")
    for arguments, message in (
        (["digit"], "neither the folder of a run nor one of digits"),
        (["letters", "--optimal"], "--optimal: letters is not one of digits"),
        ([str(tmp_path)], "is not a workdir"),
        (["--out", str(tmp_path / "letters"), "--overwrite"], "exists"),
    ):
        assert main(["tour", *arguments]) == 2
        assert message in capsys.readouterr().err
    assert (tmp_path / "letters" / "index.html").read_text() == "mine"
