"""The curves of runs as TensorBoard logs, written without TensorFlow."""

from pathlib import Path

from resjax.errors import BadInput, check
from resjax.paper.report import find_runs
from resjax.training import read_metrics


def write_tensorboard(folder: Path, out: Path) -> None:
    """Write every number of every run's `metrics.jsonl` to `out`, under `train/loss`, `test/top1_error` and so on.

    Raises BadInput where tensorboardX is missing, there is no run, or `out` holds logs already.
    """
    try:
        from tensorboardX import SummaryWriter
    except ModuleNotFoundError:
        raise BadInput("TensorBoard logs need tensorboardX: pip install 'resjax[tensorboard]'") from None
    for run_directory in find_runs(folder):
        logs = out / run_directory.relative_to(folder)
        check(not any(logs.glob("events.*")), f"{logs} holds logs already; choose another folder, or remove them")
        with SummaryWriter(str(logs)) as writer:
            for line in read_metrics(run_directory):
                for key in line.keys() - {"step", "kind"}:
                    writer.add_scalar(f"{line['kind']}/{key}", line[key], line["step"])
