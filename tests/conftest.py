"""Every test has a cache folder of its own; JAX has eight CPU devices, and compiles in a hurry."""

import gc
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import pytest

from resjax import Architecture, Data, Experiment, Optimizer, load_data
from resjax.models import onednn

# A command that was started with nohup, or by a shell in the background, ignores these, and so would what tests start.
# A handler that is a function is not inherited: the run itself outlives its shell as before.
for number, handler in ((signal.SIGHUP, lambda *_: None), (signal.SIGINT, signal.default_int_handler)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)
# Compiling takes most of the tests' time: LLVM optimises nothing and gets a program as one module. XLA reads the flags
# when the backend starts, and processes that a test starts inherit them.
HURRY = ("--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
         "--xla_cpu_parallel_codegen_split_count=1 "
         "--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters,xla_cpu_disable_loop_unrolling")
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {HURRY}"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
jax.config.update("jax_num_cpu_devices", 8)
if os.environ.get("RESJAX_TEST_ONEDNN") == "1":  # the networks of tests are so small that XLA computes them otherwise
    onednn.SMALL = 0


@pytest.fixture(scope="session", autouse=True)
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what all workers, and what they start, compile in one place: its path is a part of the programs' keys."""
    own = tmp_path_factory.getbasetemp()
    folder = str((own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "programs")
    jax.config.update("jax_compilation_cache_dir", folder)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("JAX_COMPILATION_CACHE_DIR", folder)
        yield


@pytest.fixture(scope="module", autouse=True)
def room_for_programs() -> Iterator[None]:
    """Drop compiled programs before the process has more mappings than Linux grants (65,530): LLVM then crashes."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_text().count("\n") > 20_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep decoded data apart from the user's."""
    monkeypatch.setenv("RESJAX_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def small() -> Callable[..., Experiment]:
    """Make the smallest run: ResNet-8 on the digits, a few steps; fields can be replaced."""
    run = Experiment(name="small", architecture=Architecture(depth=8, ghost_batch_size=16),
                     optimizer=Optimizer(learning_rate=0.05), data=Data(source="digits", pad=1, flip=False), steps=6,
                     batch_size=32, log_steps=2, checkpoint_steps=2, precise_batch_norm_steps=2)
    return lambda **changes: replace(run, **changes)


@pytest.fixture
def one_device(monkeypatch):
    devices = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: devices)


@pytest.fixture(scope="session")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the digits below five and those from five on as folders of pictures, a few of the latter."""
    from PIL import Image

    root, digits = tmp_path_factory.mktemp("digits"), load_data(Data(source="digits"))
    for split in ("train", "test"):
        pixels, labels = getattr(digits, split)
        for half, names in (("low", "01234"), ("high", "56789")):
            for name in names:
                folder = root / half / split / name
                folder.mkdir(parents=True)
                chosen = pixels[labels == int(name)][:20 if (half, split) == ("high", "train") else None]
                for number, image in enumerate(chosen):
                    Image.fromarray(image[..., 0]).save(folder / f"{number:03}.png")
    return root


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real photographs in ImageNet's layout, small: `folders/`, `tars/`, `tfds/photos/`."""
    from photographs import write_archives, write_folders, write_prepared

    root = tmp_path_factory.mktemp("photographs")
    write_folders(root / "folders")
    write_archives(root / "folders", root / "tars")
    write_prepared(root / "folders", root / "tfds")
    return root


def same_trees(a: Any, b: Any, tolerance: float) -> bool:
    """Compare two trees of arrays by structure and value."""
    import numpy as np

    close = jax.tree.map(lambda x, y: np.allclose(x, y, rtol=tolerance, atol=tolerance), a, b)
    return all(jax.tree.leaves(close))


def flip(file: Path, position: int) -> None:
    """Damage a file: turn a bit of one byte around."""
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)
