#!/usr/bin/env bash
# XLA for TPU: a 3 x 3 x 16 x 16 kernel takes eight times its bytes, while images of three channels take no more than
# theirs.
#
# One would expect: the last dimension is padded to 128 lanes, so images of 3 channels swell 43-fold, and 10 classes
# 13-fold.
# What happens: the compiler chooses which dimensions lie in lanes. It puts images' batch and rows there and pads
# nothing, and lays a [50000, 10] array across (1.6 times its size). A kernel of 16 x 16 channels has no other long
# side: 8 times; of 64 x 64 twice; a lone number takes 512 bytes. Of a CIFAR net's memory the parameters swell, not the
# images.
# Versions: jax 0.10.2, libtpu 0.0.42.1, compiled for v5e without one. 2026-11-30.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile jax==0.10.2 jaxlib==0.10.2 libtpu==0.0.42.1 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'END'
import math
import os

os.environ.update(TPU_SKIP_MDS_QUERY="1", JAX_PLATFORMS="cpu", TF_CPP_MIN_LOG_LEVEL="3")
import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

device = SingleDeviceSharding(topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices[0])
arrays = {"images": ((50000, 32, 32, 3), jnp.uint8), "logits": ((50000, 10), jnp.float32),
          "kernel 16": ((3, 3, 16, 16), jnp.float32), "kernel 64": ((3, 3, 64, 64), jnp.float32)}
times = {}
for name, (shape, kind) in arrays.items():
    argument = jax.ShapeDtypeStruct(shape, kind, sharding=device)
    compiled = jax.jit(lambda x: x.astype(jnp.float32).sum()).lower(argument).compile()
    plain = math.prod(shape) * jnp.dtype(kind).itemsize
    times[name] = compiled.memory_analysis().argument_size_in_bytes / plain
    print(f"{name} {list(shape)}: {times[name]:.3f} times its bytes")
assert times["images"] < 1.01 and times["logits"] < 2 and times["kernel 16"] == 8 and times["kernel 64"] == 2
END
