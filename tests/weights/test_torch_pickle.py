"""PyTorch's files: tensors of every kind are read without PyTorch, damage is named, and no code in them runs."""

import io
import os
import pickle
import sys
import zipfile

import numpy as np
import pytest

from resjax import BadInput
from resjax.weights.files import read_tensors
from resjax.weights.torch_pickle import MAGIC, PROTOCOL


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def archive(file, pickled, **members):
    with zipfile.ZipFile(file, "w") as out:
        out.writestr("archive/data.pkl", pickled)
        for name, content in members.items():
            out.writestr(f"archive/{name}", content)


def stream(file, *pickles):
    file.write_bytes(b"".join(pickle.dumps(item) if not isinstance(item, bytes) else item for item in pickles))


@pytest.mark.parametrize("kind", ["archive", "stream", "pickle", "late", "nested"])
def test_code_in_a_file_is_refused_and_never_run(kind, tmp_path):
    file, marker = tmp_path / "weights.pth", tmp_path / "ran"
    evil = Evil(marker)
    match kind:
        case "archive":
            archive(file, pickle.dumps(evil))
        case "nested":
            archive(file, pickle.dumps({"state_dict": {"conv1.weight": [evil]}}))
        case "stream":
            stream(file, MAGIC, PROTOCOL, {}, evil, [])
        case "late":
            stream(file, MAGIC, PROTOCOL, {}, {}, evil)
        case "pickle":
            stream(file, evil)
    with pytest.raises(BadInput, match=r"weights\.pth: asks for (posix|nt)\.mkdir, which no weights file needs"):
        read_tensors(file)
    assert not marker.exists()
    with pytest.raises(OSError, match="No such file"):  # the pickle would have run: it cannot make this folder
        pickle.loads(pickle.dumps(Evil(tmp_path / "none" / "ran")))


@pytest.mark.parametrize("opcodes", [
    b"cbuiltins\neval\n(S'1'\ntR.", b"cos\nsystem\n(S'true'\ntR.", b"\x80\x04\x8c\x05posix\x8c\x06system\x93.",
    b"(S'true'\nisubprocess\nrun\n.", b"(c__builtin__\nexec\nS'1'\no.", b"cimportlib.util\nmodule_from_spec\n."])
def test_names_that_only_an_attack_has_a_use_for_are_refused(opcodes, tmp_path):
    archive(tmp_path / "weights.pt", opcodes)
    with pytest.raises(BadInput, match=": asks for "):
        read_tensors(tmp_path / "weights.pt")


@pytest.mark.parametrize("before", [
    b"ctimeit\ntimeit\n(S'CODE'\ntR", b"(S'CODE'\nitimeit\ntimeit\n", b"(ctimeit\ntimeit\nS'CODE'\no",
    b"ctimeit\ntimeit\n(S'CODE'\nt\x81", b"ctimeit\ntimeit\n(S'CODE'\nt}\x92", b"ctimeit\nTimer\n)\x81(S'CODE'\ntb",
    b"\x8c\x06timeit\x8c\x06timeit\x93(S'CODE'\ntR", b"cantigravity\nx\n", b"cthis\nx\n)R",
    b"ctest_torch_pickle\nnone\n)R"])
def test_no_other_name_is_imported_or_called(before, tmp_path):
    """What a pickle makes of them is of no use and no harm; the weights beside it are read."""
    marker, seen = tmp_path / "ran", []
    before = before.replace(b"CODE", f'open("{marker}", "w")'.encode())
    archive(tmp_path / "weights.pt", b"(dS'args'\n" + before + b"sS'model'\n" + tensor("0", 6)[:-1] + b"s.",
            **{"data/0": np.arange(6, dtype=np.float32).tobytes()})
    seen = set(sys.modules)
    assert read_tensors(tmp_path / "weights.pt")["w"].tolist() == [[0, 1], [2, 3]]
    assert not marker.exists()
    assert not {"antigravity", "this", "timeit"} & (set(sys.modules) - seen)


