"""The errors of finished runs by a table's protocol: measured once, and kept beside the checkpoints."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resjax.evaluation import Protocol
from resjax.files import write_json
from resjax.measure import measure
from resjax.processes import is_first
from resjax.training import read_result, restore

BATCH = 256  # crops at once


def measured(workdirs: Sequence[Path], views: Protocol) -> dict[str, Any]:
    """Return `top1_error` and `top5_error` in percent, of a run or of an ensemble of runs.

    The single view was measured at the end of the training; others are measured here, on all devices.
    """
    results = [read_result(workdir) or {} for workdir in workdirs]
    if views == "single" and len(results) == 1:
        return {key: results[0][f"test_{key}"] for key in ("top1_error", "top5_error")}
    digests = [result["state_digest"] for result in results]
    name = "errors" if len(workdirs) == 1 else "ensemble"
    file = workdirs[0] / f"{name}-{views}.json"
    if file.exists():
        kept = json.loads(file.read_text())
        if kept["state_digests"] == digests:
            return kept
    errors = measure([restore(workdir).network for workdir in workdirs], "test", views, BATCH)
    found = {**errors._asdict(), "runs": [str(workdir) for workdir in workdirs], "state_digests": digests}
    if is_first():
        write_json(file, found)
    return found
