"""Live against torch and diffusers (pip install '.[parity]'): the same outputs, gradients and trajectories.

    python tests/interop/test_parity.py tests/interop/golden

writes what `test_interop.py` compares with where they are not installed.
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interop.models import CIFAR, SMALL, inputs, tensor

torch = pytest.importorskip("torch", reason="the extra [parity] is not installed")
diffusers = pytest.importorskip("diffusers", reason="the extra [parity] is not installed")

import ddpm_jax  # noqa: E402
from ddpm_jax.commands import main  # noqa: E402
from ddpm_jax.diffusion import samplers  # noqa: E402
from ddpm_jax.diffusion.distributions import fold  # noqa: E402
from ddpm_jax.experiment import network_fn  # noqa: E402
from ddpm_jax.interop import schedulers, tensors  # noqa: E402
from ddpm_jax.runs import experiment_files  # noqa: E402
from ddpm_jax.runs.convert import scheduler_knobs  # noqa: E402
from ddpm_jax.sampling import prior_sample  # noqa: E402

CASES = {
    "cifar10": CIFAR,
    "256": SMALL["256"] | {"sample_size": 256, "block_out_channels": [16, 16, 32, 32, 64, 64], "norm_num_groups": 8},
    "classes": SMALL["classes"],
    "grey": SMALL["grey"],
    "learned": SMALL["grey"] | {"out_channels": 2, "resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 4},
}


def model(config: dict[str, Any]):
    """In PyTorch, with the tensors of `models`."""
    made = diffusers.UNet2DModel(**config).eval()
    made.load_state_dict({name: torch.tensor(tensor(name, x.shape)) for name, x in made.state_dict().items()})
    return made


def theirs(made, x, index, label):
    """(output, gradient by the input, gradients by the tensors) of the mean square of the output; images as ours."""
    images = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    labels = {} if label is None else {"class_labels": torch.tensor(label)}
    output = made(images, torch.tensor(index), **labels).sample
    made.zero_grad()
    output.square().mean().backward()
    grads = {name: each.grad.numpy() for name, each in made.named_parameters()}
    as_ours = lambda each: each.detach().numpy().transpose(0, 2, 3, 1)  # noqa: E731
    return as_ours(output), as_ours(images.grad), grads


def error(ours, other) -> float:
    """The largest difference, relative to the largest value."""
    return float(np.abs(np.asarray(ours) - other).max() / np.abs(other).max())


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    """(config, PyTorch's model, our run of the converted folder)."""
    folder = tmp_path_factory.mktemp(request.param)
    made = model(CASES[request.param])
    pipeline(made).save_pretrained(folder / "theirs")
    assert main(["convert", str(folder / "theirs"), str(folder / "run"), "--weights", "raw"]) == 0
    return CASES[request.param], made, folder, ddpm_jax.load(folder / "run")


def _plain(value):
    return list(value) if isinstance(value, tuple) else value


def pipeline(made, **options):
    learned = made.config.out_channels > made.config.in_channels
    variance = "learned_range" if learned else "fixed_large"
    return diffusers.DDPMPipeline(made, diffusers.DDPMScheduler(variance_type=variance, **options))


def test_outputs_and_gradients(case):
    config, made, _, run = case
    x, index, label = inputs(config)
    output, by_input, by_tensors = theirs(made, x, index, label)
    condition = None if label is None else jnp.asarray(label)

    @jax.jit
    def ours(params, x):
        def mean_square(params, x):
            y = network_fn(run.experiment, params)(x, index + 1, condition)
            return jnp.square(y).mean(), y

        return jax.value_and_grad(mean_square, argnums=(0, 1), has_aux=True)(params, x)

    (_, y), (grads, by_x) = ours(run.params, x)
    named = tensors.from_params(grads, len(config["block_out_channels"]))
    if label is not None:  # the row that means "no label" is not among theirs
        named["class_embedding.weight"] = named["class_embedding.weight"][:-1]
    largest = max(np.abs(each).max() for each in by_tensors.values())
    worst = max(np.abs(named[name] - each).max() for name, each in by_tensors.items()) / largest
    print(f"\noutput {error(y, output):.1e}, gradient by input {error(by_x, by_input):.1e}, by tensors {worst:.1e}")
    assert named.keys() == by_tensors.keys()
    assert error(y, output) < 1e-4 and error(by_x, by_input) < 1e-4 and worst < 1e-4


def test_there_and_back(case):
    """diffusers loads a run that we wrote, and computes the same."""
    config, made, folder, run = case
    assert main(["convert", str(folder / "run"), str(folder / "back")]) == 0
    again = diffusers.DDPMPipeline.from_pretrained(folder / "back")
    x, index, label = inputs(config)
    output, _, _ = theirs(again.unet.eval(), x, index, label)
    y = jax.jit(network_fn(run.experiment, run.params))(x, index + 1, label)
    assert error(y, output) < 1e-4
    ours, scheduler = again.scheduler.config, pipeline(made).scheduler.config
    for key in ("beta_start", "beta_end", "beta_schedule", "variance_type", "clip_sample", "prediction_type"):
        assert ours[key] == scheduler[key], key
    ours, other = ({key: value for key, value in each.config.items() if key[0] != "_"} for each in (again.unet, made))
    differing = set() if label is None else {"num_class_embeds"}  # one more: "no label"
    assert {key for key in ours if _plain(ours[key]) != _plain(other[key])} == differing


SCHEDULERS = {
    "paper": {"variance_type": "fixed_large"},
    "small": {"variance_type": "fixed_small", "clip_sample": False},
    "v": {"prediction_type": "v_prediction", "beta_schedule": "squaredcos_cap_v2", "clip_sample_range": 0.7},
    "image": {"prediction_type": "sample", "beta_schedule": "scaled_linear"},
    "betas": {"trained_betas": np.linspace(1e-3, 0.3, 40).tolist(), "beta_schedule": "linear"},
    "sigmoid": {"beta_schedule": "sigmoid"},
    "learned": {"variance_type": "learned_range", "beta_schedule": "squaredcos_cap_v2"},
}


@pytest.fixture(scope="module", params=SCHEDULERS)
def walk(request, tmp_path_factory):
    """(a run of a grey model, the options of its scheduler, keys, x_T)."""
    folder, options = tmp_path_factory.mktemp(request.param), SCHEDULERS[request.param]
    options = options | {"num_train_timesteps": len(options.get("trained_betas", range(1000)))}
    made = model(CASES["learned"] if request.param == "learned" else SMALL["grey"])
    diffusers.DDPMPipeline(made, diffusers.DDPMScheduler(**options)).save_pretrained(folder / "theirs")
    assert main(["convert", str(folder / "theirs"), str(folder / "run"), "--weights", "ema"]) == 0
    run, keys = ddpm_jax.load(folder / "run"), ddpm_jax.keys(0, 2)
    return run, options, keys, prior_sample(run.experiment, keys)


def times_of(scheduler) -> np.ndarray:
    """The times of ten steps of their scheduler in our numbering: 1 .. T, and 0 for the data."""
    scheduler.set_timesteps(10)
    return np.append(scheduler.timesteps.numpy() + 1, 0).astype(np.int32)


@pytest.mark.parametrize("kind", ["DDPMScheduler", "DDIMScheduler"])
@pytest.mark.parametrize("count", [10, 50, 1000])
def test_their_scheduler_visits_our_times(kind, count):
    """That of an exported run, for counts that divide 1000."""
    made = experiment_files.read(experiment_files.find("imported"))
    config = schedulers.to_config(scheduler_knobs(made(sampler="ddim" if kind == "DDIMScheduler" else "ancestral")))
    scheduler = getattr(diffusers, kind).from_config(config)
    scheduler.set_timesteps(count)
    np.testing.assert_array_equal(np.append(scheduler.timesteps.numpy() + 1, 0), samplers.times(1000, count))


def noise(keys, number: int, shape):
    """The noise of our sampler in its step of this number, from 1, in PyTorch's layout of images."""
    drawn = jax.vmap(lambda key: jax.random.normal(key, shape[1:]))(fold(keys, number))
    return torch.tensor(np.asarray(drawn).transpose(0, 3, 1, 2))


def trajectory(run, scheduler, keys, x_T, step) -> tuple[np.ndarray, np.ndarray]:
    """The result of ten steps of their scheduler with our network."""
    network = jax.jit(network_fn(run.experiment, run.params))
    x = torch.tensor(np.asarray(x_T).transpose(0, 3, 1, 2))
    for number, t in enumerate(times_of(scheduler)[:-1].tolist(), start=1):
        output = network(x.numpy().transpose(0, 2, 3, 1), t, None)
        drawn = noise(keys, number, x_T.shape)
        x = step(torch.tensor(np.asarray(output).transpose(0, 3, 1, 2)), t - 1, x, drawn)
    return x.numpy().transpose(0, 2, 3, 1)


def test_ten_steps_of_ddpm(walk, monkeypatch):
    run, options, keys, x_T = walk
    scheduler = diffusers.DDPMScheduler(**options)

    def step(output, index, x, drawn):
        monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *args, **kwargs: drawn)
        return scheduler.step(output, index, x).prev_sample

    theirs = trajectory(run, scheduler, keys, x_T, step)
    experiment = run.experiment
    sampler = samplers.ddpm(experiment.process, experiment.parameterization, network_fn(experiment, run.params))
    ours = jax.jit(partial(samplers.sample, sampler=sampler))(keys, x_T=x_T, times=times_of(scheduler))
    assert error(ours, theirs) < 1e-4


