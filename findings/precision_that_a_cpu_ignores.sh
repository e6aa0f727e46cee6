#!/usr/bin/env bash
# JAX on CPU takes precision "BF16_BF16_F32" for a matrix product and computes it in float32; "TF32_TF32_F32" it
# refuses.
#
# One would expect: an algorithm that is asked for by name is followed or refused, so that a CPU can try what an
# accelerator does.
# What happens: products that are to take bfloat16 inputs (in one pass or in three) come out as float32's, bit by bit.
# Only TF32 raises. So a test on CPU that a model stands bfloat16 products tests nothing: cast the operands.
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

a = jnp.array(np.random.default_rng(0).normal(size=(256, 256)), jnp.float32)
plain = jnp.matmul(a, a)
cast = jnp.matmul(a.astype(jnp.bfloat16), a.astype(jnp.bfloat16), preferred_element_type=jnp.float32)
found = {}
for name in ("BF16_BF16_F32", "BF16_BF16_F32_X3", "TF32_TF32_F32"):
    try:
        found[name] = float(abs(jnp.matmul(a, a, precision=name) - plain).max())
    except ValueError as error:
        found[name] = str(error)
print("differences from float32:", found, "- of operands that were cast:", float(abs(cast - plain).max()))
assert found["BF16_BF16_F32"] == found["BF16_BF16_F32_X3"] == 0 and "not supported" in found["TF32_TF32_F32"]
assert abs(cast - plain).max() > 0.05
END
