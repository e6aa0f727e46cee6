"""Where the disk is full or cannot be written, a command ends with one line that says so (tests/campaign/full_disk.py).

It runs in a process of its own, as it limits the size of all files that it writes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "campaign" / "full_disk.py"


@pytest.mark.skipif(sys.platform != "linux", reason="permissions are given up by a system call of Linux")
def test_a_full_or_read_only_disk_is_one_line(tmp_path):
    own = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}  # JAX's own warns
    done = subprocess.run([sys.executable, str(PROGRAM), "--workdir", str(tmp_path)], check=False, capture_output=True,
                          text=True, timeout=300, env=own)
    counts = json.loads(done.stdout.splitlines()[-1])
    assert set(counts) == {"full: one line", "read-only: one line"}, done.stdout
    assert counts["full: one line"] >= 12
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "File too large" in done.stdout
    for what in ("run directory", "experiment.json", "checkpoints", "metrics.jsonl", "result.json", "page.html", "out",
                 "figure6"):
        assert f"{what}" in done.stdout
