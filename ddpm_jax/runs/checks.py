"""Checks of an experiment before anything is written: network, target and data must fit together."""

import jax
import jax.numpy as jnp

from ddpm_jax.experiment import Experiment, network_fn, shapes, unpack


def check_network(experiment: Experiment) -> None:
    """Raises ValueError if network, target and data do not fit together. Evaluates shapes only."""
    classes, data = experiment.num_classes, experiment.data
    if classes is not None and data.num_classes != classes:
        raise ValueError(f"the network has {classes} classes, the data {data.name} {data.num_classes or 'no labels'}")
    x = jax.ShapeDtypeStruct((2, *data.image_shape), jnp.float32)
    t = jax.ShapeDtypeStruct((2,), jnp.int32)

    def outputs(params, x, t):
        made, weights = unpack(experiment, params)
        output = network_fn(made, weights)(x, t, None if classes is None else t)
        return output, made.parameterization.error(output, x, x, t), made.parameterization.x_0(output, x, t)

    try:
        output, *targets = jax.eval_shape(outputs, shapes(experiment), x, t)
        fits = all(target.shape == x.shape for target in targets)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the network's output does not fit the data, of shape {data.image_shape}: {error}") from None
    if not fits:
        raise ValueError(
            f"the network's output has shape {output.shape[1:]}, the data {data.image_shape}: choose the "
            "network's out_channels to fit"
        )
