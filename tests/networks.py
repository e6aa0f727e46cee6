"""Small networks with random weights, for tests that load and export them."""

import json

import jax
import numpy as np
from safetensors.numpy import load_file, save_file

from resjax import Architecture, Data, Network, Photographs
from resjax.data import Preprocessing
from resjax.models.counts import variable_shapes


def random_network(family="cifar", depth=14, shortcut="A", classes=("cat", "dog", "owl"), stride_in="1x1", std=(),
                   mean_image=False, size=None):
    """Draw weights, and statistics far from their first values."""
    architecture = Architecture(family=family, depth=depth, shortcut=shortcut, stride_in=stride_in)
    model, random = architecture.model(len(classes)), np.random.default_rng(0)
    leaves, structure = jax.tree_util.tree_flatten_with_path(variable_shapes(model, (32, 32, 3)))

    def draw(path, leaf):
        match path[-1].key:
            case "kernel":
                return random.normal(0, np.sqrt(1.5 / np.prod(leaf.shape[-4:-1] or leaf.shape[:1])), leaf.shape)
            case "var" | "scale":
                return random.uniform(0.5, 1.5, leaf.shape)
            case _:
                return random.normal(0, 0.2, leaf.shape)

    small = family == "cifar"
    size = size or (32 if small else 224)
    side = None if small else size * 8 // 7
    data = (Data(source="tfds:cifar10", std=std, resize="area") if small else
            Photographs(size=size, test_shorter_side=side, std=std))
    mean = random.uniform(90, 130, (size, size, 3) if mean_image else (1, 1, 3))
    variables = jax.tree.unflatten(structure, [np.float32(draw(path, leaf)) for path, leaf in leaves])
    preprocessing = Preprocessing(np.broadcast_to(np.float32(mean), (size, size, 3)).copy(), std, side)
    return Network("random", architecture, data, tuple(classes), model, variables, preprocessing)


def in_parts(folder):
    """Put the weights of an exported folder into two files and an index, as transformers does."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, places = list(tensors), {}
    for number, part in enumerate((names[:9], names[9:]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        places.update(dict.fromkeys(part, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return places


def same_network(a, b):
    """Compare everything but the name."""
    values = [network._replace(name="", variables={}, preprocessing=network.preprocessing.replace(mean=0))
              for network in (a, b)]
    arrays = [(network.variables, network.mean) for network in (a, b)]
    return values[0] == values[1] and all(jax.tree.leaves(jax.tree.map(np.array_equal, *arrays)))


def disturbed(name, value, random):
    """Draw new values for a tensor of any framework, by its name; the others' kernels keep their first values."""
    kind = name.rpartition("/")[2].rpartition(".")[2]
    if kind in ("running_var", "moving_variance"):
        return random.uniform(0.5, 2, value.shape)
    if kind == "gamma" or (kind == "weight" and value.ndim == 1):
        return random.uniform(0.5, 1.2, value.shape)
    if kind in ("running_mean", "moving_mean", "beta", "bias"):
        return random.normal(0, 0.2, value.shape)
    return value


def randomized(torch, model):
    """Give a PyTorch model other weights, and return it ready to be used."""
    random = np.random.default_rng(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.ndim:
                tensor.copy_(torch.from_numpy(np.float32(disturbed(name, tensor.numpy(), random))))
    return model.eval()