@pytest.mark.parametrize("eta", [0.0, 0.6])
def test_ten_steps_of_ddim(walk, eta):
    run, options, keys, x_T = walk
    if options.get("variance_type") == "learned_range":
        pytest.skip("diffusers' DDIMScheduler does not split the output")
    options = {key: value for key, value in options.items() if key != "variance_type"}
    if options.get("beta_schedule") == "sigmoid":
        pytest.skip("diffusers' DDIMScheduler has no such schedule")
    scheduler = diffusers.DDIMScheduler(**options)

    def step(output, index, x, drawn):
        # they keep the noise that the unclipped estimate implies unless configured otherwise
        return scheduler.step(output, index, x, eta, use_clipped_model_output=True, variance_noise=drawn).prev_sample

    theirs = trajectory(run, scheduler, keys, x_T, step)
    experiment = run.experiment
    sampler = samplers.ddim(
        experiment.process, experiment.parameterization, network_fn(experiment, run.params), eta=eta
    )
    ours = jax.jit(partial(samplers.sample, sampler=sampler))(keys, x_T=x_T, times=times_of(scheduler))
    assert error(ours, theirs) < 1e-4


def write_golden(folder: Path) -> None:
    """Names and shapes, output and gradient by the input of each small model, made by diffusers."""
    folder.mkdir(exist_ok=True)
    for name, config in SMALL.items():
        made = model(config)
        output, by_input, _ = theirs(made, *inputs(config))
        shapes = {key: list(value.shape) for key, value in made.state_dict().items()}
        golden = {"diffusers": diffusers.__version__, "config": config, "shapes": shapes}
        (folder / f"{name}.json").write_text(json.dumps(golden) + "\n")
        np.savez_compressed(folder / f"{name}.npz", output=output, gradient=by_input)


if __name__ == "__main__":
    write_golden(Path(sys.argv[1]))
