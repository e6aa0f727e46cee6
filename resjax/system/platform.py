"""Settings that XLA reads once, when it starts: kept here, with the versions they were tested with.

`import resjax` calls `configure()`, so import it before the first JAX computation.
"""

import ctypes
import os
import sys
import warnings
import zlib
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from resjax.system.errors import BadInput

# jaxlib 0.10.2 turned YNNPACK fusion on for the CPU. There it makes these convolutions two to six times slower, and
# some matrix-vector products wrong (jax-ml/jax#39103). In 0.12 the products are right by the checks of `resjax doctor`,
# and on an Intel Xeon a step of ResNet-20 takes 1.2 times as long with it, of ResNet-50 1.3 times; on another machine
# it was a tenth faster (docs/results/speed.md). Older jaxlibs do not know the flag and abort on it. Tested
# with 0.10.2 and 0.12.0.1; pyproject.toml ends at 0.13.
YNNPACK_OFF = "--xla_cpu_experimental_ynn_fusion_type="
YNNPACK_SINCE = (0, 10, 2)
# RESJAX_DETERMINISTIC=1: no operation on GPU that adds up in any order (it is refused where there is no other), and no
# choice of algorithms by their speed, which differs from start to start. Without that choice there is no setting for a
# matrix product by Triton where a program is compiled for a GPU that is not here, so cuBLAS computes it. The flags are
# those of jaxlib 0.10 to 0.12.
DETERMINISTIC = ("--xla_gpu_exclude_nondeterministic_ops=true --xla_gpu_autotune_level=0 "
                 "--xla_gpu_enable_triton_gemm=false")


def configure() -> None:
    """Append our flags to the user's XLA_FLAGS, unless the user has set them."""
    if "--distributed" in sys.argv:  # where a process dies, XLA writes pages; what it raises is told as ever
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "4")
    jaxlib = tuple(int(part) for part in version("jaxlib").split(".")[:3])
    flags = os.environ.get("XLA_FLAGS", "")
    ours = YNNPACK_OFF if jaxlib >= YNNPACK_SINCE and YNNPACK_OFF.rstrip("=") not in flags else ""
    if os.environ.get("RESJAX_DETERMINISTIC") == "1" and DETERMINISTIC not in flags:
        ours = f"{ours} {DETERMINISTIC}"
    if not ours:
        return
    if jax_has_started():
        warnings.warn("JAX had started before resjax was imported: on CPU it will be slow. "
                      f"Import resjax first, or set XLA_FLAGS='{ours.strip()}'", stacklevel=3)
        return
    os.environ["XLA_FLAGS"] = f"{flags} {ours}".strip()


def keep_freed_memory() -> None:
    """Have glibc keep up to a gigabyte of what is freed: for a process that is resjax's own.

    XLA's CPU client takes memory for temporary results from malloc at every call and gives it back. By default glibc
    returns such large blocks to the system, which then fills them with zeros again, page by page: 50 of 250 ms of a
    step of ResNet-20. With glibc 2.36; other C libraries do not have `mallopt`, and nothing happens. The number of
    arenas stays glibc's: with a single one, XLA's threads wait for each other, so that programs take a quarter longer
    to compile and ResNet-8 on the digits trains a quarter slower.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((M_MMAP_THRESHOLD, 1 << 30), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 1 << 26)):
            mallopt(parameter, value)


M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h


def restart_with_huge_pages() -> None:
    """Start this process again, once, so that glibc asks Linux for huge pages: for a process that is resjax's own.

    glibc reads the wish only when a process starts. On 2 cores of an AMD EPYC a step of ResNet-50 at batch 16 takes
    2.75 s and 362,000 page faults without them, and 2.34 s and 1,700 with them. Nothing happens where Linux gives
    them unasked or not at all, or where GLIBC_TUNABLES is set.
    """
    if wish := huge_pages():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | wish)


def huge_pages() -> dict[str, str]:
    """Return the environment variable by which glibc (2.35 or newer) asks for huge pages, where that helps."""
    asked = "GLIBC_TUNABLES" in os.environ
    given = ON_REQUEST.read_text() if not asked and ON_REQUEST.exists() else ""
    return {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"} if "[madvise]" in given else {}


ON_REQUEST = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def jax_has_started() -> bool:
    """Say whether JAX has read the flags already."""
    if "jax" not in sys.modules:
        return False
    from jax._src import xla_bridge  # the public API cannot say

    return xla_bridge.backends_are_initialized()


def cache_directory() -> Path:
    """Where decoded data and compiled programs are kept between runs: RESJAX_CACHE or the user's cache folder."""
    if named := os.environ.get("RESJAX_CACHE"):
        return Path(named)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "resjax"
    except RuntimeError:
        raise BadInput("no home folder is known to keep a cache in; RESJAX_CACHE names a folder") from None


def keep_compiled_programs() -> None:
    """Keep compiled programs in the cache folder, so that a second start need not compile; the user's choice wins."""
    import jax  # here, as commands that compute nothing do without

    if getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        folder = cache_directory() / "programs"
        with suppress(OSError):  # a cache that cannot be written; `resjax doctor` tells
            remove_damaged_programs(folder)
        # On a full disk JAX warns of every program, where the run itself ends with one line about the disk
        warnings.filterwarnings("ignore", "Error writing persistent compilation cache entry")
        jax.config.update("jax_compilation_cache_dir", str(folder))


def remove_damaged_programs(folder: Path) -> None:
    """Remove the compiled programs that JAX could not decompress, among those written since the last call.

    JAX writes a program in place, so that a kill or a full disk leaves half of one, and never replaces a file: it would
    warn and compile anew at every start. Decompressing takes 4 ms a program, hence only what is new. JAX compresses by
    zlib, whose checksum tells a flipped bit; or by `zstandard` where that is installed, which has none: of flipped bits
    three quarters go unnoticed (JAX 0.10.2 and 0.12.0.1), and of those a few end the process in LLVM.
    """
    by = "zstandard" if find_spec("zstandard") else "zlib"
    folder.mkdir(parents=True, exist_ok=True)
    checked = folder / f"checked-{by}"  # by each: what the other has compressed is none of its programs
    last = checked.stat().st_mtime if checked.exists() else 0.0
    checked.touch()
    decompress = zlib.decompress if by == "zlib" else import_module(by).ZstdDecompressor().decompress
    for file in folder.glob("*-cache"):
        if file.stat().st_mtime >= last:
            try:
                decompress(file.read_bytes())
            except Exception:  # zlib.error or ZstdError, whichever is installed
                file.unlink(missing_ok=True)
