"""Commands on the paper's tables: reproduce them, and report on all runs."""

import shlex
from pathlib import Path
from typing import Annotated

import tyro

from resjax import experiment_files
from resjax.system.errors import check
from resjax.system.progress import working
from resjax.system.terminal import say, say_end, say_table, tell


def quickstart(workdir: Path = Path("runs/quickstart")) -> None:
    """Train a shallow and a deep net of each kind.

    They learn scikit-learn's digits in about a minute on two cores, without a download. As depth grows, the plain net's
    training loss rises and the residual net's falls.

    Args:
        workdir: Where the runs, `table.md` and `curves.png` are kept.
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
    """Train a table's nets; compare with the paper.

    Finished runs are read, and stopped runs are resumed.

    Args:
        table: table1 (counted, not trained), table2 ... table6, table7 ... table11 (detection).
        runs: The folder of all runs; the table is saved there too. The same command resumes what was stopped.
        seeds: How many runs to train for each row, with seeds 0, 1, ...; by default 5 on CIFAR-10, and 1 on ImageNet as
            in the paper.
        only: Train only these rows, such as resnet20,plain20.
        scale: Shorten the schedule by this factor; the numbers are then labelled as shortened, not as the reproduction.
        shard: Train one part of the runs, such as 2/8, and leave the others to other processes, GPUs or machines.
        experiments: A folder of your own experiment files; by default those that come with resjax.
        data: The images to use instead of those that the experiments name: folder:PATH, tars:PATH or tfds:NAME;
            voc:PATH or coco:PATH for detection.
        directory: The folder of prepared TFDS sets; by default RESJAX_DATA, else ~/tensorflow_datasets.
        distributed: Join the processes that SLURM, Open MPI, Kubernetes or a TPU pod has started.
    """
    with working("loading JAX"):  # here, as other commands need not wait for it
        from resjax import paper
        from resjax.paper.reproduce import check_seeds
        from resjax.system.distributed import is_first, join

    experiments = experiments or experiment_files.folder()
    flags = {"seeds": seeds, "only": only, "scale": scale if scale != 1 else None, "shard": shard, "data": data,
             "directory": directory, "distributed": distributed}
    if table == "table1":
        given = [name for name, value in flags.items() if value is not None and value is not False and value != ""]
        check(not given, f"table1 is counted and takes no --{', no --'.join(given)}")
        say_table(paper.table1())
        return
    wanted = paper.find_table(table)
    seeds = wanted.seeds if seeds is None else seeds
    check_seeds(seeds)
    if distributed:
        join()
    rows = [name for name in only.split(",") if name]
    with working("reading the experiments"):
        planned = paper.read_from(paper.plan_runs(wanted, experiments, runs, seeds, rows, scale), data, directory)
    paper.train_missing(paper.shard_of(planned, shard or "1/1"),
                        lambda text: tell(f"{table}  {text}") if is_first() else None)
    chosen = [f"--seeds {seeds}", *[f"--only {only}"] * bool(only), *[f"--scale {scale:g}"] * (scale != 1),
              *[f"--data {shlex.quote(data or '')}"] * bool(data)]
    with working("measuring and drawing"):
        file = paper.write_table(wanted, planned, scale, runs, f"resjax reproduce {table} {' '.join(chosen)}")
    if is_first():
        say_table(f"\n{file.read_text()}")
        say_end(f"In {file}", f"resjax report {runs}")


Runs = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUNS ...", help_behavior_hint="")]


def compare(runs: Runs = (Path("runs"),), out: Path | None = None) -> None:
    """Compare your runs: mean and spread over seeds.

    Runs that differ only in their seeds share one row, whatever their networks and wherever they are. The curves are
    means over the seeds, with a band of one standard deviation to each side.

    Args:
        runs: Runs and folders of runs; by default the folder runs.
        out: Where compare.md, compare.csv, compare.json and compare.svg are written; by default into the first folder.
    """
    with working("comparing"):
        from resjax import paper

        files = paper.compare(*runs).save(out or runs[0])
    say_table(f"\n{files[0].read_text()}")
    say_end(f"In {files[0].parent}: {', '.join(file.name for file in files)}", f"resjax report {runs[0]}")


def report(
    folder: Annotated[Path, tyro.conf.Positional] = Path("runs"),
    out: Path | None = None,
    tensorboard: Path | None = None,
) -> None:
    """Write a page about all runs in a folder.

    The page is a single HTML file that opens without a network.

    Args:
        folder: The folder of the runs.
        out: The file to write; by default report.html in the folder.
        tensorboard: Also write the curves as TensorBoard logs, into this folder.
    """
    file = out or folder / "report.html"
    with working("writing the page"):
        from resjax import paper

        paper.write_report(folder, file)
    say(f"In {file} ({file.stat().st_size / 1e3:,.0f} kB): open it in a browser")
    if tensorboard:
        with working("writing the logs"):
            paper.write_tensorboard(folder, tensorboard)
        say(f"Next: tensorboard --logdir {tensorboard}")
