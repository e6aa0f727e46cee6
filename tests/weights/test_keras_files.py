"""Keras's files, old and new: what Keras wrote is read; what states more than it holds or points elsewhere is not."""

import io
import os
import time
import zipfile

import h5py
import numpy as np
import pytest
from networks import random_network, same_network

from resjax import BadInput, export, load
from resjax.weights import hdf5_layout, keras_files
from resjax.weights.files import read_tensors

keras_may_warn = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Let Keras write a small network, with dropout and an optimizer, in each of its forms; return its arrays too."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras", reason="Keras is not installed: pip install -e '.[test]'")
    folder, layers = tmp_path_factory.mktemp("keras"), keras.layers
    model = keras.Sequential([
        layers.Input((8, 8, 3)), layers.Conv2D(4, 3, name="conv1_conv"), layers.BatchNormalization(name="conv1_bn"),
        layers.Dropout(0.5), layers.Conv2D(4, 3, use_bias=False, name="second"), layers.GlobalAveragePooling2D(),
        layers.Dense(5, name="predictions")])
    random = np.random.default_rng(0)
    for layer in model.layers:
        layer.set_weights([random.normal(size=weight.shape).astype(weight.dtype) for weight in layer.get_weights()])
    model.compile("adam", "mse")
    wanted = {f"{layer.name}/{weight.name}": np.asarray(weight) for layer in model.layers for weight in layer.weights
              if "seed" not in weight.name}
    for name in ("a.keras", "a.weights.h5", "a.h5"):
        (model.save_weights if "weights" in name else model.save)(folder / name)
    return folder, wanted


@keras_may_warn
@pytest.mark.parametrize("name", ["a.keras", "a.weights.h5", "a.h5"])
def test_what_keras_writes_is_read_bit_for_bit(name, written, tmp_path):
    folder, wanted = written
    (tmp_path / "any.name").write_bytes((folder / name).read_bytes())
    for file in (folder / name, tmp_path / "any.name"):
        read = read_tensors(file)
        assert read.keys() == wanted.keys()
        assert all(np.array_equal(read[key], wanted[key]) and read[key].dtype == np.float32 for key in wanted)


def test_an_archive_whose_members_are_compressed_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(1000))
    with pytest.raises(BadInput, match="its members are compressed or encrypted"):
        read_tensors(tmp_path / "a.keras")


def write(file, change, old):
    with h5py.File(file, "w") as out:
        out.attrs.update({"layer_names": np.array(["conv1"], "S")} if old else {})
        layer = out.create_group("conv1" if old else "layers/conv2d/vars")
        layer.attrs.update({"weight_names": np.array(["0", "1"], "S")} if old else {"name": "conv1"})
        layer["1"] = np.ones(4, np.float32)
        change(layer)


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize(("change", "message"), [
    (lambda g: g.create_dataset("0", data=np.zeros((9, 9)), compression="gzip"), "kernel is compressed, chunked or"),
    (lambda g: g.create_dataset("0", (1 << 20, 1 << 20), "f4", chunks=(1, 1)), "kernel is compressed, chunked or"),
    (lambda g: g.create_dataset("0", (4,), "f4", external=[("/etc/passwd", 0, 16)]), "chunked or in another file"),
    (lambda g: g.create_dataset("0", (1 << 15, 1 << 15), "f4"), "conv1/kernel is .* or was never written"),
    (lambda g: g.__setitem__("0", h5py.SoftLink(f"{g.name}/1")), "0 is a link to another place"),
    (lambda g: g.__setitem__("0", h5py.ExternalLink("other.h5", "x")), "0 is a link to another place"),
    (lambda g: g.create_group("0"), "conv1/kernel is not an array"),
    (lambda g: g.__setitem__("0", np.ones(4, np.complex64)), "conv1/kernel has dtype complex64"),
    (lambda g: g.create_virtual_dataset("0", h5py.VirtualLayout((4,), "f4")), "chunked or in another file"),
    (lambda g: None, "incomplete or invalid Keras weights file"),
])
def test_what_expands_or_points_elsewhere_is_refused(change, message, old, tmp_path):
    write(tmp_path / "a.h5", change, old)
    with pytest.raises(BadInput, match=rf"a\.h5: .*{message}"):
        read_tensors(tmp_path / "a.h5")


def test_groups_in_a_circle_and_layers_without_names_are_refused(tmp_path):
    def circle(layer):
        layer["0"] = np.ones((3, 3, 3, 4), np.float32)
        layer.file["layers/conv2d/again"] = layer.file["layers"]

    def nameless(layer):
        layer["0"] = np.ones((3, 3, 3, 4), np.float32)
        del layer.attrs["name"]

    for change, message in ((circle, "too many groups for a network"), (nameless, "its layers have no names")):
        write(tmp_path / "a.h5", change, old=False)
        with pytest.raises(BadInput, match=message):
            read_tensors(tmp_path / "a.h5")


