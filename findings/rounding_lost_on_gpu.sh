#!/usr/bin/env bash
# XLA for GPU: x.astype(float8).astype(float32) under jit rounds nothing; on CPU it does.
#
# One would expect: a cast to a narrower type and back rounds, as NumPy does it and as JAX does it outside of jit. This
# is how quantised weights and bfloat16 parameters are simulated.
# What happens: compiled for an H100 the whole program is a copy of its argument, for bfloat16, float16 and both float8
# types, as XLA may keep excess precision (xla_allow_excess_precision, on by default). Compiled for CPU all four round.
# `lax.reduce_precision`, an operation between the two casts, or the option set to False keep the rounding on GPU.
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
h100 = topologies.get_topology_desc(platform="cuda", target_config=text, topology="1x1x1").devices[0]


def rounds(function, device, **options):
    """Say whether anything but a copy is left of a function of 1,024 float32 numbers."""
    x = jax.ShapeDtypeStruct((1024,), jnp.float32, sharding=SingleDeviceSharding(device))
    program = jax.jit(function).lower(x).compile(compiler_options=options).as_text()
    return any(word in program for word in ("convert(", "reduce-precision(", "fusion("))


def there_and_back(kind):
    return lambda x: x.astype(kind).astype(jnp.float32)


for kind in (jnp.bfloat16, jnp.float16, jnp.float8_e4m3fn, jnp.float8_e5m2):
    on_gpu, on_cpu = (rounds(there_and_back(kind), device) for device in (h100, jax.devices("cpu")[0]))
    print(f"{kind.dtype.name} and back: rounds on H100 {on_gpu}, on CPU {on_cpu}")
    assert not on_gpu and on_cpu
kept = {"reduce_precision": rounds(lambda x: lax.reduce_precision(x, 8, 7), h100),
        "a rectifier between": rounds(lambda x: jax.nn.relu(x.astype(jnp.bfloat16)).astype(jnp.float32), h100),
        "no excess precision": rounds(there_and_back(jnp.bfloat16), h100, xla_allow_excess_precision=False)}
print(f"what keeps the rounding on H100: {kept}")
assert all(kept.values())
END
