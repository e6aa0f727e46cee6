"""Damaged images by the ten thousand: each is read, or refused as "damaged image", and nothing else ever happens.

    python tests/campaign/images.py [--count 20000] [--seed 7]

Takes the files of tests/image_kinds.py, changes, cuts, repeats and exchanges bytes, and prints one JSON line: how many
were read and refused, other exceptions by name, the slowest in seconds, and the peak memory of the process in MB.
"""

import json
import resource
import sys
import time
from collections import Counter
from pathlib import Path

import tyro

sys.path.insert(0, str(Path(__file__).parents[1]))
from image_kinds import mutations

from resjax import BadInput
from resjax.data import decode, dimensions


def campaign(count: int = 20_000, seed: int = 7) -> int:
    """Decode damaged images and count what happens; the exit code is 1 where anything else did.

    Args:
        count: Images.
        seed: Of the damage.
    """
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    for content in mutations(count, seed):
        begun = time.perf_counter()
        try:
            dimensions(content, "image")
            decode(content, "image")
            outcomes["read"] += 1
        except BadInput:
            outcomes["refused"] += 1
        except Exception as error:
            outcomes[repr(error)] += 1
        slowest = max(slowest, time.perf_counter() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"images": count, **outcomes, "slowest_seconds": round(slowest, 3), "peak_mb": round(peak)}))
    return int(bool(outcomes.keys() - {"read", "refused"}))


if __name__ == "__main__":
    sys.exit(tyro.cli(campaign))