@pytest.mark.parametrize(("content", "message"), [
    (b"", "the file is empty; download it again"), (b"\x80", "incomplete or invalid PyTorch file"),
    (b"\xaa" * 1000, "not a safetensors, PyTorch or Keras HDF5 file"),
    (pickle.dumps(3), "incomplete or invalid PyTorch"), (pickle.dumps(MAGIC), "incomplete or invalid PyTorch"),
    (pickle.dumps(MAGIC) + pickle.dumps(7), "does not start like one"),
])
def test_files_that_are_none(content, message, tmp_path):
    (tmp_path / "weights.th").write_bytes(content)
    with pytest.raises(BadInput, match=message):
        read_tensors(tmp_path / "weights.th")


def test_what_holds_no_state_dict(tmp_path):
    for content, told in (({}, ""), ({"epoch": 3, "a\n": 1}, r", but epoch, a\?"), ([1, 2], ""), (None, ""),
                          ({"a": {}}, ", but a"), ({1: 2}, "")):
        archive(tmp_path / "weights.pt", pickle.dumps(content))
        with pytest.raises(BadInput, match=f"it contains no dictionary of tensors{told}; save a network's state_dict"):
            read_tensors(tmp_path / "weights.pt")


def tensor(key, count, offset=0, shape=(2, 2), strides=(2, 1)):
    """Write the opcodes of {"w": tensor}, as PyTorch does."""
    tuples = "".join(f"({''.join(f'I{n}{chr(10)}' for n in values)}t" for values in (shape, strides))
    storage = f"(S'storage'\nctorch\nFloatStorage\nS'{key}'\nS'cpu'\nI{count}\ntQ"
    return f"(dS'w'\nctorch._utils\n_rebuild_tensor_v2\n({storage}I{offset}\n{tuples}I00\nNtRs.".encode()


def test_a_tensor_is_read_and_must_lie_within_its_storage(tmp_path):
    file, values = tmp_path / "weights.pt", np.arange(6, dtype=np.float32)
    archive(file, tensor("0", 6, 1), **{"data/0": values.tobytes()})
    assert read_tensors(file)["w"].tolist() == [[1, 2], [3, 4]]
    archive(file, tensor("0", 6, 0, (2, 3), (1, 2)), **{"data/0": values.tobytes()})
    assert read_tensors(file)["w"].tolist() == [[0, 2, 4], [1, 3, 5]]
    for wrong in (tensor("0", 6, 4), tensor("0", 6, -1), tensor("0", 6, 0, (2, 2), (-1, 1)), tensor("0", 6, 0, (2, 9)),
                  tensor("0", 6, 0, (2, 2), (2,)), tensor("1", 6), tensor("0", 7), tensor("0", 6, 0, (9,), (0,))):
        archive(file, wrong, **{"data/0": values.tobytes()})
        with pytest.raises(BadInput, match="incomplete or invalid PyTorch file"):
            read_tensors(file)
    archive(file, tensor("0", 6), **{"data/0": values.tobytes(), "byteorder": b"big"})
    with pytest.raises(BadInput, match="big-endian"):
        read_tensors(file)


def test_no_number_of_a_pickle_wraps_around(tmp_path):
    """NumPy's own would, past the check that a tensor lies within its storage: sizes are numbers of Python's."""
    small = b"cnumpy\nint8\n(I127\ntR"
    content = tensor("0", 6).replace(b"I2\nI2\nt(I2\n", small + small + b"t(" + small)
    assert content != tensor("0", 6)
    archive(tmp_path / "a.pt", content, **{"data/0": bytes(24)})
    with pytest.raises(BadInput, match="a tensor's place in its storage is not a list of sizes"):
        read_tensors(tmp_path / "a.pt")
    archive(tmp_path / "b.pt", tensor("0", 6).replace(b"I2\nI2\nt", b"(ctorch\nCharStorage\n(I9\ntR(I2\nt"),
            **{"data/0": bytes(24)})
    with pytest.raises(BadInput, match="incomplete or invalid PyTorch file"):  # a name of a type cannot be called
        read_tensors(tmp_path / "b.pt")


