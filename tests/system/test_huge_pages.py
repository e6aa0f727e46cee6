"""Commands start themselves again where glibc then asks Linux for huge pages."""

import os
import subprocess
import sys

import pytest

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