def test_a_file_that_hdf5_follows_without_end_is_given_up(tmp_path, monkeypatch):
    """A stand-in for the damaged files that do so, 1 in 700: a process that works for ever is ended by its limits."""
    (tmp_path / "endless.py").write_text(
        f"import runpy\nlimit = runpy.run_path({hdf5_layout.__file__!r})['limit_process']\n"
        "import resource\nlimit()\nresource.setrlimit(resource.RLIMIT_CPU, (1, 1))\n"
        f"open({str(tmp_path / 'limited')!r}, 'w')\nwhile True: pass\n")
    monkeypatch.setattr(keras_files, "LAYOUT", tmp_path / "endless.py")
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    began = time.process_time()
    with pytest.raises(BadInput, match=r"a\.h5: incomplete or invalid Keras weights file \(HDF5 finds no end\)"):
        read_tensors(tmp_path / "a.h5")
    assert time.process_time() - began < 1
    assert (tmp_path / "limited").exists()


@keras_may_warn
def test_nothing_beside_the_file_is_imported(written, tmp_path, monkeypatch):
    """The process that looks into a file is a Python of its own, which would import `h5py` from where it starts."""
    folder, wanted = written
    (tmp_path / "h5py.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (tmp_path / "json.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (tmp_path / "a.h5").write_bytes((folder / "a.h5").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert read_tensors(tmp_path / "a.h5").keys() == wanted.keys()
    assert not (tmp_path / "ran").exists()


def test_a_part_of_a_file_is_a_file(tmp_path):
    (tmp_path / "a").write_bytes(bytes(range(100)))
    with hdf5_layout.Window((tmp_path / "a").open("rb", buffering=0)) as window:
        window.start = 10
        assert window.seek(0) == 0
        assert window.read(20) == bytes(range(10, 30))
        assert window.seek(-5, io.SEEK_END) == 85
        assert window.read(99) == bytes(range(95, 100))
        assert window.read(1) == b""
        window.seek(3)
        assert (window.read(2), window.tell()) == (bytes([13, 14]), 5)
        assert window.seek(-1, io.SEEK_CUR) == 4


def test_keras_files_without_names_or_with_strange_layers(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("x")
    with pytest.raises(BadInput, match=r"its layers have no names; save it with model.save"):
        load(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.attrs["layer_names"] = np.array(["x"], "S")
        group = file.create_group("x")
        group.attrs["weight_names"] = np.array(["a", "b", "c"], "S")
        for name in "abc":
            group[name] = np.zeros(1, np.float32)
    with pytest.raises(BadInput, match="x has 3 weights"):
        load(tmp_path / "b.h5")


def test_the_first_keras_release_of_the_authors_weights_is_read_by_its_own_names(tmp_path):
    """Its layers are named as in the authors' Caffe files, and its weights as Keras 1 named them; it has biases."""
    network = random_network("imagenet", 50, "B", "ab")
    out = export(network, "keras", tmp_path / "out")
    letters = "abcdef"
    with h5py.File(out / "model.h5") as new, h5py.File(tmp_path / "old.h5", "w") as old:
        names = []
        for layer in (name.decode() for name in new.attrs["layer_names"]):
            if layer.startswith("conv1_"):
                name = {"conv1_conv": "conv1", "conv1_bn": "bn_conv1"}[layer]
            elif layer == "predictions":
                name = "fc1000"
            else:
                stage, block, number, kind = layer.split("_")
                branch = "1" if number == "0" else f"2{letters[int(number) - 1]}"
                name = f"{'bn' if kind == 'bn' else 'res'}{stage[4:]}{letters[int(block[5:]) - 1]}_branch{branch}"
            group = old.create_group(name)
            inner = [weight.decode() for weight in new[layer].attrs["weight_names"]]
            group.attrs["weight_names"] = np.array([f"{name}_{i}" for i in range(len(inner))], "S")
            for i, weight in enumerate(inner):
                group[f"{name}_{i}"] = new[layer][weight][()]
            names.append(name)
        old.attrs["layer_names"] = np.array(names, "S")
    loaded = load(tmp_path / "old.h5")
    assert loaded.architecture.stride_in == "1x1"
    known = network._replace(architecture=loaded.architecture, model=loaded.model)
    told = {"classes": network.classes, "preprocessing": network.preprocessing, "data": network.data}
    assert same_network(loaded._replace(**told), known)
    assert loaded.mean[0, 0].tolist() == pytest.approx([123.68, 116.779, 103.939])
