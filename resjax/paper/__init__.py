"""The paper's tables and figures, and their reproduction."""

from resjax.paper.comparison import Comparison, compare
from resjax.paper.figures import Drawing, Verdict
from resjax.paper.report import write_report
from resjax.paper.reproduce import Planned, find_table, plan_runs, read_from, shard_of, train_missing
from resjax.paper.results import write_table
from resjax.paper.table import Table
from resjax.paper.table1 import table1
from resjax.paper.tables import TABLES
from resjax.paper.tensorboard import write_tensorboard

__all__ = ["TABLES", "Comparison", "Drawing", "Planned", "Table", "Verdict", "compare", "find_table", "plan_runs",
           "read_from", "shard_of", "table1", "train_missing", "write_report", "write_table", "write_tensorboard"]