def test_archives_of_other_things(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as out:
        out.writestr("hello.txt", "x")
    with pytest.raises(BadInput, match="an archive with 0 members data"):
        read_tensors(tmp_path / "a.pth")
    archive(tmp_path / "b.pth", tensor("0", 6), **{"constants.pkl": b""})
    with pytest.raises(BadInput, match="a TorchScript program, which is code"):
        read_tensors(tmp_path / "b.pth")


def test_compressed_members_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("archive/data.pkl", tensor("0", 6))
        out.writestr("archive/data/0", bytes(24))
    with pytest.raises(BadInput, match="its members are compressed or encrypted"):
        read_tensors(tmp_path / "a.pth")


def test_views_of_one_storage_are_no_larger_than_the_file(tmp_path):
    names = "".join(f"S'w{number}'\nh\x00" for number in range(100)).encode()
    one = tensor("0", 4000, 0, (4000, 1))[len(b"(dS'w'\n"):-2]
    archive(tmp_path / "a.pth", b"(d(S'w'\n" + one + b"q\x00" + names + b"u.", **{"data/0": bytes(16000)})
    with pytest.raises(BadInput, match="its tensors are larger than the file"):
        read_tensors(tmp_path / "a.pth")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_twice(tmp_path):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as out:
        out.writestr("archive/data.pkl", tensor("0", 6))
        for _ in range(2):
            out.writestr("archive/data/0", np.zeros(6, np.float32).tobytes())
    (tmp_path / "weights.pt").write_bytes(content.getvalue())
    with pytest.raises(BadInput, match="a member of the archive occurs twice"):
        read_tensors(tmp_path / "weights.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_what_pytorch_writes_is_read_bit_for_bit(zipped, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[peers]'")
    torch.manual_seed(0)
    whole = torch.randn(6, 4)
    state = {"float": whole, "view": whole[1:3, ::2], "turned": whole.T, "scalar": torch.tensor(3), "empty": whole[:0],
             "half": whole.half(), "bfloat": whole.bfloat16(), "double": whole.double(), "bool": whole > 0,
             "int": whole.int(), "byte": torch.tensor([1, 255], dtype=torch.uint8),
             "parameter": torch.nn.Parameter(whole)}
    file = tmp_path / "weights.pth"
    torch.save({"model": state, "epoch": 3, "lr": [0.1]}, file, _use_new_zipfile_serialization=zipped)
    read = read_tensors(file)
    assert read.keys() == state.keys()
    for name, wanted in state.items():
        exact = wanted.detach()
        assert read[name].shape == tuple(exact.shape)
        assert np.array_equal(read[name].astype(np.float64), exact.double().numpy()), name
    for part in (0.2, 0.6, 0.95):
        (tmp_path / "cut.pth").write_bytes(file.read_bytes()[:int(part * file.stat().st_size)])
        with pytest.raises(BadInput, match=r"cut\.pth: incomplete or invalid PyTorch file"):
            read_tensors(tmp_path / "cut.pth")
    torch.save({"model": state, "ema": state}, file, _use_new_zipfile_serialization=zipped)
    assert read_tensors(file).keys() == state.keys()  # the same dictionary twice is one set of weights
    torch.save({"model": state, "ema": dict(state)}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(BadInput, match="contains 2 sets of weights; choose one with --key: model, ema"):
        read_tensors(file)


def test_tensors_that_one_process_holds_whole_are_read_and_parts_are_named(tmp_path):
    """FSDP2's DTensors."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[peers]'")
    spread = pytest.importorskip("torch.distributed.tensor", reason="an older PyTorch")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        mesh, whole = spread.init_device_mesh("cpu", (1,)), torch.randn(4, 3)
        kept = {"shard": spread.distribute_tensor(whole, mesh, [spread.Shard(0)]),
                "copy": spread.distribute_tensor(whole, mesh, [spread.Replicate()])}
        torch.save(kept, tmp_path / "whole.pth")
        part = spread.DTensor.from_local(whole, mesh, [spread.Shard(0)], shape=(8, 3), stride=(3, 1))
        torch.save({"shard": part}, tmp_path / "part.pth")
        torch.save({"shard": part, "whole": whole}, tmp_path / "some.pth")
    finally:
        torch.distributed.destroy_process_group()
    read = read_tensors(tmp_path / "whole.pth")
    assert all(np.array_equal(read[name], whole.numpy()) for name in kept)
    with pytest.raises(BadInput, match=r"shard is a shard of a tensor \(FSDP\); gather it with get_model"):
        read_tensors(tmp_path / "part.pth")
    with pytest.raises(BadInput, match=r"shard is not a tensor, but a shard of a tensor"):
        read_tensors(tmp_path / "some.pth")
