"""Conversion between diffusers' ``scheduler_config.json`` and the knobs of a Gaussian process and its sampler."""

from typing import Any

from ddpm_jax.interop import configs
from ddpm_jax.interop.configs import NAME, POSITIVE, Kind

CONFIG = "scheduler_config.json"
SAMPLERS = {"DDPMScheduler": "ancestral", "DDIMScheduler": "ddim"}
"""Supported scheduler classes of diffusers, and the names of our samplers."""
ENTRIES: dict[str, tuple[Any, Kind]] = {
    "num_train_timesteps": (1000, configs.COUNT),
    "beta_start": (1e-4, POSITIVE),
    "beta_end": (0.02, POSITIVE),
    "beta_schedule": ("linear", NAME),
    "trained_betas": (None, configs.NUMBERS_OR_NONE),
    "variance_type": ("fixed_small", NAME),
    "clip_sample": (True, configs.BOOLEAN),
    "clip_sample_range": (1.0, POSITIVE),
    "prediction_type": ("epsilon", NAME),
}
"""The entries that are converted: diffusers' default, and what the value must be."""
FIXED: dict[str, tuple[Any, ...]] = {
    "thresholding": (False,),
    "rescale_betas_zero_snr": (False,),
    "set_alpha_to_one": (True,),
    "timestep_values": (None,),
}
"""Entries for which only these values are supported."""
TIMES = {"timestep_spacing", "steps_offset"}
"""Entries that choose the times of fewer than T steps. Our samplers take the times as an argument: see `ignored`."""
IGNORED = {"dynamic_thresholding_ratio", "sample_max_value", "tensor_format"}
"""Entries without effect, since they matter only with values that `FIXED` excludes."""
SPACING = "trailing"
"""diffusers' name of the spacing `samplers.even`, such as the indices 999, 979, .. 19 for 50 of 1000 steps."""

SCHEDULES = {"linear": "linear", "scaled_linear": "quadratic", "squaredcos_cap_v2": "cosine", "sigmoid": "sigmoid"}
"""diffusers' names of noise schedules, and ours."""
PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
"""diffusers' names of parameterizations, and ours."""
VARIANCES = {
    "fixed_small": "fixed_small",
    "fixed_small_log": "fixed_small",
    "fixed_large": "fixed_large",
    "learned_range": "learned_range",
}
"""diffusers' names of the variance of the reverse process, and ours."""


def to_knobs(config: dict[str, Any]) -> dict[str, Any]:
    """The knobs of ``experiments/imported.py`` that a scheduler config corresponds to.

    They are timesteps, schedule, beta_1, beta_T, betas (None unless the schedule is "betas"), prediction, variance,
    sampler, and clip (None where x_0 is not clipped). Raises ValueError naming the first entry that is not supported.
    """
    config = _with_current_names(config)
    scheduler = config.get("_class_name", "DDPMScheduler")
    if scheduler not in SAMPLERS:
        raise ValueError(f"{CONFIG}: {scheduler} is not supported: save the model with its DDPMScheduler")
    configs.check_known(CONFIG, config, {*ENTRIES, *FIXED, *IGNORED, *TIMES})
    configs.check_fixed(CONFIG, config, FIXED)
    values = configs.read(CONFIG, config, ENTRIES)
    choices = {"beta_schedule": SCHEDULES, "variance_type": VARIANCES, "prediction_type": PREDICTIONS}
    configs.check_fixed(CONFIG, values, {key: tuple(names) for key, names in choices.items()})
    betas = values["trained_betas"]
    return {
        "timesteps": values["num_train_timesteps"] if betas is None else len(betas),
        "schedule": SCHEDULES[values["beta_schedule"]] if betas is None else "betas",
        "beta_1": float(values["beta_start"]),
        "beta_T": float(values["beta_end"]),
        "betas": betas,
        "prediction": PREDICTIONS[values["prediction_type"]],
        "variance": VARIANCES[values["variance_type"]],
        "sampler": SAMPLERS[scheduler],
        "clip": float(values["clip_sample_range"]) if values["clip_sample"] else None,
    }


def ignored(config: dict[str, Any]) -> str:
    """The entries of a scheduler config that choose other times for fewer than T steps than ours; empty if none do.

    The default of diffusers is "leading", with the indices 980, 960, .. 0 for 50 of 1000 steps. steps_offset is added
    to these only.
    """
    spacing, offset = config.get("timestep_spacing", "leading"), config.get("steps_offset", 0)
    if spacing == SPACING:
        return ""
    return f"timestep_spacing {spacing}" + (f" with steps_offset {offset}" if offset and spacing == "leading" else "")


def _with_current_names(config: dict[str, Any]) -> dict[str, Any]:
    """The config with entries that were renamed since 2022 under their current names."""
    config = dict(config)
    if "clip_predicted_image" in config:
        config["clip_sample"] = config.pop("clip_predicted_image")
    if (predicts_eps := config.pop("predict_epsilon", None)) is not None:
        config.setdefault("prediction_type", "epsilon" if predicts_eps else "sample")
    return config


def to_config(knobs: dict[str, Any]) -> dict[str, Any]:
    """The scheduler config that corresponds to these knobs: the inverse of `to_knobs`."""
    schedules = {ours: theirs for theirs, ours in SCHEDULES.items()}
    return {
        "_class_name": {ours: theirs for theirs, ours in SAMPLERS.items()}[knobs["sampler"]],
        "num_train_timesteps": knobs["timesteps"],
        "beta_start": knobs["beta_1"],
        "beta_end": knobs["beta_T"],
        "beta_schedule": schedules.get(knobs["schedule"], "linear"),
        "trained_betas": None if knobs["betas"] is None else list(knobs["betas"]),
        **({"variance_type": knobs["variance"]} if knobs["sampler"] == "ancestral" else {}),
        "clip_sample": knobs["clip"] is not None,
        "clip_sample_range": 1.0 if knobs["clip"] is None else knobs["clip"],
        "prediction_type": {ours: theirs for theirs, ours in PREDICTIONS.items()}[knobs["prediction"]],
        "timestep_spacing": SPACING,
        "thresholding": False,
    }
