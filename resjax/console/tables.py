"""Commands that reproduce the paper's tables, compare runs, and write reports on them."""

from pathlib import Path
from typing import Annotated

import tyro

from resjax import experiment_files
from resjax.system.errors import check
from resjax.system.progress import working
from resjax.system.terminal import quoted, say, say_end, say_table, tell


def quickstart(workdir: Path = Path("runs/quickstart")) -> None:
    """Train four small networks, without a download.

    A shallow and a deep network, each with and without shortcuts, learn to classify scikit-learn's digits.

    Without shortcuts, the final training loss of the deep network is higher than that of the shallow network. With
    shortcuts, it is lower.

    Training takes about a minute on two CPU cores.

    Args:
        workdir: The folder for the runs, `table.md` and `curves.png`.
    """
    experiment_files.load_file(experiment_files.folder() / "quickstart.py").quickstart(workdir)


def reproduce(
    table: Annotated[str, tyro.conf.Positional],
    runs: Path = Path("runs"),
    seeds: int | None = None,
    only: str = "",
    scale: float = 1.0,
    shard: str | None = None,
    experiments: Path | None = None,
    data: str | None = None,
    directory: Path | None = None,
    distributed: bool = False,
) -> None:
    """Reproduce a table of the paper.

    The command trains the networks of the table and compares their results with the paper's.

    Finished runs are skipped, and stopped runs are resumed.

    Args:
        table: The name of the table: table1 (layers and operations, without training), table2 to table6
            (classification), or table7 to table10 (detection).
        runs: The folder for the runs and the table.
        seeds: The number of runs for each row, with seeds 0, 1, ... Defaults to 5 for table6 (the paper trained
            ResNet-110 five times) and to 1 for the other tables.
        only: Use only these rows, such as resnet20,plain20. The table then lists no other rows.
        scale: Shorten the schedule to this fraction of its length, such as 0.1. A table of shortened runs says that it
            is not a reproduction.
        shard: Train only one part of the runs, such as 2/8 (the second of eight parts). Other processes or machines can
            train the other parts.
        experiments: A folder with your own experiment files. By default, the files that come with resjax are used.
        data: The images to use instead of those that the experiments name: folder:PATH, tars:PATH or tfds:NAME for
            classification, voc:PATH or coco:PATH for detection.
        directory: The folder of prepared TensorFlow Datasets. Defaults to the environment variable RESJAX_DATA or, if
            unset, to ~/tensorflow_datasets.
        distributed: Train with all processes that SLURM, Open MPI, Kubernetes or a TPU pod has started with this
            command.
    """
    with working("loading JAX"):  # imported here, because other commands do not need it
        from resjax import paper
        from resjax.paper.reproduce import check_seeds
        from resjax.system.distributed import is_first, join

    flags = {"seeds": seeds, "only": only, "scale": scale if scale != 1 else None, "shard": shard, "data": data,
             "directory": directory, "distributed": distributed}
    if table == "table1":
        passed = [name for name, value in flags.items() if value is not None and value is not False and value != ""]
        check(not passed, f"table1 trains nothing, so it does not accept --{' or --'.join(passed)}")
        say_table(paper.table1())
        return
    wanted = paper.find_table(table)
    seeds = wanted.seeds if seeds is None else seeds
    check_seeds(seeds)
    if distributed:
        join()
    rows = [name for name in only.split(",") if name]
    with working("reading the experiments"):
        planned = paper.read_from(paper.plan_runs(wanted, experiments or experiment_files.folder(), runs, seeds, rows,
                                                  scale), data, directory)
    paper.train_missing(paper.shard_of(planned, shard or "1/1"),
                        lambda text: tell(f"{table}  {text}") if is_first() else None)
    flags |= {"seeds": seeds, "experiments": experiments}
    chosen = [f"--{name} {quoted(value)}" for name, value in flags.items()
              if value and name not in ("shard", "distributed")]
    with working("measuring and drawing"):
        file = paper.write_table(wanted, planned, scale, runs, f"resjax reproduce {table} {' '.join(chosen)}")
    if is_first():
        say_table(f"\n{file.read_text('utf-8')}")
        say_end(f"Wrote {file}", f"resjax report {quoted(runs)}")


Runs = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUNS ...", help_behavior_hint="")]


def compare(runs: Runs = (Path("runs"),), out: Path | None = None) -> None:
    """Compare runs over several seeds.

    The command prints a table. In this table, runs that differ only in their seeds share one row, with the mean and the
    standard deviation of their results.

    The command also plots the mean training and test curves of each row, with a band of one standard deviation on each
    side.

    Args:
        runs: Run directories, or folders that contain runs. Defaults to the folder runs/.
        out: The folder for compare.md, compare.csv, compare.json and compare.svg. Defaults to the first of the compared
            folders.
    """
    with working("comparing"):
        from resjax import paper

        files = paper.compare(*runs).save(out or runs[0])
    say_table(f"\n{files[0].read_text('utf-8')}")
    say_end(f"Wrote to {files[0].parent}: {', '.join(file.name for file in files)}", f"resjax report {quoted(runs[0])}")


def report(
    folder: Annotated[Path, tyro.conf.Positional] = Path("runs"),
    out: Path | None = None,
    tensorboard: Path | None = None,
) -> None:
    """Write a report on all runs in a folder.

    The report is a single HTML file that you can open offline.

    Args:
        folder: The folder that contains the runs.
        out: The file to write. Defaults to report.html in the folder of the runs.
        tensorboard: Also write the curves as TensorBoard logs to this folder.
    """
    file = out or folder / "report.html"
    with working("writing the page"):
        from resjax import paper

        paper.write_report(folder, file)
    say(f"Wrote {file} ({file.stat().st_size / 1e3:,.0f} kB). Open it in a browser")
    if tensorboard:
        with working("writing the logs"):
            paper.write_tensorboard(folder, tensorboard)
        say(f"Next: tensorboard --logdir {quoted(tensorboard)}")
