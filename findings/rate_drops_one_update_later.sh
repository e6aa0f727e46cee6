#!/usr/bin/env bash
# The same step schedule in Keras and in Optax drops one update apart, and their SGDs with momentum differ after it.
#
# One would expect: a boundary of 100 means the same to both, and SGD with momentum 0.9 is one formula.
# What happens: Optax makes update 100 (counted from 0) with the lower rate, Keras with the higher. After a drop Keras,
# whose rate lies within the velocity, as in Caffe, carries on with velocities of the old rate; Optax scales them down
# at once. So a recipe moved from the one to the other is another recipe.
# Versions: keras 3.15.1, optax 0.2.8, jax 0.10.2. 2026-11-30.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile keras==3.15.1 optax==0.2.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'END'
import os

os.environ["KERAS_BACKEND"] = "jax"
import jax.numpy as jnp
import keras
import numpy as np
import optax

by_optax = optax.piecewise_constant_schedule(1.0, {100: 0.1})
by_keras = keras.optimizers.schedules.PiecewiseConstantDecay([100], [1.0, 0.1])
rates = {update: (float(by_optax(update)), float(by_keras(update))) for update in (99, 100, 101)}
print("rates (Optax, Keras):", rates)
assert rates[99] == (1, 1) and rates[101][0] == rates[101][1] and rates[100][0] < 0.2 and rates[100][1] == 1


def keras_path(gradients, rates):
    weight = keras.Variable(np.zeros(1, np.float32))
    optimizer = keras.optimizers.SGD(rates[0], momentum=0.9)
    optimizer.build([weight])
    for gradient, rate in zip(gradients, rates, strict=True):
        optimizer.learning_rate = rate
        optimizer.apply_gradients([(jnp.full(1, gradient), weight)])
    return float(weight.value[0])


def optax_path(gradients, rates):
    weight, optimizer = jnp.zeros(1), optax.sgd(lambda count: jnp.array(rates)[count], 0.9)
    state = optimizer.init(weight)
    for gradient in gradients:
        update, state = optimizer.update(jnp.full(1, gradient), state)
        weight = optax.apply_updates(weight, update)
    return float(weight[0])


gradients, drop = (1.0, 0.0, 0.0, 0.0), (1.0, 0.1, 0.1, 0.1)
kept, dropped = optax_path(gradients, (1.0,) * 4), optax_path(gradients, drop)
print(f"one gradient, then none: Keras {keras_path(gradients, drop):.3f} with a drop after it; Optax {dropped:.3f}")
assert abs(keras_path(gradients, drop) - kept) < 1e-5 and abs(dropped - kept) > 1.5
END
