"""Annotations mutated by the thousand, and all kinds of them: each is refused in a line, or nothing else has changed.

    python tests/campaign/annotations.py [--count 5000] [--seed 0]

Takes the mutations of tests/annotation_mutations.py and the kinds of tests/annotation_kinds.py, and prints a JSON line
of what came of them.
"""

import json
import sys
import tempfile
from pathlib import Path

import tyro

sys.path.insert(0, str(Path(__file__).parents[1]))
from annotation_kinds import KINDS, outcome
from annotation_mutations import tried


def campaign(count: int = 5_000, seed: int = 0) -> int:
    """Count what comes of every kind and mutation; the exit code is 1 where one of them is a fault.

    Args:
        count: Mutations.
        seed: Of the mutations.
    """
    with tempfile.TemporaryDirectory() as folder:
        kinds = {kind: {layout: told(Path(folder) / layout / kind, layout, kind) for layout in ("voc", "coco")}
                 for kind in KINDS}
        counts, faults = tried(Path(folder) / "mutations", count, seed)
    print("\n".join(faults))
    wrong = [kind for kind, found in kinds.items() if set(found.values()) != {KINDS[kind].right}]
    print(json.dumps({"kinds": kinds, "wrong kinds": wrong, "mutations": {**counts, "faults": len(faults)}}))
    return int(bool(faults or wrong))


def told(root: Path, layout: str, kind: str) -> str:
    """Return what came of a kind, or the exception."""
    try:
        return str(outcome(root, layout, kind)[0])
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:80]


if __name__ == "__main__":
    sys.exit(tyro.cli(campaign))
