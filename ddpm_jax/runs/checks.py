"""Checks before anything is written: network, parameterization and data fit together; the data are those of the run."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.data import Data
from ddpm_jax.experiment import Experiment, network_fn, shapes, unpack


def check_network(experiment: Experiment) -> None:
    """Raises ValueError if network, parameterization and data do not fit together. Evaluates shapes only."""
    if experiment.is_classifier:
        return _check_classifier(experiment)
    classes, data = experiment.num_classes, experiment.data
    if classes is not None and data.num_classes != classes:
        raise ValueError(f"the network has {classes} classes, the data {data.name} {data.num_classes or 'no labels'}")
    expected = (2, *data.image_shape)
    # data of a single element, so that the error has the shape of the network's prediction, without broadcasting to x_0
    single = jnp.zeros((2, *(1 for _ in data.image_shape)))

    def predictions(params, x, t):
        made, weights = unpack(experiment, params)
        output = network_fn(made, weights)(x, t, None if classes is None else t)
        parameterization = made.parameterization
        return output, parameterization.error(output, single, single, t), parameterization.x_0(output, single, t)

    x, t = jax.ShapeDtypeStruct(expected, jnp.float32), jax.ShapeDtypeStruct((2,), jnp.int32)
    params = shapes(experiment)  # here, since a network that cannot be built has an error of its own
    try:
        output, *predicted = jax.eval_shape(predictions, params, x, t)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the network's output does not fit the data, of shape {data.image_shape}: {error}") from None
    if any(each.shape != expected for each in predicted):
        raise ValueError(
            f"the network's output has shape {output.shape[1:]}, which does not fit the data, of shape "
            f"{data.image_shape}: choose the network's out_channels to fit"
        )


def _check_classifier(experiment: Experiment) -> None:
    """Raises ValueError unless the network has one logit for each class of the data. Evaluates shapes only."""
    data = experiment.data
    if data.num_classes is None:
        raise ValueError(f"a classifier needs labels, and the data {data.name} have none")
    x, t = jax.ShapeDtypeStruct((2, *data.image_shape), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.int32)
    params = shapes(experiment)
    output = jax.eval_shape(lambda params, x, t: network_fn(experiment, params)(x, t, None), params, x, t)
    if output.shape != (2, data.num_classes):
        wanted = f"the data {data.name} have {data.num_classes} classes"
        raise ValueError(f"the classifier's output has shape {output.shape[1:]}, and {wanted}")


def data_identity(data: Data, split: str) -> dict[str, str]:
    """What identifies the examples of a split and their order: a "digest", and the line "found" that describes them.

    For data without a listing of files: the number of examples with the first, the middle and the last of them.
    """
    if data.listing is not None:
        listing = data.listing()
        return {"digest": listing.digest, "found": listing.report}
    source = data.open(split)
    digest = hashlib.sha256(f"{len(source)}".encode())
    for row in (0, len(source) // 2, len(source) - 1):
        for feature, value in sorted(source[row].items()):
            digest.update(feature.encode() + np.ascontiguousarray(value).tobytes())
    return {"digest": digest.hexdigest(), "found": f"{len(source):,} examples in the {split} split"}
