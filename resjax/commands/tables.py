"""Commands on the paper's tables: reproduce them, and report on all runs."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from resjax import experiment_files
from resjax.distributed import is_first, join

EXPERIMENTS = Path(__file__).parents[2] / "experiments"  # beside the package, in a checkout


def reproduce(
    table: Annotated[str, tyro.conf.Positional],
    runs: Path = Path("runs"),
    seeds: int | None = None,
    only: str = "",
    scale: float = 1.0,
    shard: str = "1/1",
    experiments: Path = EXPERIMENTS,
    data: str | None = None,
    directory: Path | None = None,
    distributed: bool = False,
) -> None:
    """Reproduce a table of the paper: train what is missing, and set ours beside the paper's.

    Args:
        table: table1 (counted, not trained), table2 ... table6, table7, table8 (detection); or article, the experiments
            of experiments/article.py.
        runs: The folder of all runs; the table is saved there too. The same command goes on after any stop.
        seeds: Runs of each row, with the seeds 0, 1, ...; by default 5 on CIFAR-10, and 1 on ImageNet as in the paper.
        only: Some rows only: resnet20,plain20.
        scale: Shorten the schedule in proportion; such numbers are labelled and never stand as the reproduction.
        shard: Train one part of the runs, such as 2/8, and leave the others to other processes, GPUs or machines.
        experiments: The folder of the experiment files.
        data: What to read in place of what the experiments say: folder:PATH, tars:PATH or tfds:NAME; voc:PATH or
            coco:PATH for detection.
        directory: Where prepared TFDS sets lie; by default RESJAX_DATA, else ~/tensorflow_datasets.
        distributed: Join the processes that SLURM, Open MPI, Kubernetes or a TPU pod has started.
    """
    from resjax import paper  # here, as matplotlib takes half a second that other commands need not wait

    if table == "article":  # not a table: what a student sees of the paper's claims in minutes
        experiment_files.load_file(experiments / "article.py").article(runs / "article")
        return
    if table == "table1":
        print(paper.table1())
        return
    if table in ("table7", "table8"):
        reproduce_detection(table, runs, seeds or 1, only, experiments, data)
        return
    if distributed:
        join()
    wanted = paper.find_table(table)
    seeds = (5 if table == "table6" else 1) if seeds is None else seeds
    rows = [name for name in only.split(",") if name]
    planned = paper.read_from(paper.plan(wanted, experiments, runs, seeds, rows, scale), data, directory)
    paper.train_missing(paper.part(planned, shard), partial(tell, table))
    chosen = [f"--seeds {seeds}", *[f"--only {only}"] * bool(only), *[f"--scale {scale:g}"] * (scale != 1)]
    file = paper.write_table(wanted, planned, scale, runs, f"resjax reproduce {table} {' '.join(chosen)}")
    if is_first():
        print(f"\n{file.read_text()}\n{file}")


def reproduce_detection(name: str, runs: Path, seeds: int, only: str, experiments: Path, data: str | None) -> None:
    """Reproduce Table 7 or 8, and save it beside the runs."""
    from resjax.detection import tables

    rows = [row for row in only.split(",") if row]
    text = tables.reproduce(tables.TABLES[name], experiments, runs, seeds, rows, data)
    file = runs / name / f"{name}.md"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    print(f"\n{text}\n{file}")


def tell(table: str, text: str) -> None:
    """Print how far a table has come."""
    if is_first():
        print(f"{table}  {text}", file=sys.stderr, flush=True)


def report(
    folder: Annotated[Path, tyro.conf.Positional] = Path("runs"),
    out: Path | None = None,
    tensorboard: Path | None = None,
) -> None:
    """Write one page of HTML about all runs in a folder; it opens without a network.

    Args:
        folder: The folder of the runs.
        out: The page; by default report.html in the folder.
        tensorboard: Also write the curves as TensorBoard logs, into this folder.
    """
    from resjax import paper

    file = out or folder / "report.html"
    paper.write_report(folder, file)
    print(f"{file} ({file.stat().st_size / 1e6:.1f} MB)")
    if tensorboard:
        paper.write_tensorboard(folder, tensorboard)
        print(f"tensorboard --logdir {tensorboard}")
