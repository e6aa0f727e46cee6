"""All campaigns in their long forms, one after the other, with a table of what came of them.

    python tests/campaign/all.py [--workdir DIR]

It takes hours. Each program is also one by itself, and says what it does; what a program printed lies in DIR/NAME.txt.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tyro

PROGRAMS = {"weights": [], "damage": [], "command_lines": ["--count", "1000"], "kills": ["--count", "1000"],
            "signals": ["--count", "100"], "full_disk": [], "kinds": []}


def campaign(workdir: Path | None = None) -> int:
    """Run every program; the exit code is 1 where one found a fault.

    Args:
        workdir: Where everything lies; by default a temporary folder.
    """
    folder, failed = Path(workdir or tempfile.mkdtemp()).absolute(), False
    folder.mkdir(exist_ok=True)
    for name, arguments in PROGRAMS.items():
        begun, keeps = time.monotonic(), name in ("kills", "damage", "full_disk")
        place = ["--workdir", str(folder / name)] if keeps else []
        command = [sys.executable, str(Path(__file__).with_name(f"{name}.py")), *arguments, *place]
        with (folder / f"{name}.txt").open("w") as out:
            code = subprocess.run(command, check=False, stdout=out, stderr=subprocess.STDOUT).returncode
        failed |= code != 0
        lines = (folder / f"{name}.txt").read_text(errors="replace").splitlines()
        told = [line for line in lines if line.startswith(("{", "constructions", "mutations"))]
        print(f"{name:14} {'right' if code == 0 else 'FAULTS':7} {time.monotonic() - begun:7.0f} s", flush=True)
        for line in told[-2:] if name == "weights" else told[-1:]:
            print(f"    {json.dumps(json.loads(line)) if line.startswith('{') else line}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(tyro.cli(campaign))
