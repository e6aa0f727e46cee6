"""All campaigns in their long forms, one after the other, with a table of what came of them.

    python tests/campaign/all.py [--workdir DIR] [--short]

It takes hours, in the short form minutes. Each program is also one by itself, and says what it does; what a program
printed lies in DIR/NAME.txt.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tyro

PROGRAMS = {  # with what makes each short
    "weights": ["--mutations", "100", "--only", "index"], "damage": ["--only", "^annotations"],
    "command_lines": ["--count", "20"], "kills": ["--count", "10"], "signals": ["--count", "3", "--only", "script"],
    "full_disk": [], "images": ["--count", "200"], "annotations": ["--count", "200"],
    "kinds": []}
KEEP = ("kills", "damage", "full_disk", "signals")  # these take a folder to work in


def campaign(workdir: Path | None = None, short: bool = False) -> int:
    """Run every program; the exit code is 1 where one found a fault.

    Args:
        workdir: Where everything lies; by default a temporary folder.
        short: A few cases of each program, to see that all of them work.
    """
    folder, failed = Path(workdir or tempfile.mkdtemp()).absolute(), False
    folder.mkdir(exist_ok=True)
    for name, few in PROGRAMS.items():
        begun = time.monotonic()
        place = ["--workdir", str(folder / name)] if name in KEEP else []
        command = [sys.executable, str(Path(__file__).with_name(f"{name}.py")), *(few if short else []), *place]
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
