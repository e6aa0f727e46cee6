#!/usr/bin/env bash
# JAX: the gradient of a bfloat16 table that is looked up 1,000 times is 256; by a one-hot product it is 1,000.
#
# One would expect: sums of gradients are made in float32 and rounded once, as matrix products are.
# What happens: the gradient of an index, of `take`, and `segment_sum` are scatters that add in the array's own type; at
# 256 a bfloat16 does not change any more when 1 is added. Embeddings, and the regions a detector cuts out of a map, are
# looked up so.
# Versions: jax 0.10.2, on CPU. 2026-11-30.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'END'
import jax
import jax.numpy as jnp

table, places = jnp.ones(3, jnp.bfloat16), jnp.zeros(1000, int)
chosen = jax.nn.one_hot(places, 3, dtype=jnp.bfloat16)
functions = {"table[places]": lambda t: t[places], "take": lambda t: jnp.take(t, places),
             "one-hot product": lambda t: chosen @ t,
             "table in float32": lambda t: t.astype(jnp.float32)[places]}
found = {name: float(jax.grad(lambda t, f=f: f(t).astype(jnp.float32).sum())(table)[0])
         for name, f in functions.items()}
found["segment_sum"] = float(jax.ops.segment_sum(jnp.ones(1000, jnp.bfloat16), places, 3)[0])
print(found)
assert found == {"table[places]": 256, "take": 256, "one-hot product": 1000, "table in float32": 1000,
                 "segment_sum": 256}
END
