"""Digests of what a run's Python objects compute. Their names do not show `optax.sgd(0.1)` from `optax.sgd(0.2)`."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from resjax.experiment import Experiment
from resjax.training.own import model_for, optimizer_for
from resjax.training.user_code import digest_of


def programs_of(experiment: Experiment, image: tuple[int, ...], classes: int) -> dict[str, str]:
    """Return digests of what the Python objects of a run compute for images `[height, width, channels]`, by part.

    Each name contains JAX's version, because another version may trace another program. Runs that differ only in their
    seeds have the same digests.
    """
    run, key = replace(experiment, seed=0), jax.random.key(0)
    images = jax.ShapeDtypeStruct((run.batch_size, *image), jnp.float32)
    logits = jax.ShapeDtypeStruct((run.batch_size, classes), jnp.float32)
    labels: Any = jax.ShapeDtypeStruct((run.batch_size,), jnp.int32)
    model, optimizer, own = model_for(run, classes), optimizer_for(run), run.own

    def initialize_and_apply(key: jax.Array, images: jax.Array) -> Any:
        variables = model.init(key, images[:1])
        return model.apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key})

    def initialize_and_update(params: Any) -> Any:
        number = jnp.float32(0)
        return optimizer.update(params, optimizer.init(params), params, value=number, error=number)

    digests = {}
    if own.model is not None:
        digests["model"] = digest_of(jax.make_jaxpr(initialize_and_apply)(key, images))
    if own.optimizer is not None:
        params = jax.eval_shape(model.init, key, jax.ShapeDtypeStruct((1, *image), jnp.float32))["params"]
        digests["optimizer"] = digest_of(jax.make_jaxpr(initialize_and_update)(params))
    if own.augment is not None:
        digests["augment"] = digest_of(jax.make_jaxpr(own.augment)(key, images, labels))
        labels = jax.eval_shape(own.augment, key, images, labels)[1]
    if own.loss is not None:
        digests["loss"] = digest_of(jax.make_jaxpr(own.loss)(logits, labels))
    return {f"{part} (jax {jax.__version__})": digest for part, digest in digests.items()}
