"""Compares recipes by mean and standard deviation over their seeds. A recipe's runs differ only in their seeds."""

import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from resjax.paper.figures import save_figure
from resjax.paper.mean_curves import Curve, curves_of, draw_curves
from resjax.paper.results import spread
from resjax.paper.table import markdown
from resjax.system.errors import check
from resjax.system.files import expanded, read_json, write_csv, write_json, write_text
from resjax.system.serialization import BY_CONTENT, MAY_CHANGE
from resjax.training.kinds import Measure, Run, kind_of
from resjax.training.python_objects import UNKEPT
from resjax.training.records import find_runs, values_of
from resjax.training.run_directory import finished_result, read_descriptions, read_experiment

APART = {"seed", *MAY_CHANGE}  # fields that may differ between seeds of one recipe
DRAWN = 12  # largest number of recipes in a plot; more could not be distinguished


class Group(NamedTuple):
    """The runs of one recipe, each with its folder and its result (None for an unfinished run), one per seed."""

    name: str
    runs: tuple[tuple[Path, Run, dict[str, Any] | None], ...]
    repeated: tuple[Path, ...] = ()  # further runs of a seed in `runs`

    @property
    def first(self) -> Run:
        """The first run."""
        return self.runs[0][1]

    @property
    def network(self) -> str:
        """The network's name, or the description of a custom network."""
        return str(values_of(*self.runs[0][:2])["network"])

    @property
    def finished(self) -> int:
        """The number of finished runs."""
        return sum(result is not None for _, _, result in self.runs)

    def values(self, measure: Measure) -> list[float]:
        """Return the values of a measure for the finished runs."""
        values = (measure.of(result) for _, _, result in self.runs if result is not None)
        return [value for value in values if value is not None]

    def curves(self) -> list[Curve]:
        """Return the curves of the finished runs, or of all runs if none is finished."""
        wanted = [run for run, _, result in self.runs if result is not None] or [run for run, _, _ in self.runs]
        return curves_of(self.name, self.first, wanted)


@dataclass(frozen=True)
class Comparison:
    """A comparison of recipes, with statistics over the seeds of each (see `resjax.compare`). It prints as a table."""

    groups: tuple[Group, ...]

    def __repr__(self) -> str:
        return f"{markdown(group_rows(self.groups))}\n\n{self.left_out()}".rstrip()

    def records(self) -> list[dict[str, Any]]:
        """Return one record per recipe, all with the same keys: `pandas.DataFrame(resjax.compare("runs").records())`.

        Each measure has a `_mean` and a `_deviation` over the finished runs. The deviation is the sample standard
        deviation, and None for one seed.
        """
        return [{"run": group.name, "network": group.network, "steps": group.first.steps,
                 "runs": len(group.runs), "finished": group.finished,
                 "seeds": " ".join(str(run.seed) for _, run, _ in group.runs)} | {
                    f"{measure.key}_{what}": value for measure in measures_of(self.groups)
                    for what, value in zip(("mean", "deviation"), moments(group.values(measure)), strict=True)}
                for group in self.groups]

    def save(self, folder: str | Path) -> list[Path]:
        """Write `compare.md`, `compare.csv`, `compare.json` and the curves, `compare.svg`; return the files."""
        folder = expanded(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / f"compare.{suffix}" for suffix in ("md", "csv", "json", "svg")]
        records = self.records()
        write_text(files[0], f"{markdown(group_rows(self.groups))}\n\n{self.note()}\n\n![curves](compare.svg)\n")
        write_csv(files[1], list(records[0]), [list(record.values()) for record in records])
        write_json(files[2], {"rows": [group_as_json(group) for group in self.groups]})
        self.draw(files[3])
        return files

    def note(self) -> str:
        """Return a note that explains the numbers and the curves."""
        some = f" of the first {DRAWN} of {len(self.groups)} recipes" if len(self.groups) > DRAWN else ""
        return (f"Mean ± standard deviation over n seeds, after the last step. The curves{some} show means, "
                f"with bands of one standard deviation on each side. {self.left_out()}".rstrip())

    def left_out(self) -> str:
        """Name the runs left out because another run has the same recipe and seed: they are not independent samples."""
        twice = [str(run) for group in self.groups for run in group.repeated]
        return f"Left out, because another run has the same recipe and seed: {', '.join(twice)}." if twice else ""

    def draw(self, file: Path | io.BytesIO) -> None:
        """Draw the mean curves with bands of one standard deviation, as SVG."""
        save_figure(draw_curves([group.curves() for group in self.groups[:DRAWN]]), file)


