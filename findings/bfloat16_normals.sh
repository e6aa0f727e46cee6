#!/usr/bin/env bash
# JAX: normal numbers drawn in bfloat16 are 128 numbers, none above 2.52, and their mean is -0.012.
#
# One would expect: the distribution rounded to bfloat16, which has values to 10^38: tails, symmetry, and a mean of 0.
# What happens: a uniform number of 128 steps is drawn in bfloat16 and taken through the inverse of the error function.
# One in 170 normals lies beyond 2.52 on that side, none does here; a mean of 10 million draws is 40 standard errors
# off. Draw in float32 and cast. (Truncated normals, of which initialisers are made, likewise: 128 values, mean -0.016.)
# Versions: jax 0.10.2. 2026-11-30.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'END'
import jax
import jax.numpy as jnp
import numpy as np

draws = [jax.random.normal(jax.random.key(seed), (1_000_000,), jnp.bfloat16) for seed in range(10)]
drawn = np.concatenate([np.asarray(part.astype(jnp.float32)) for part in draws])
cast = np.asarray(jax.random.normal(jax.random.key(0), (1_000_000,)).astype(jnp.bfloat16).astype(jnp.float32))
for name, values in (("drawn in bfloat16", drawn), ("drawn in float32 and cast", cast)):
    print(f"{name}: {len(np.unique(values))} values from {values.min():.2f} to {values.max():.2f}, "
          f"mean {values.mean(dtype=np.float64):.4f}")
assert len(np.unique(drawn)) == 128 and drawn.max() < 2.6 and drawn.mean(dtype=np.float64) < -0.01
assert cast.max() > 4 and abs(cast.mean(dtype=np.float64)) < 0.004
END
