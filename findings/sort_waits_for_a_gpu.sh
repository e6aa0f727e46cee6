#!/usr/bin/env bash
# XLA for GPU: a program that sorts 100,000 numbers does not compile without a GPU; with two keys it does.
#
# One would expect: what `topologies.get_topology_desc` describes can be compiled for whatever the program, as matrix
# products, convolutions and collectives can.
# What happens: for large arrays XLA takes CUB's radix sort and asks the CUDA runtime, while it compiles, how much memory
# that needs: "cudaErrorInvalidDevice". So `jnp.sort`, `argsort`, `median`, `random.permutation` and `lax.top_k` with
# k = 100 of a million raise. 20,000 numbers, and two keys at any size, take XLA's own sort and compile.
# Versions: jax 0.12.0.1 with jax-cuda12-plugin 0.12.0.1, compiled for H100 without one. 2026-11-30.
set -euo pipefail
"${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 12))' || {
    echo "not run: jax 0.12.0.1 needs Python 3.12 or newer; set PYTHON"
    exit 77
}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile jax==0.12.0.1 jaxlib==0.12.0.1 nvidia-cuda-nvcc-cu12==12.9.86
"$folder/venv/bin/pip" install --quiet --no-compile --no-deps jax-cuda12-plugin==0.12.0.1 jax-cuda12-pjrt==0.12.0.1
cd "$folder"
venv/bin/python - <<'END'
import os

os.environ.update(JAX_SKIP_CUDA_CONSTRAINTS_CHECK="1", JAX_PLATFORMS="cpu", TF_CPP_MIN_LOG_LEVEL="3")
from pathlib import Path

import jax
import jax.numpy as jnp
import jax_plugins.xla_cuda12
from jax import lax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

# The plugin carries the description of an H100 as text; this is where it stands.
content = Path(jax_plugins.xla_cuda12.__file__).with_name("xla_cuda_plugin.so").read_bytes()
named = content.index(b'device_description_str: "NVIDIA H100 80GB HBM3"')
text = content[content.rindex(b"gpu_device_info {", 0, named):content.index(b"\0", named)].decode()
h100 = SingleDeviceSharding(
    topologies.get_topology_desc(platform="cuda", target_config=text, topology="1x1x1").devices[0])


def compiles(function, *sizes):
    arguments = [jax.ShapeDtypeStruct((size,), jnp.float32, sharding=h100) for size in sizes]
    try:
        jax.jit(function).lower(*arguments).compile()
    except jax.errors.JaxRuntimeError as error:
        assert "cudaErrorInvalidDevice" in str(error), error
        return False
    return True


found = {"sort 20,000": compiles(jnp.sort, 20_000), "sort 100,000": compiles(jnp.sort, 100_000),
         "argsort 100,000": compiles(jnp.argsort, 100_000), "median 100,000": compiles(jnp.median, 100_000),
         "two keys 100,000": compiles(lambda a, b: lax.sort((a, b), num_keys=2), 100_000, 100_000),
         "top 10 of a million": compiles(lambda x: lax.top_k(x, 10), 1_000_000),
         "top 100 of a million": compiles(lambda x: lax.top_k(x, 100), 1_000_000)}
for name, well in found.items():
    print(f"{name}: {'compiles' if well else 'cudaErrorInvalidDevice'}")
assert [name for name, well in found.items() if not well] == [
    "sort 100,000", "argsort 100,000", "median 100,000", "top 100 of a million"]
END
