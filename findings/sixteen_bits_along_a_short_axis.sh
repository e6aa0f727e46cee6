#!/usr/bin/env bash
# XLA on CPU: rounding to bfloat16 takes several times as long if the last axis is short, though a reshape costs nothing.
#
# One would expect: an element-wise program runs over the memory of its arrays, whatever their shape, as in NumPy.
# What happens: loops are vectorized along the last axis only, and 16 channels there are too few. The same two million
# numbers take two to three times as long as `[131072, 16]` than as one row in float32, and five to ten times as long
# where they are rounded to bfloat16, whether by `astype` or by integer operations on the bits.
# Versions: jax 0.10.2, on an x86-64 processor with AVX-512 and bfloat16. 2026-11-30.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile jax==0.10.2 jaxlib==0.10.2
cd "$folder"
venv/bin/python - <<'END'
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def conversion(x):
    return x.astype(jnp.bfloat16)


def on_the_bits(x):
    bits = lax.bitcast_convert_type(x, jnp.uint32)
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return lax.bitcast_convert_type(bits.astype(jnp.uint16), jnp.bfloat16)


def float32(x):
    return x


def hundred_times(function):
    """Multiply by 0 to 99 and round, in the same memory each time."""
    def run(x):
        y = jnp.zeros_like(function(x))
        return lax.fori_loop(0, 100, lambda number, _: function(number.astype(jnp.float32) * x), y)

    return run


x = jax.random.normal(jax.random.key(0), (2**21,))
programs = {(name, shape): jax.jit(hundred_times(function)).lower(x.reshape(shape)).compile()
            for function in (conversion, on_the_bits, float32) for name in (function.__name__,)
            for shape in ((2**17, 16), (2**21,))}
seconds = {key: [] for key in programs}
for _ in range(8):
    for (name, shape), program in programs.items():
        argument = x.reshape(shape)
        start = time.perf_counter()
        program(argument).block_until_ready()
        seconds[name, shape].append(time.perf_counter() - start)
least = {key: min(values) for key, values in seconds.items()}
for (name, shape), value in least.items():
    print(f"{name} of {shape}: {1e4 * value:.0f} us")
results = [np.asarray(program(x.reshape(shape))).astype(np.float32).ravel()
           for (name, shape), program in programs.items() if name != "float32"]
assert all(np.array_equal(result, results[0]) for result in results)
ratios = {name: least[name, (2**17, 16)] / least[name, (2**21,)] for name, _ in programs}
print("short axis to one row:", {name: round(ratio, 1) for name, ratio in ratios.items()})
assert ratios["conversion"] > 3 and ratios["on_the_bits"] > 4 and ratios["float32"] > 1.3
END
