"""``scheduler_config.json`` of diffusers, and the process and reading of the network that it means."""

from typing import Any

from ddpm_jax.interop import configs
from ddpm_jax.interop.configs import NAME, POSITIVE, Kind

SAMPLERS = {"DDPMScheduler": "ancestral", "DDIMScheduler": "ddim"}
"""Their classes, and our samplers."""
ENTRIES: dict[str, tuple[Any, Kind]] = {
    "num_train_timesteps": (1000, configs.COUNT),
    "beta_start": (1e-4, POSITIVE),
    "beta_end": (0.02, POSITIVE),
    "beta_schedule": ("linear", NAME),
    "trained_betas": (None, configs.BETAS),
    "variance_type": ("fixed_small", NAME),
    "clip_sample": (True, configs.TRUTH),
    "clip_sample_range": (1.0, POSITIVE),
    "prediction_type": ("epsilon", NAME),
}
"""What the scheduler takes where its config is silent, and what each entry should be."""
FIXED: dict[str, tuple[Any, ...]] = {
    "thresholding": (False,),
    "rescale_betas_zero_snr": (False,),
    "set_alpha_to_one": (True,),
    "timestep_values": (None,),
}
IGNORED = {"dynamic_thresholding_ratio", "sample_max_value", "timestep_spacing", "steps_offset", "tensor_format"}
"""How some of the steps are chosen, which is told to our samplers when they are called; and what FIXED makes idle."""

SCHEDULES = {"linear": "linear", "scaled_linear": "quadratic", "squaredcos_cap_v2": "cosine", "sigmoid": "sigmoid"}
"""Their names of schedules, and ours."""
PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
VARIANCES = {"fixed_small": "fixed_small", "fixed_small_log": "fixed_small", "fixed_large": "fixed_large"}


def to_knobs(config: dict[str, Any]) -> dict[str, Any]:
    """timesteps, schedule, beta_1, beta_T, betas, prediction, variance, sampler and clip (None: x_0 is not clipped).

    Raises ValueError naming the first entry that cannot be followed.
    """
    name, config = "scheduler_config.json", _in_todays_words(config)
    kind = config.get("_class_name", "DDPMScheduler")
    if kind not in SAMPLERS:
        raise ValueError(f"{name}: {kind} is not supported; save the model with its DDPMScheduler")
    configs.check_known(name, config, {*ENTRIES, *FIXED, *IGNORED})
    configs.check_fixed(name, config, FIXED)
    told = configs.read(name, config, ENTRIES)
    choices = {"beta_schedule": SCHEDULES, "variance_type": VARIANCES, "prediction_type": PREDICTIONS}
    configs.check_fixed(name, told, {key: tuple(values) for key, values in choices.items()})
    betas = told["trained_betas"]
    return {
        "timesteps": told["num_train_timesteps"] if betas is None else len(betas),
        "schedule": SCHEDULES[told["beta_schedule"]] if betas is None else "betas",
        "beta_1": float(told["beta_start"]),
        "beta_T": float(told["beta_end"]),
        "betas": betas,
        "prediction": PREDICTIONS[told["prediction_type"]],
        "variance": VARIANCES[told["variance_type"]],
        "sampler": SAMPLERS[kind],
        "clip": float(told["clip_sample_range"]) if told["clip_sample"] else None,
    }


def _in_todays_words(config: dict[str, Any]) -> dict[str, Any]:
    """With the entries of 2022 under the names they have now."""
    config = dict(config)
    if "clip_predicted_image" in config:
        config["clip_sample"] = config.pop("clip_predicted_image")
    if (predicts_eps := config.pop("predict_epsilon", None)) is not None:
        config.setdefault("prediction_type", "epsilon" if predicts_eps else "sample")
    return config


def to_config(knobs: dict[str, Any]) -> dict[str, Any]:
    """The config of the scheduler that has the knobs which `to_knobs` gives."""
    ours_to_theirs = {ours: theirs for theirs, ours in SCHEDULES.items()}
    return {
        "_class_name": {ours: theirs for theirs, ours in SAMPLERS.items()}[knobs["sampler"]],
        "num_train_timesteps": knobs["timesteps"],
        "beta_start": knobs["beta_1"],
        "beta_end": knobs["beta_T"],
        "beta_schedule": ours_to_theirs.get(knobs["schedule"], "linear"),
        "trained_betas": None if knobs["betas"] is None else list(knobs["betas"]),
        **({"variance_type": knobs["variance"]} if knobs["sampler"] == "ancestral" else {}),
        "clip_sample": knobs["clip"] is not None,
        "clip_sample_range": 1.0 if knobs["clip"] is None else knobs["clip"],
        "prediction_type": {ours: theirs for theirs, ours in PREDICTIONS.items()}[knobs["prediction"]],
        "thresholding": False,
    }
