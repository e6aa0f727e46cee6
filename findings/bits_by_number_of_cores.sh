#!/usr/bin/env bash
# JAX on CPU: one core and two give other bits, of a kernel's gradient or of a sum, by a flag that concerns neither.
#
# One would expect: XLA on CPU is deterministic, so one program with one input gives one result, on however many cores.
# What happens: work is cut into as many parts as there are cores, and sums over parts are added in another order. With
# the YNNPACK fusions of 0.10.2 (on as it comes) that holds for sums over an array, and not for a convolution's kernel
# gradient; without them it is the other way round. Runs on one number of cores are the same to the bit. So a training
# that is resumed on another machine's cores is another one by rounding.
# Versions: jax 0.10.2 (0.9.2 has it for neither). Needs two cores. 2026-11-30.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'END'
import os
import subprocess
import sys

PROGRAM = """
import os, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:int(sys.argv[1])])
import hashlib
import jax
import jax.numpy as jnp
import numpy as np
random = np.random.default_rng(0)
images, kernel = (jnp.array(random.normal(size=s), jnp.float32) for s in ((64, 32, 32, 16), (3, 3, 16, 16)))
def loss(kernel, images):
    y = jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return (y * y).mean()
x = jnp.array(random.normal(size=(512, 2048)), jnp.float32)
for value in (jax.jit(jax.grad(loss))(kernel, images), jax.jit(jnp.sum)(x)):
    print(hashlib.sha256(np.asarray(value).tobytes()).hexdigest()[:12])
"""


def bits(cores, flags):
    """Run on so many cores; return digests of a kernel's gradient and of a sum."""
    out = subprocess.run([sys.executable, "-c", PROGRAM, str(cores)], capture_output=True, text=True, check=True,
                         env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags})
    return out.stdout.split()


for name, flags, same in (("with YNNPACK's fusions", "", [True, False]),
                          ("without", "--xla_cpu_experimental_ynn_fusion_type=", [False, True])):
    one, two, again = (bits(cores, flags) for cores in (1, 2, 2))
    found = [a == b for a, b in zip(one, two, strict=True)]
    print(f"{name}: kernel's gradient the same on one and two cores: {found[0]}; sum: {found[1]}")
    assert found == same and two == again
END
