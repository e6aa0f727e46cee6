"""The Hugging Face Hub, played by a server on this machine: fetched once, kept, and used without a network."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from networks import in_parts, random_network

from resjax import BadInput, export, load
from resjax.weights.hub import is_repository

COMMIT = "c" * 40


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """Serve `someone/resnet`, `someone/sharded` and `someone/empty`; yield the server's address and what was asked."""
    folder = export(random_network(), "akamaster", tmp_path_factory.mktemp("hub") / "resnet")
    (folder / "large.bin").write_bytes(b"0" * 1000)
    parts = shutil.copytree(folder, folder.with_name("sharded"))
    (parts / "model-00009-of-00009.safetensors").write_bytes(b"0" * 1000)  # which the index does not name
    in_parts(parts)
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            asked.append(self.path)
            path = self.path.partition("?")[0]
            repository = parts if "/sharded/" in path else folder
            files = [] if "/empty/" in path else list(repository.iterdir())
            if "someone/" not in path or "/gone/" in path:
                return self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})
            if "/tree/" in path:
                return self.answer(200, json.dumps([{"type": "file", "path": file.name, "oid": COMMIT,
                                                     "size": file.stat().st_size} for file in files]).encode())
            if path.startswith("/api/"):
                siblings = [{"rfilename": file.name} for file in files]
                return self.answer(200, json.dumps({"id": "x", "sha": COMMIT, "siblings": siblings}).encode())
            content = (repository / path.rpartition("/")[2]).read_bytes()
            etag = f'"{hashlib.sha1(content).hexdigest()}"'
            return self.answer(200, content, {"ETag": etag, "X-Repo-Commit": COMMIT})

        do_HEAD = do_GET

        def answer(self, code, content, headers=None):
            self.send_response(code)
            for name, value in ({"Content-Length": str(len(content))} | (headers or {})).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def ask(target, home, address, **environment):
    """Load in a process of its own, as the client reads its settings once; return what it printed."""
    code = ("import sys, resjax\nfrom resjax.console.command_line import guarded\n"
            "sys.exit(guarded(lambda: print(resjax.load(sys.argv[1]).architecture.title())))")
    settings = {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"} | environment
    done = subprocess.run([sys.executable, "-c", code, target], env=os.environ | settings, capture_output=True,
                          text=True, timeout=200)
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr, done.returncode


def test_weights_are_fetched_once_and_then_need_no_network(hub, tmp_path):
    address, asked = hub
    out, code = ask("someone/resnet", tmp_path, address)
    assert code == 0
    assert out.startswith("ResNet A-14 in CIFAR form")
    assert out == "ResNet A-14 in CIFAR form\n"  # what is over at once is not told
    assert not [path for path in asked if "large.bin" in path and "resolve" in path]
    before = len(asked)
    for environment in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        out, code = ask("someone/resnet", tmp_path, address, **environment)
        assert (code, out.splitlines()[0]) == (0, "ResNet A-14 in CIFAR form")
    assert len(asked) == before


def test_weights_in_several_files_are_fetched_as_the_index_says(hub, tmp_path):
    address, asked = hub
    for environment in ({}, {"HF_HUB_OFFLINE": "1"}):
        out, code = ask("someone/sharded", tmp_path, address, **environment)
        assert (code, "ResNet A-14 in CIFAR form" in out) == (0, True)
    fetched = {path.rpartition("/")[2] for path in asked if "/sharded/resolve/" in path}
    assert {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"} <= fetched
    assert not {"large.bin", "model-00009-of-00009.safetensors"} & fetched


@pytest.mark.parametrize(("target", "environment", "message"), [
    ("someone/gone", {}, "nor a repository of the Hugging Face Hub"),
    ("someone/empty", {}, "has neither model.safetensors nor model.safetensors.index.json nor pytorch_model.bin"),
    ("someone/resnet", {"HF_HUB_OFFLINE": "1"}, "nor in the cache of the Hugging Face Hub, which is unreachable"),
    ("someone/resnet", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "or give a local weights file"),
])
def test_what_cannot_be_fetched_is_said_clearly(target, environment, message, hub, tmp_path):
    out, code = ask(target, tmp_path, hub[0], **environment)
    assert code == 2
    assert message in out
    assert f"resjax: {target}: " in out


def test_names_of_repositories_are_told_from_paths(tmp_path):
    assert is_repository("timm/resnet50.tv_in1k")
    assert is_repository("timm/resnet50.tv_in1k@main")
    for path in ("resnet50", "/a/b", "./runs/x", "a/b/c", "~/x", "a/", "../x"):
        assert not is_repository(path)
    with pytest.raises(BadInput, match=r"runs/none\.pth: not found"):
        load("runs/none.pth")
