"""The command that plans a run on hardware you don't have."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import tyro

from resjax import experiment_files
from resjax.console.arguments import parse
from resjax.plan.devices import find_device
from resjax.system.errors import BadInput, check
from resjax.system.files import write_json
from resjax.system.progress import working
from resjax.system.terminal import aligned, room, say
from resjax.training.kinds import Run

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class PlanArguments(Generic[Value]):
    """Plan a run on hardware you don't have. You can change all values of the run, as with train."""

    on: Literal["h100", "h200", "a100", "b200", "v5e", "v5p", "v6e"]
    """The device to plan for."""
    devices: int = 1
    """The number of devices that share each batch."""
    hosts: int = 1
    """The number of machines that contain the devices. For TPUs, use 1, because a single interconnect joins all devices
    of a TPU slice."""
    whole_table: bool = False
    """Also plan the other runs of the tables that contain this run, and add up the hours. Values that you change apply
    to all these runs."""
    json: Path | None = None
    """Also write all numbers to this file as JSON."""
    experiment: Annotated[Value, tyro.conf.arg(name="")]
    """The values of the run."""


def plan(experiment: Run, arguments: Sequence[str], program: str) -> None:
    """Plan a run on hardware you don't have."""
    asked = read_arguments(experiment, arguments, program)
    with working("loading JAX"):  # imported here, so that the help is quick
        from resjax.plan.compile import hide_devices

        hide_devices()
        tables = tables_with(experiment.name) if asked.whole_table else {}
    check(bool(tables) or not asked.whole_table, f"--whole-table: no table of the paper contains {experiment.name}")
    result = plan_one(asked)
    say("\n".join(lines(asked.on, result)))
    if asked.whole_table:
        result["tables"] = {title: dict(plan_all(runs, arguments, program)) for title, runs in tables.items()}
        say("\n".join(lines_of_tables(result)))
    if asked.json:
        write_json(asked.json, result)


def read_arguments(experiment: Run, arguments: Sequence[str], program: str) -> PlanArguments[Any]:
    """Parse the devices to plan for, and the run with its changed values, if any."""
    kind: Any = PlanArguments[type(experiment)]  # type: ignore[misc]
    default = PlanArguments(experiment=experiment, on=tyro.MISSING)
    asked: PlanArguments[Any] = parse(kind, arguments, program, default=default)
    return asked


def plan_one(asked: PlanArguments[Any]) -> dict[str, Any]:
    """Plan a run for the requested devices."""
    from resjax.plan.plan import plan_run

    with working(f"compiling {asked.experiment.name} for {asked.devices} x {asked.on}"):
        return plan_run(asked.experiment, asked.on, asked.devices, asked.hosts)


def tables_with(name: str) -> dict[str, dict[str, Any]]:
    """Return the tables of the paper that contain this run, by title; each maps the names of its runs to the runs."""
    from resjax.paper.tables import TABLES

    files = experiment_files.names()
    runs_by_table = {table.title: {f"{each}, seed {seed}" if seed else each: files[Path(table.file).stem][each]
                                   for row in table.rows if row.experiment
                                   for each, seed in (row.members or [(row.experiment, 0)])}
                     for table in TABLES.values()}
    return {title: runs for title, runs in runs_by_table.items() if name in runs}


def plan_all(runs: Mapping[str, Any], arguments: Sequence[str], program: str) -> Iterator[tuple[str, Any]]:
    """Plan several runs with the same flags. Yield the main figures of each run, or the reason why it has no plan."""
    for name, run in runs.items():
        try:
            result = plan_one(read_arguments(run, arguments, program))
        except BadInput as error:
            yield name, {"refused": str(error)}
        else:
            yield name, {key: result[key] for key in ("run_hours", "device_hours", "images_per_second", "limit")}


def lines(name: str, plan: dict[str, Any]) -> Iterator[str]:
    """Format a plan as text."""
    device, programs, train = find_device(name), plan["programs"], plan["programs"]["train"]
    hours = ", ".join(f"{kind} {spent:.2f}" for kind, spent in plan["hours"].items())
    yield (f"{plan['experiment']} on {plan['devices']} x {plan['device']}, batch {plan['batch_size']}, "
           f"{plan['precision']}; compiled in {plan['compile_seconds']:.0f} s")
    yield layout_table([["per device, for one step or batch", *programs],
                        *([title, *map(value, programs.values())] for title, value in ROWS.items())])
    yield layout_table([["training step, by kind", "kernels", "GB", "G multiply-adds", "min ms"],
                        *([kind, f"{part['kernels']:.0f}", f"{part['bytes'] / 1e9:.2f}", f"{part['macs'] / 1e9:.0f}",
                           f"{1e3 * part['seconds']:.3f}"] for kind, part in train["parts"].items())])
    for kind, (times, size) in train["collectives"].items():
        yield f"{kind}: {times:.0f} per step, {size / 1e6:.2f} MB of arrays"
    if train["limits"]["exchange"]:
        yield (f"the exchange between devices takes at least {1e3 * train['limits']['exchange']:.3f} ms, in parallel "
               "with the computation")
    yield (f"\nAt most {plan['images_per_second']:,.0f} images/s, limited by {plan['limit']}. The run takes at least "
           f"{plan['run_hours']:.2f} hours ({hours}), or {plan['device_hours']:.1f} device-hours. It uses "
           f"{100 * plan['memory_share']:.0f} % of the memory.")
    yield f"Source: {device.source}. Memory figures are XLA's. The times are lower bounds, not measurements."
    if device.platform == "tpu":
        yield "The compiler stopped once the program and its memory were known. It generated no machine code."
    if device.launch:
        yield f"Assumption: a kernel takes at least {1e6 * device.launch:.0f} us."
    yield from plan["assumptions"]


def lines_of_tables(plan: dict[str, Any]) -> Iterator[str]:
    """Format the hours of whole tables as text."""
    for title, runs in plan["tables"].items():
        planned = {name: run for name, run in runs.items() if "refused" not in run}
        totals = {key: sum(run[key] for run in planned.values()) for key in ("run_hours", "device_hours")}
        yield f"\n{title}" + layout_table([["lower bounds", "hours", "device-hours"], *(
            [name, f"{run['run_hours']:.2f}", f"{run['device_hours']:.1f}"] for name, run in
            (planned | {f"{len(planned)} of {len(runs)} runs, one seed per row": totals}).items())])
        yield from (f"{name}: {run['refused']}" for name, run in runs.items() if name not in planned)


ROWS: dict[str, Callable[[dict[str, Any]], str]] = {
    "kernels": lambda program: f"{program['kernels']:,.0f}",
    "bytes moved, GB": lambda program: f"{program['bytes'] / 1e9:.2f}",
    "multiply-adds, G": lambda program: f"{program['macs'] / 1e9:.0f}",
    "arguments, MiB": lambda program: f"{program['argument_bytes'] / 2**20:,.0f}",
    "temporaries, MiB": lambda program: f"{program['temporary_bytes'] / 2**20:,.0f}",
    "peak, MiB": lambda program: f"{program['peak_bytes'] / 2**20:,.0f}",
    "min time, ms": lambda program: f"{1e3 * program['seconds']:.3f}",
    "limited by": lambda program: max(program["limits"], key=program["limits"].get),
    "compile time, s": lambda program: f"{program['compile_seconds']:.0f}"}


def layout_table(rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table, preceded by an empty line."""
    return "\n".join(["", *aligned(rows, room(sys.stdout))])
