"""Files and folders that are no weights of ours: each is told by what it is, with what helps, and nothing is run."""

import pickle
import zipfile

import numpy as np
import pytest

from resjax import BadInput, load


def refused(target, message):
    with pytest.raises(BadInput, match=message) as told:
        load(target)
    assert "\n" not in str(told.value)


def zipped(file, **members):
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in members.items():
            out.writestr(name.replace("__", "/"), content)
    return file


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.bin", np.random.default_rng(0).bytes(5000), "not a safetensors, PyTorch or Keras HDF5 file"),
    ("a.pth", b"", "the file is empty; download it again"),
    ("a.onnx", b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:\x10", "an ONNX program"),
    ("a.msgpack", b"\x81\xa6params\x84\xa5conv1\x81", "a msgpack file of Flax"),
    ("a.tflite", b"\x1c\0\0\0TFL3" + bytes(50), "a TensorFlow Lite file"),
    ("frozen.pb", b"\n\x05\n\x03abc", "a TensorFlow file"),
    ("model.ckpt.index", b"\0" * 40, "a TensorFlow file"), ("a.caffemodel", b"\n\nResNet-50", "a Caffe file; save"),
    ("a.pth", b"<!DOCTYPE html>", "a web page"), ("a.pth", b"\n<html lang=en>", "a web page"),
    ("config.json", b'{"model_type": 1}', "a JSON file; give the weights file"), ("a.gz", b"\x1f\x8b\x08", "with gzip"),
    ("a.h5", b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
    ("b.pkl", pickle.dumps({"model": {"stem": np.ones(3)}, "__author__": "Caffe2", "matching_heuristics": True}),
     "a detectron2 pickle"),
    ("a.pdparams", pickle.dumps({"conv1.weight": np.ones(3), "StructuredToParameterName@@": {}}), "a Paddle pickle")])
def test_files(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, message)


@pytest.mark.parametrize(("members", "message"), [
    ({"net__constants.pkl": b"", "net__data.pkl": b"", "net__code____torch__.py": b"x"}, "a TorchScript program"),
    ({"net__archive_format": b"pt2", "net__models__model.json": b"{}"}, r"a torch\.export program \(\.pt2\)"),
    ({"conv1.npy": b"", "fc.npy": b""}, r"a NumPy archive \(\.npz\)"),
    ({"best.pth": b"x", "readme.txt": b"x"}, r"a zip archive that contains best\.pth; unpack it first")])
def test_archives(members, message, tmp_path):
    refused(zipped(tmp_path / "a.pth", **members), message)


def test_what_pytorch_and_numpy_write(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[peers]'")
    np.savez(tmp_path / "a.npz", **{"conv1.weight": np.ones(3)})
    refused(tmp_path / "a.npz", "a NumPy archive")
    torch.save({"conv1.weight": torch.ones(3)}, tmp_path / "inner.pth")
    zipped(tmp_path / "b.zip", **{"inner.pth": (tmp_path / "inner.pth").read_bytes()})
    refused(tmp_path / "b.zip", r"a zip archive that contains inner\.pth")


def test_our_own_exports(tmp_path):
    from networks import random_network

    from resjax import export

    out = export(random_network(depth=8), "stablehlo", tmp_path / "out")
    refused(out / "model.stablehlo", r"a function written by jax\.export; call it with jax\.export\.deserialize")
    pytest.importorskip("onnx", reason="pip install -e '.[test]'")
    refused(export(random_network(depth=8), "onnx", tmp_path / "onnx") / "model.onnx", "an ONNX program")


@pytest.mark.parametrize(("files", "target", "message"), [
    (["RUN/experiment.json", "RUN/checkpoints/40/state"], "RUN/checkpoints/40", "a checkpoint of a run; give the run"),
    (["D/.metadata", "D/__0_0.distcp"], "D", r"of torch\.distributed\.checkpoint; convert it with"),
    (["D/_CHECKPOINT_METADATA", "D/manifest.ocdbt"], "D", "an Orbax checkpoint"),
    (["D/saved_model.pb"], "D", "a TensorFlow file"),
    (["D/checkpoint-500/model.safetensors", "D/checkpoint-1000/model.safetensors"], "D",
     r"it contains checkpoints of a Trainer; give one of them, such as .*checkpoint-1000"),
    (["D/best.pth"], "D", r"give the weights file itself, such as .*best\.pth"),
    (["D/model.stablehlo", "D/README.md"], "D", r"it contains model\.stablehlo, "),
    (["D/notes.txt"], "D", "contains neither a run")])
def test_folders(files, target, message, tmp_path):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"")
    refused(tmp_path / target, message)


def test_a_folder_that_pytorch_writes_for_many_processes(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[peers]'")
    import warnings

    import torch.distributed.checkpoint as parts

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is one process alone
        parts.save({"conv1.weight": torch.ones(3)}, checkpoint_id=str(tmp_path / "D"))
    refused(tmp_path / "D", r"of torch\.distributed\.checkpoint")
