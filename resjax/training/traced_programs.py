"""Digests of what a run's Python objects compute. Their names do not show `optax.sgd(0.1)` from `optax.sgd(0.2)`."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resjax.experiment import Experiment
from resjax.training.own import model_for, optimizer_for


def programs_of(experiment: Experiment, image: tuple[int, ...], classes: int) -> dict[str, str]:
    """Return digests of what the Python objects of a run compute for images `[height, width, channels]`, by part.

    Each name contains JAX's version, because another version may trace another program. Runs that differ only in their
    seeds have the same digests.
    """
    run, key = replace(experiment, seed=0), jax.random.key(0)
    images = jax.ShapeDtypeStruct((run.batch_size, *image), jnp.float32)
    labels: Any = jax.ShapeDtypeStruct((run.batch_size,), jnp.int32)
    model, optimizer, own = model_for(run, classes), optimizer_for(run), run.own

    def initialize_and_apply(key: jax.Array, images: jax.Array) -> Any:
        variables = model.init(key, images[:1])
        return model.apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key})

    def initialize_and_update(params: Any) -> Any:
        return partial(optimizer.update, error=jnp.float32(0))(params, optimizer.init(params), params)

    digests = {}
    if own.model is not None:
        digests["model"] = digest_of(initialize_and_apply, key, images)
    if own.optimizer is not None:
        params = jax.eval_shape(model.init, key, jax.ShapeDtypeStruct((1, *image), jnp.float32))["params"]
        digests["optimizer"] = digest_of(initialize_and_update, params)
    if own.augment is not None:
        digests["augment"] = digest_of(own.augment, key, images, labels)
        labels = jax.eval_shape(own.augment, key, images, labels)[1]
    if own.loss is not None:
        digests["loss"] = digest_of(own.loss, jax.ShapeDtypeStruct((run.batch_size, classes), jnp.float32), labels)
    return {f"{part} (jax {jax.__version__})": digest for part, digest in digests.items()}


def digest_of(function: Any, *arguments: Any) -> str:
    """Return a digest of a function's program and its constants, without the addresses of Python objects."""
    program = jax.make_jaxpr(lambda *values: function(*values))(*arguments)
    digest = hashlib.sha256(re.sub("0x[0-9a-f]+", "", str(program)).encode())
    for constant in constants_of(program):
        key = isinstance(constant, jax.Array) and jnp.issubdtype(constant.dtype, jax.dtypes.prng_key)
        digest.update(np.asarray(jax.random.key_data(constant) if key else constant).tobytes())
    return digest.hexdigest()[:16]


def constants_of(program: Any) -> Iterator[Any]:
    """List the constants of a program and of the functions it calls; printed programs show only the scalars."""
    yield from getattr(program, "consts", ())
    for equation in program.eqns:
        yield from (variable.val for variable in equation.invars if hasattr(variable, "val"))
        for value in jax.tree.leaves(list(equation.params.values())):
            if hasattr(value, "eqns"):
                yield from constants_of(value)
