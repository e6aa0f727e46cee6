"""Programs of runs for hardware you don't have: compiled, read, and turned into hours."""

from importlib import import_module
from typing import Any

HOMES = {"classification": "resjax.plan.classifier", "detection": "resjax.plan.detector"}


def workload_of(run: Any) -> Any:
    """See a run as a plan does, a `plan.plan.Workload`: each kind of runs has a module that knows its programs."""
    return import_module(HOMES[run.kind]).workload_of(run)
