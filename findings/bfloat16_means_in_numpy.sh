#!/usr/bin/env bash
# NumPy: the mean of 1,000 ones in bfloat16 is 0.256; of float16 it is 1; and a product of the same ones is 1,000.
#
# One would expect: NumPy sums half precision in float32, as it does float16's means, or in pairs.
# What happens: for ml_dtypes' bfloat16 the sum is a plain loop in bfloat16, which stops at 256, where adding 1 is less
# than half a step; mean, var and sums over an axis follow. Weights read from safetensors or checkpoints are such
# arrays. `mean(dtype=np.float32)` is right, and `a @ b` sums in float32.
# Versions: numpy 2.4.6, ml_dtypes 0.6.0. 2026-11-30.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile ml_dtypes==0.6.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'END'
import ml_dtypes
import numpy as np

ones = np.ones(1000, ml_dtypes.bfloat16)
product = float((ones[None] @ ones[:, None])[0, 0])
print("bfloat16: sum", ones.sum(), "mean", ones.mean(), "var", ones.var(), "product", product)
print("float16:  mean", np.ones(1000, np.float16).mean(), "- bfloat16 by float32:", ones.mean(dtype=np.float32))
assert ones.sum() == 256 and abs(float(ones.mean()) - 0.256) < 0.001 and float(ones.var()) > 0.2
assert np.ones(1000, np.float16).mean() == 1 and ones.mean(dtype=np.float32) == 1 and product == 1000
END
