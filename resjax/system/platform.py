"""Settings that XLA or glibc reads once at startup, and the versions of jaxlib for which we tested XLA's settings.

`import resjax` calls `configure()`, so import resjax before the first JAX computation.
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

# jaxlib 0.10.2 enabled YNNPACK's fusions on CPU. There they make these convolutions two to six times slower and some
# matrix-vector products wrong (jax-ml/jax#39103). In 0.12 the products pass the checks of `resjax doctor`. On an Intel
# Xeon, a step of ResNet-20 takes 1.2 times as long with the fusions, and of ResNet-50 1.3 times. On another machine,
# a step was a tenth faster (docs/results/speed.md). Older jaxlibs abort on this flag. Tested with 0.10.2 and 0.12.0.1;
# pyproject.toml requires jaxlib below 0.13.
YNNPACK_OFF = "--xla_cpu_experimental_ynn_fusion_type="
YNNPACK_SINCE = (0, 10, 2)
# RESJAX_DETERMINISTIC=1 forbids GPU operations that add in any order; XLA refuses those without an alternative. It also
# disables autotuning, which chooses algorithms by measured speed and so differs between starts. Without autotuning, XLA
# has no Triton settings for matrix products when compiling for a GPU that is not present, so cuBLAS computes them. The
# flags are those of jaxlib 0.10 to 0.12.
DETERMINISTIC = ("--xla_gpu_exclude_nondeterministic_ops=true --xla_gpu_autotune_level=0 "
                 "--xla_gpu_enable_triton_gemm=false")


def configure() -> None:
    """Append our flags to XLA_FLAGS, except those that the user has set."""
    if "--distributed" in sys.argv:  # hides XLA's many log lines about a process that died, but not its exceptions
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "4")
    jaxlib = tuple(int(part) for part in version("jaxlib").split(".")[:3])
    flags = os.environ.get("XLA_FLAGS", "")
    ours = YNNPACK_OFF if jaxlib >= YNNPACK_SINCE and YNNPACK_OFF.rstrip("=") not in flags else ""
    if os.environ.get("RESJAX_DETERMINISTIC") == "1" and DETERMINISTIC not in flags:
        ours = f"{ours} {DETERMINISTIC}"
    if not ours:
        return
    if jax_has_started():
        warnings.warn("JAX was already running when resjax was imported, so training on CPUs will be slow. "
                      f"Import resjax first, or set XLA_FLAGS='{ours.strip()}'", stacklevel=3)
        return
    os.environ["XLA_FLAGS"] = f"{flags} {ours}".strip()


def keep_freed_memory() -> None:
    """Let glibc keep up to a gigabyte of freed memory. Call this function only in resjax's own processes.

    XLA's CPU client allocates memory for temporaries with malloc in every call and frees it. By default, glibc returns
    such large blocks to the system, which later has to zero them again page by page. This takes 50 of the 250 ms of a
    step of ResNet-20, measured with glibc 2.36. Other C libraries have no `mallopt`, so this function does nothing
    there. The number of arenas stays unchanged. With a single arena, XLA's threads would wait for each other: compiling
    takes a quarter longer, and ResNet-8 on the digits trains a quarter slower.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((M_MMAP_THRESHOLD, 1 << 30), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 1 << 26)):
            mallopt(parameter, value)


M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h


def return_freed_memory() -> None:
    """Have glibc return all freed memory to the system, such as the memory that a compilation has used.

    XLA frees it in small pieces, too small for the arrays of a step, which would take new memory beside it. For a step
    of ResNet-50 with a batch of 16, the peak is 2,319 MB instead of 2,767 MB.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def restart_with_huge_pages() -> None:
    """Restart this process once so that glibc requests huge pages. Call this function only in resjax's own processes.

    glibc reads this setting only at startup. On 2 cores of an AMD EPYC, a step of ResNet-50 at batch 16 takes 2.75 s
    and 362,000 page faults without huge pages, and 2.34 s and 1,700 page faults with them. Nothing happens if Linux
    always or never grants huge pages, or if GLIBC_TUNABLES is set.
    """
    if wish := huge_pages():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | wish)


def huge_pages() -> dict[str, str]:
    """Return the environment variable with which glibc (2.35 or newer) requests huge pages, if that helps."""
    asked = "GLIBC_TUNABLES" in os.environ
    policy = ON_REQUEST.read_text("utf-8") if not asked and ON_REQUEST.exists() else ""
    return {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"} if "[madvise]" in policy else {}


ON_REQUEST = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def jax_has_started() -> bool:
    """Return whether JAX has already read the flags."""
    if "jax" not in sys.modules:
        return False
    from jax._src import xla_bridge  # there is no public API for this

    return xla_bridge.backends_are_initialized()


def cache_directory() -> Path:
    """Return the folder for decoded data and compiled programs, which is RESJAX_CACHE or the user's cache folder."""
    if named := os.environ.get("RESJAX_CACHE"):
        return Path(named)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "resjax"
    except RuntimeError:
        raise BadInput("found no home folder for the cache; set RESJAX_CACHE to a folder") from None


def keep_compiled_programs() -> None:
    """Enable JAX's compilation cache in our cache folder, unless the user has configured one."""
    import jax  # imported here, because commands that compute nothing do not need it

    if getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        folder = cache_directory() / "programs"
        with suppress(OSError):  # the cache cannot be written; `resjax doctor` reports it
            remove_damaged_programs(folder)
        # If the disk is full, JAX warns about every program; the run itself ends with one line about the disk
        warnings.filterwarnings("ignore", "Error writing persistent compilation cache entry")
        jax.config.update("jax_compilation_cache_dir", str(folder))


def remove_damaged_programs(folder: Path) -> None:
    """Remove compiled programs that JAX could not decompress, among those written since the last call.

    JAX writes programs in place and never replaces a file. After a kill or on a full disk, an incomplete program
    remains, and JAX would warn and compile again at every start. Decompressing takes 4 ms per program, so only new
    programs are checked. With zlib, the checksum detects any flipped bit. With `zstandard`, which JAX uses if it is
    installed, there is no checksum. Three quarters of flipped bits then go unnoticed (JAX 0.10.2 and 0.12.0.1), and a
    few of these crash the process in LLVM.
    """
    by = "zstandard" if find_spec("zstandard") else "zlib"
    folder.mkdir(parents=True, exist_ok=True)
    checked = folder / f"checked-{by}"  # one file per format, because each reads only its own programs
    last = checked.stat().st_mtime if checked.exists() else 0.0
    checked.touch()
    decompress = zlib.decompress if by == "zlib" else import_module(by).ZstdDecompressor().decompress
    for file in folder.glob("*-cache"):
        if file.stat().st_mtime >= last:
            try:
                decompress(file.read_bytes())
            except Exception:  # zlib.error or ZstdError, depending on what is installed
                file.unlink(missing_ok=True)
