"""Files of improved-diffusion and guided-diffusion without torch: against stored outputs, and by laws."""

import json
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from interop.models import check_golden
from interop.openai_models import MODELS, SIZE, inputs, tensors_of, write
from PIL import Image

import ddpm_jax
from ddpm_jax.commands import main
from ddpm_jax.diffusion import losses
from ddpm_jax.interop import openai
from ddpm_jax.runs import experiment_files
from ddpm_jax.runs.convert import from_openai
from ddpm_jax.runs.requests import ConvertRequest


@pytest.fixture(scope="module")
def run_of(tmp_path_factory) -> Callable[[str], ddpm_jax.Run]:
    """The converted run of a model."""

    @cache
    def load(name: str) -> ddpm_jax.Run:
        folder = tmp_path_factory.mktemp(name)
        assert main(["convert", str(write(folder, name)), str(folder / "run"), *MODELS[name].flags]) == 0
        return ddpm_jax.load(folder / "run")

    return load


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_outputs_and_gradients_are_theirs(name, run_of):
    check_golden(run_of(name), inputs(name), f"openai_{name}.npz")


def test_the_shapes_determine_the_network():
    fields = openai.fields(tensors_of("guided"), SIZE)
    expected = {"width": 64, "multipliers": (0.5, 1.0), "num_blocks": 1, "attention": (8,), "num_classes": 5}
    expected |= {"out_channels": 6, "scale_shift": True, "residual_resampling": True, "image_shape": (8, 8, 3)}
    assert {name: fields[name] for name in expected} == expected
    fields = openai.fields(tensors_of("improved"), 32)
    expected = {"width": 32, "multipliers": (1.0, 2.0), "num_blocks": 2, "attention": (16,), "num_classes": None}
    assert {name: fields[name] for name in expected} == expected and not fields["residual_resampling"]
    fields = openai.fields(tensors_of("plain"), 8)
    assert (fields["out_channels"], fields["scale_shift"], fields["num_blocks"]) == (3, False, 1)


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_the_two_orders_of_query_key_and_value_hold_the_same_numbers(heads):
    """With one head they are one order; a tensor that is written in an order is read again in it."""
    parts = np.random.default_rng(0).normal(size=(3, heads, 4, 12)).astype(np.float32)  # q, k and v of each head
    orders = {"new": parts, "legacy": parts.swapaxes(0, 1)}
    for order, tensor in orders.items():
        found = openai.split("norm.qkv.weight", tensor.reshape(12 * heads, 12, 1), heads, order)
        for n, name in enumerate(("query", "key", "value")):
            np.testing.assert_array_equal(found[f"norm.{name}.weight"], parts[n].reshape(4 * heads, 12))


def test_the_process_is_that_of_their_flags(run_of):
    """Cosine, or the linear betas times 1000 / T; the index times 1000 / T if rescaled; a variance that is learned."""
    experiment = run_of("improved").experiment
    assert experiment.process.schedule.name == "cosine" and experiment.network.time_scale == 0.25
    assert experiment.parameterization.learned == "learned_range" and experiment.loss is losses.hybrid
    assert experiment.parameterization.clip == (-1.0, 1.0)


@pytest.mark.slow
def test_a_converted_file_is_sampled_and_measured(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(3):
        Image.new("RGB", (SIZE, SIZE), (40 * number, 100, 200)).save(pictures / f"{number}.png")
    own = ["--folder-of-images", str(pictures), "--test-percent", "100"]
    assert main(["convert", str(write(tmp_path)), str(tmp_path / "run"), *MODELS["plain"].flags, *own]) == 0
    out = tmp_path / "two.npz"
    assert main(["sample", str(tmp_path / "run"), "--num", "2", "--steps", "3", "--out", str(out)]) == 0
    assert np.load(out)["arr_0"].shape == (2, SIZE, SIZE, 3)
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())[0]["weights"] == "ema"


