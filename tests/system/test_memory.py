"""Commands start themselves again where glibc then asks Linux for huge pages, and return what compiling has freed."""

import ctypes
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from resjax.system.platform import return_freed_memory

PROGRAM = """
import os, sys
from pathlib import Path
from resjax.system import platform
platform.ON_REQUEST = Path(sys.argv[1])
platform.restart_with_huge_pages()
print(os.environ.get("GLIBC_TUNABLES"), sys.argv[2])
"""


@pytest.mark.parametrize(("linux", "given", "then"), [
    ("always [madvise] never", {}, "glibc.malloc.hugetlb=1"),
    ("always [madvise] never", {"GLIBC_TUNABLES": "glibc.malloc.check=0"}, "glibc.malloc.check=0"),
    ("[always] madvise never", {}, "None"),
    ("always madvise [never]", {}, "None"),
    (None, {}, "None"),
])
def test_a_process_starts_again_where_that_helps(linux, given, then, tmp_path):
    if linux:
        (tmp_path / "enabled").write_text(linux)
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"} | given
    done = subprocess.run([sys.executable, "-c", PROGRAM, tmp_path / "enabled", "two words"], env=environment,
                          capture_output=True, text=True, check=True)
    assert done.stdout == f"{then} two words\n"


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="glibc alone has malloc_trim")
def test_memory_freed_in_small_pieces_is_returned():
    libc, size = ctypes.CDLL(None), 2**16
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    blocks = [libc.malloc(size) for _ in range(1000)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    for number, block in enumerate(blocks):
        if number % 10:
            libc.free(block)
    before = resident()
    return_freed_memory()
    assert before - resident() > 0.8 * 900 * size
    for block in blocks[::10]:
        libc.free(block)


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
