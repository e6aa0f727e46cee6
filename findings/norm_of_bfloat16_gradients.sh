#!/usr/bin/env bash
# Optax: the global norm of 400 bfloat16 gradients of norm 0.95 behind one of norm 16 is 16, where 24.8 is right.
#
# One would expect: a norm that clips gradients is summed in float32, as sums within an array are.
# What happens: each array's sum of squares is rounded to bfloat16, and Python adds these up in bfloat16: at 256 nothing
# below 1 counts any more. `clip_by_global_norm` then lets through half as much again as its limit. Deep nets have
# hundreds of arrays.
# Versions: optax 0.2.8, jax 0.10.2. 2026-11-30.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile optax==0.2.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'END'
import jax
import jax.numpy as jnp
import numpy as np
import optax

gradients = [jnp.full((1,), 16, jnp.bfloat16)] + [jnp.full((1,), 0.95, jnp.bfloat16)] * 400
exact = np.sqrt(sum(float(np.square(np.asarray(g, np.float64)).sum()) for g in gradients))
by_optax = float(optax.global_norm(gradients))
in_float32 = float(optax.global_norm(jax.tree.map(lambda g: g.astype(jnp.float32), gradients)))
clip = optax.clip_by_global_norm(1.0)
clipped, _ = clip.update(gradients, clip.init(gradients))
left = np.sqrt(sum(float(np.square(np.asarray(g, np.float64)).sum()) for g in clipped))
print(f"norm {exact:.2f}; by optax {by_optax:.2f}, of float32 {in_float32:.2f}; clipped to 1 it is {left:.2f}")
assert by_optax == 16 and exact > 24 and abs(in_float32 - exact) < 0.01 and left > 1.5
END
