"""Short forms of programs of `tests/campaign`, and all of `kinds.py`, each in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

CAMPAIGN = Path(__file__).parents[1] / "campaign"


def run(program, *arguments):
    """Run a campaign; return what it counted."""
    done = subprocess.run([sys.executable, str(CAMPAIGN / program), *arguments], check=False, capture_output=True,
                          text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_what_is_killed_ends_as_what_is_not(tmp_path):
    counts = run("kills.py", "--count", "8", "--only", "train,prepare", "--workdir", str(tmp_path))
    assert sum(each["kills"] for each in counts.values()) >= 8
    assert [each["other end"] + each["tracebacks"] for each in counts.values()] == [0, 0]


def test_random_command_lines_end_without_a_traceback():
    counts = run("command_lines.py", "--count", "30", "--seed", "3")
    assert counts["lines"] == 30
    assert counts["exit code 2"] > 15
    assert "broke a rule" not in {key for key, value in counts.items() if value}


def test_the_kinds_of_faults_that_a_campaign_found_are_gone():
    counts = run("kinds.py")
    assert counts["hold"] == counts["kinds"] >= 33
