"""Converts a network to an ONNX graph from pixels to logits, for programs without Python or JAX."""

from typing import Any

import jax
import numpy as np

from resjax.models import VGG, BatchNorm, ResNet
from resjax.models.families import VGG_STAGES
from resjax.network import Network
from resjax.system.errors import BadInput
from resjax.weights.convert import unstack_stages

OPERATORS, FORMAT = 17, 8  # versions that ONNX Runtime supports since 2022
NCHW, NHWC = (0, 3, 1, 2), (0, 2, 3, 1)


class Graph:
    """The nodes and constants of a graph, which are added in execution order."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: Any) -> str:
        """Add an array and return its name."""
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), f"constant{len(self.constants)}"))
        return f"constant{len(self.constants) - 1}"

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        from onnx import helper

        output = f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def conv(self, x: str, conv: Any, stride: int = 1) -> str:
        """Add a convolution that keeps the size of the maps, divided by `stride`."""
        size = conv["kernel"].shape[0]
        leaves = [self.constant(conv["kernel"].transpose(3, 2, 0, 1))]
        leaves += [self.constant(conv["bias"])] if "bias" in conv else []
        return self.add("Conv", x, *leaves, kernel_shape=[size] * 2, strides=[stride] * 2, pads=[size // 2] * 4)

    def norm(self, x: str, params: Any, statistics: Any) -> str:
        """Add a batch norm with its running statistics."""
        leaves = (params["scale"], params["bias"], statistics["mean"], statistics["var"])
        return self.add("BatchNormalization", x, *map(self.constant, leaves), epsilon=float(BatchNorm.epsilon))

    def dense(self, x: str, layer: Any) -> str:
        """Add a fully connected layer."""
        return self.add("Gemm", x, self.constant(layer["kernel"]), self.constant(layer["bias"]))


def add_block(graph: Graph, x: str, params: Any, statistics: Any, model: ResNet, stride: int) -> str:
    """Add a residual or plain block."""
    layers, y = (3 if "conv3" in params else 2), x
    strides = {2 if layers == 3 and model.stride_in == "3x3" else 1: stride}
    for layer in range(1, layers + 1):
        y = graph.conv(y, params[f"conv{layer}"], strides.get(layer, 1))
        y = graph.norm(y, params[f"bn{layer}"], statistics[f"bn{layer}"])
        y = y if layer == layers else graph.add("Relu", y)
    if model.shortcut != "plain":
        y = graph.add("Add", y, add_shortcut(graph, x, params, statistics, stride))
    return graph.add("Relu", y)


def add_shortcut(graph: Graph, x: str, params: Any, statistics: Any, stride: int) -> str:
    """Add a projection if there is one, otherwise the identity or option A's strided pixels and zero channels."""
    if "shortcut" in params:
        projected = graph.conv(x, params["shortcut"]["conv"], stride)
        return graph.norm(projected, params["shortcut"]["bn"], statistics["shortcut"]["bn"])
    last = "bn3" if "conv3" in params else "bn2"
    inside, outside = params["conv1"]["kernel"].shape[2], params[last]["scale"].shape[0]
    if stride == 1 and inside == outside:
        return x
    ends, axes = np.array([2**31, 2**31]), np.array([2, 3])
    strided = graph.add("Slice", x, *map(graph.constant, (np.zeros(2, np.int64), ends, axes, np.array([stride] * 2))))
    return graph.add("Pad", strided, graph.constant(np.array([0, 0, 0, 0, 0, outside - inside, 0, 0])))


def add_resnet(graph: Graph, x: str, model: ResNet, variables: Any) -> str:
    """Add a network of the paper, from `[batch, channels, height, width]` to logits."""
    apart = unstack_stages(variables)
    params, statistics = apart["params"], apart["batch_stats"]
    x = graph.conv(x, params["conv1"], 1 if model.stem == "3x3" else 2)
    x = graph.add("Relu", graph.norm(x, params["bn1"], statistics["bn1"]))
    if model.stem != "3x3":
        x = graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for stage in range(1, len(model.blocks) + 1):
        blocks = zip(params[f"stage{stage}"], statistics[f"stage{stage}"], strict=True)
        for number, (block, seen) in enumerate(blocks):
            x = add_block(graph, x, block, seen, model, 2 if stage > 1 and number == 0 else 1)
    return graph.dense(graph.add("Flatten", graph.add("GlobalAveragePool", x)), params["fc"])


def add_vgg(graph: Graph, x: str, model: VGG, variables: Any) -> str:
    """Add a VGG network, for images of 224x224."""
    params = variables["params"]
    for stage, layers in enumerate(VGG_STAGES[model.depth], 1):
        for layer in range(1, layers + 1):
            x = graph.add("Relu", graph.conv(x, params["convolutions"][f"conv{stage}_{layer}"]))
        x = graph.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    if not model.units:
        return graph.dense(graph.add("Flatten", graph.add("GlobalAveragePool", x)), params["fc"])
    x = graph.add("Flatten", graph.add("Transpose", x, perm=NHWC))
    for name in ("fc6", "fc7"):
        x = graph.add("Relu", graph.dense(x, params["hidden"][name]))
    return graph.dense(x, params["fc"])


def to_onnx(network: Network) -> bytes:
    """Convert a network to ONNX, from uint8 RGB `[batch, height, width, channels]` to logits `[batch, classes]`.

    The graph takes any batch size, includes the preprocessing of the pixel values, and is checked by ONNX itself.
    A VGG network must have images of 224x224, which `export` checks. Raises BadInput if the package onnx is missing.
    """
    try:
        import onnx
        from onnx import TensorProto, helper
    except ImportError:
        raise BadInput("--to onnx needs the package onnx: pip install 'resjax[onnx]'") from None
    graph, shape = Graph(), network.preprocessing.image_shape
    model, variables = network.model, jax.tree.map(np.asarray, jax.device_get(network.variables))
    x = graph.add("Sub", graph.add("Cast", "pixels", to=TensorProto.FLOAT), graph.constant(network.mean))
    if network.preprocessing.std:
        x = graph.add("Div", x, graph.constant(np.array(network.preprocessing.std, np.float32)))
    x = graph.add("Transpose", x, perm=NCHW)
    logits = (add_vgg if isinstance(model, VGG) else add_resnet)(graph, x, model, variables)
    graph.nodes.append(helper.make_node("Identity", [logits], ["logits"]))
    inputs = [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", *shape])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", network.outputs])]
    whole = helper.make_model(helper.make_graph(graph.nodes, "resjax", inputs, outputs, graph.constants),
                              opset_imports=[helper.make_opsetid("", OPERATORS)], ir_version=FORMAT,
                              producer_name="resjax")
    onnx.checker.check_model(whole)
    content: bytes = whole.SerializeToString()
    return content