def test_no_label_adds_nothing(run_of):
    label = run_of("guided").params["time"]["label"]["embedding"]
    assert label.shape[0] == 6 and not label[5].any() and label[4].any()


FLAGS = MODELS["plain"].flags
QUESTIONS = [
    ([], "pass --image-size, --timesteps, --schedule, --heads or --head-dim"),
    (FLAGS[:2], "pass --timesteps, --schedule, --heads or --head-dim"),
    (FLAGS[:-2], "pass --rescale-timesteps"),
    ([*FLAGS, "--head-dim", "8"], "--heads and --head-dim exclude each other"),
    ([*FLAGS, "--weights", "raw"], "records that it holds the ema weights"),
    ([*FLAGS[:-4], "--heads", "0"], "pass --rescale-timesteps"),
    ([*FLAGS, "--heads", "0"], "--heads must be at least 1, got 0"),
    ([*FLAGS, "--heads", "5"], "do not divide into heads=5"),
]


@pytest.mark.parametrize("options, message", QUESTIONS, ids=[message for _, message in QUESTIONS])
def test_what_the_file_does_not_record_is_asked_for(options, message, tmp_path, capsys):
    assert main(["convert", str(write(tmp_path)), str(tmp_path / "run"), *options]) == 2
    line = capsys.readouterr().err
    assert message in line and line.count("\n") == 1 and not (tmp_path / "run").exists()


MISTAKES = {
    "missing tensor time_embed.0.weight: this is no U-Net": {"time_embed.0.weight": None},
    "missing tensor out.0.bias": {"out.0.bias": None},
    "unexpected tensor extra": {"extra": np.zeros(3, np.float32)},
    "5 input and 3 output channels": {"input_blocks.0.0.weight": np.zeros((32, 5, 3, 3), np.float32)},
    "the tensor out.2.bias of shape (2,)": {"out.2.bias": np.zeros(2, np.float32)},
    "out.0.bias has values that are not finite": {"out.0.bias": np.full(32, np.nan, np.float32)},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_file_of_another_network_gets_one_line_and_leaves_nothing(message, tmp_path, capsys):
    file = write(tmp_path, "plain", **MISTAKES[message])
    assert main(["convert", str(file), str(tmp_path / "run"), *FLAGS]) == 2
    line = capsys.readouterr().err
    assert message in line and line.count("\n") == 1 and not (tmp_path / "run").exists()


def test_published_files_are_known_by_their_names_and_options_replace_what_is_known(tmp_path):
    known = {name: openai.released(tmp_path / f"{name}.pt") for name in openai.RELEASED}
    assert all({"image_size", "timesteps", "schedule", "rescale_timesteps"} <= each.keys() for each in known.values())
    assert all(("heads" in each) != ("head_dim" in each) for each in known.values())
    assert openai.released(tmp_path / "model500000.pt") == {}
    source = write(tmp_path).rename(tmp_path / "cifar10_uncond_50M_500K.safetensors")
    common = {"source": source, "target": tmp_path / "run", "weights": "ema"}
    from_openai(ConvertRequest(**common, head_dim=16, timesteps=100))
    knobs = ddpm_jax.load(tmp_path / "run").experiment
    assert knobs.network.head_dim == 16 and knobs.process.schedule.num_steps == 100
    assert knobs.data.image_shape == (32, 32, 3) and knobs.network.time_scale == 10


@pytest.mark.parametrize("name", ["ema_0.9999_500000.pt", "model500000.pt", "cifar10_uncond_50M_500K.pt"])
def test_the_names_of_their_programs_state_the_weights(name, tmp_path):
    assert openai.weights_of(tmp_path / name) == {"e": "ema", "m": "raw", "c": None}[name[0]]


def test_the_experiment_of_converted_files_has_their_betas():
    made = experiment_files.read(experiment_files.find("imported"))(timesteps=4000, beta_1=0.1 / 4000, beta_T=20 / 4000)
    np.testing.assert_allclose(made.process.schedule.alpha_bar[-1], 4.246652275802249e-05, rtol=1e-5)
