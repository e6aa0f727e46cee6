"""Plans for hardware that you don't have: programs are compiled, analysed, and converted to hours."""

from importlib import import_module
from typing import Any

HOMES = {"classification": "resjax.plan.classifier", "detection": "resjax.plan.detector"}


def workload_of(run: Any) -> Any:
    """Describe a run as a `plan.plan.Workload`; each kind of run has a module that knows its programs."""
    return import_module(HOMES[run.kind]).workload_of(run)