def compare(*folders: str | Path) -> Comparison:
    """Compare runs by the mean and standard deviation of each recipe's results over its seeds.

    Runs that differ only in their seeds belong to one recipe. Each of `folders` (by default, only `runs`) is a run
    directory, or contains runs at any depth. The result prints as a table. Its method `save(folder)` writes it as
    Markdown, CSV and JSON, and plots the mean curves of each recipe, with bands of one standard deviation on each side.
    Raises BadInput, naming the folders, if they contain no finished run.
    """
    places = [run for folder in folders or ("runs",) for run in find_runs(expanded(folder))]
    runs = list({run.resolve(): run for run in places}.values())
    groups = group_runs([(run, experiment, finished_result(run, experiment)) for run in runs
                         for experiment in [read_experiment(run)]])
    check(any(group.finished for group in groups),
          f"{', '.join(map(str, folders or ('runs',)))}: contains no finished run")
    return Comparison(tuple(groups))


def group_runs(runs: Sequence[tuple[Path, Run, dict[str, Any] | None]]) -> list[Group]:
    """Group the runs that differ only in their seeds, in order of appearance; each seed counts once.

    Recipes with the same name are labelled by the fields in which they differ.
    """
    gathered: dict[str, list[tuple[Path, Run, dict[str, Any] | None]]] = {}
    recipes: dict[str, dict[str, Any]] = {}
    for run_directory, run, result in runs:
        values = {name: value for name, value in values_of(run_directory, run).items() if name not in APART}
        if "model" not in (read_descriptions(run_directory) or {}):
            del values["network"]  # the fields of architecture describe it
        values |= {"objects": objects_of(run_directory), "data.source": images_of(run_directory, run)}
        if not values["objects"] and UNKEPT in str(values.get("optimizer")):  # only one folder's runs surely share it
            values["folder"] = str(run_directory.parent)
        key = repr((run.kind, sorted((name, repr(value)) for name, value in values.items())))
        gathered.setdefault(key, []).append((run_directory, run, result))
        recipes[key] = values
    groups = []
    for key, some in gathered.items():
        first = some[0][1]
        alike = [values for other, values in recipes.items() if values["name"] == first.name and other != key]
        own = [difference(field, value, *some[0][:2]) for field, value in recipes[key].items()
               if any(values.get(field) != value for values in alike)]
        seeds: dict[int, tuple[Path, Run, dict[str, Any] | None]] = {}
        for each in sorted(some, key=lambda run: run[2] is None):  # finished runs first
            seeds.setdefault(each[1].seed, each)
        repeated = tuple(each[0] for each in some if each is not seeds[each[1].seed])
        groups.append(Group(", ".join([first.name, *own]), tuple(seeds[seed] for seed in sorted(seeds)), repeated))
    return groups


def difference(field: str, value: Any, run_directory: Path, run: Run) -> str:
    """Describe a field in which a recipe differs from others of its name. Digests are replaced by a folder that has
    these values.
    """
    if field == "objects":
        return f"code of {run_directory}"
    if field == "data.source":
        return f"images of {run_directory}" if run.data.source == "arrays" else f"{field} {run.data.source}"
    return f"{field} {value}"


def images_of(run_directory: Path, run: Run) -> Any:
    """Describe a run's images, by their contents if they are arrays, or files that may have been moved."""
    source: str = run.data.source
    by_content = source == "arrays" or any(source.partition(":")[0] in kinds for kinds in BY_CONTENT)
    return read_json(run_directory / "experiment.json").get("images", source) if by_content else source


def objects_of(run_directory: Path) -> Any:
    """Return the digests of what a run's Python objects compute; for an old run, those of the objects' files."""
    file = run_directory / "experiment.json"
    record = read_json(file) if file.exists() else {}
    return record.get("programs") or record.get("code")


def measures_of(groups: Sequence[Group]) -> list[Measure]:
    """List the main measure of each kind of run, and all other measures that at least one run has."""
    return list(dict.fromkeys(measure for group in groups for place, measure in enumerate(kind_of(group.first).MEASURES)
                              if not place or any(other.values(measure) for other in groups)))


def group_rows(groups: Sequence[Group]) -> list[list[str]]:
    """Return a table with a header and a row for each recipe."""
    measures = measures_of(groups)
    rows = [["run", "network", "steps", *(measure.title for measure in measures), "n"]]
    for group in groups:
        rows.append([group.name, group.network, f"{group.first.steps:,}",
                     *(spread(measure, group.values(measure)) for measure in measures),
                     f"{group.finished}" if group.finished == len(group.runs) else
                     f"{group.finished} of {len(group.runs)}"])
    return rows


def moments(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the mean and the sample standard deviation; None for each that is undefined."""
    return statistics.fmean(values) if values else None, statistics.stdev(values) if len(values) > 1 else None


def group_as_json(group: Group) -> dict[str, Any]:
    """Convert a recipe's results to JSON values."""
    by_measure = {measure.key: group.values(measure) for measure in kind_of(group.first).MEASURES}
    return {"run": group.name, "network": group.network, "seeds": [run.seed for _, run, _ in group.runs],
            "measures": {key: {"values": values, **dict(zip(("mean", "deviation"), moments(values), strict=True))}
                         for key, values in by_measure.items()}}
