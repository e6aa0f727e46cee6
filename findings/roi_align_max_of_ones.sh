#!/usr/bin/env bash
# onnxruntime: RoiAlign with mode "max" of a map of ones is about 0.6, and of minus ones about -0.03.
#
# One would expect: each sample is interpolated, and the largest is taken: 1, and -1.
# What happens: the largest of the four weighted corners of a sample is taken before they are added, so no bin comes
# near. A warning has said since 1.12 that this "will be fixed in the next ORT 1.13 release"; it is 1.32 now. Mode "avg"
# is right.
# Versions: onnxruntime 1.32.0, onnx 1.23.2. 2026-11-30.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'END'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper


def pool(features, mode):
    """Pool the box (0.3, 0.3, 4.1, 4.2) of a 6 x 6 map to 2 x 2, with four samples a bin."""
    inputs = {"features": features, "boxes": np.array([[0.3, 0.3, 4.1, 4.2]], np.float32), "images": np.array([0])}
    described = [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
                 for name, value in inputs.items()]
    node = helper.make_node("RoiAlign", list(inputs), ["pooled"], mode=mode, output_height=2, output_width=2,
                            sampling_ratio=2)
    graph = helper.make_graph([node], "pool", described,
                              [helper.make_tensor_value_info("pooled", TensorProto.FLOAT, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


ones = np.ones((1, 1, 6, 6), np.float32)
for mode in ("avg", "max"):
    for features in (ones, -ones):
        print(mode, "of", features[0, 0, 0, 0], "everywhere:", pool(features, mode).ravel().round(3))
assert np.allclose(pool(ones, "avg"), 1)
assert (pool(ones, "max") < 0.7).all() and (pool(-ones, "max") > -0.1).all()
END
