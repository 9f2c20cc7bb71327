"""``scheduler_config.json`` of diffusers, and the process and reading of the network that it means."""

from typing import Any

from ddpm_jax.interop.configs import check_fixed, check_known, read

CLASSES = ("DDPMScheduler", "DDIMScheduler")
DEFAULTS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "variance_type": "fixed_small",
    "clip_sample": True,
    "clip_sample_range": 1.0,
    "prediction_type": "epsilon",
}
"""What the scheduler takes where its config is silent."""
FIXED: dict[str, tuple[Any, ...]] = {
    "thresholding": (False,),
    "rescale_betas_zero_snr": (False,),
    "set_alpha_to_one": (True,),
}
IGNORED = {"dynamic_thresholding_ratio", "sample_max_value", "timestep_spacing", "steps_offset", "tensor_format"}
"""How some of the steps are chosen, which is told to our samplers when they are called; and what FIXED makes idle."""

SCHEDULES = {"linear": "linear", "scaled_linear": "quadratic", "squaredcos_cap_v2": "cosine", "sigmoid": "sigmoid"}
"""Their names of schedules, and ours."""
PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
VARIANCES = {"fixed_small": "fixed_small", "fixed_small_log": "fixed_small", "fixed_large": "fixed_large"}


def to_knobs(config: dict[str, Any]) -> dict[str, Any]:
    """timesteps, schedule, beta_1, beta_T, betas, prediction, variance and clip (None: x_0 is not clipped).

    Raises ValueError naming the first entry that cannot be followed.
    """
    name = "scheduler_config.json"
    if config.get("_class_name", CLASSES[0]) not in CLASSES:
        raise ValueError(f"{name}: {config['_class_name']} is not supported; save the model with its DDPMScheduler")
    check_known(name, config, {*DEFAULTS, *FIXED, *IGNORED})
    check_fixed(name, config, FIXED)
    told = read(config, DEFAULTS)
    choices = {"beta_schedule": SCHEDULES, "variance_type": VARIANCES, "prediction_type": PREDICTIONS}
    check_fixed(name, told, {key: tuple(values) for key, values in choices.items()})
    betas = told["trained_betas"]
    return {
        "timesteps": told["num_train_timesteps"] if betas is None else len(betas),
        "schedule": SCHEDULES[told["beta_schedule"]] if betas is None else "betas",
        "beta_1": float(told["beta_start"]),
        "beta_T": float(told["beta_end"]),
        "betas": betas,
        "prediction": PREDICTIONS[told["prediction_type"]],
        "variance": VARIANCES[told["variance_type"]],
        "clip": float(told["clip_sample_range"]) if told["clip_sample"] else None,
    }


def to_config(knobs: dict[str, Any]) -> dict[str, Any]:
    """The config of a DDPMScheduler, of the knobs that `to_knobs` gives."""
    ours_to_theirs = {ours: theirs for theirs, ours in SCHEDULES.items()}
    return {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": knobs["timesteps"],
        "beta_start": knobs["beta_1"],
        "beta_end": knobs["beta_T"],
        "beta_schedule": ours_to_theirs.get(knobs["schedule"], "linear"),
        "trained_betas": None if knobs["betas"] is None else list(knobs["betas"]),
        "variance_type": knobs["variance"],
        "clip_sample": knobs["clip"] is not None,
        "clip_sample_range": 1.0 if knobs["clip"] is None else knobs["clip"],
        "prediction_type": {ours: theirs for theirs, ours in PREDICTIONS.items()}[knobs["prediction"]],
        "thresholding": False,
    }
