#!/usr/bin/env bash
# jax.export: a plain function exported by JAX 0.10 can be read by 0.8, which then says it was "exported for 0 devices".
#
# One would expect: an older version either runs a program without new operations or says at reading that it is too new.
# What happens: deserialize() succeeds, devices come out as none, and the call fails with a message that speaks of
# devices where the cause is the version. The other way round 0.10 runs what 0.8 wrote. Write with the oldest version
# that is to read.
# Versions: jax 0.10.2 and 0.8.0. 2026-11-30.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile jax==0.10.2 jaxlib==0.10.2 flatbuffers==25.12.19 numpy==2.4.6
"$folder/venv/bin/pip" install --quiet --no-compile --no-deps --target "$folder/old" jax==0.8.0 jaxlib==0.8.0
cd "$folder"
venv/bin/python - <<'END'
import os
import subprocess
import sys
from pathlib import Path

WRITE = """
import sys, jax, jax.numpy as jnp, jax.export
exported = jax.export.export(jax.jit(lambda x: jnp.tanh(x) + 1))(jnp.ones(3))
open(sys.argv[1], "wb").write(exported.serialize())
"""
READ = """
import sys, jax, jax.numpy as jnp, jax.export
exported = jax.export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
try:
    print("runs:", exported.call(jnp.ones(3)))
except ValueError as error:
    print("read, but not run:", error)
"""
OLD = {"PYTHONPATH": str(Path("old").resolve())}


def told(program, file, more):
    return subprocess.run([sys.executable, "-c", program, file], env=os.environ | more | {"JAX_PLATFORMS": "cpu"},
                          capture_output=True, text=True, check=True).stdout.strip()


told(WRITE, "new.bin", {})
told(WRITE, "old.bin", OLD)
back, forth = told(READ, "new.bin", OLD), told(READ, "old.bin", {})
print("0.10.2 to 0.8.0:", back, "\n0.8.0 to 0.10.2:", forth)
assert "exported for 0 devices" in back and forth.startswith("runs")
END
