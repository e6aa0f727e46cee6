"""The paper's tables and figures, and what it takes to reproduce them."""

from resjax.paper.figures import Drawing, Verdict
from resjax.paper.findings import write_findings
from resjax.paper.outcome import conclude
from resjax.paper.report import write_report
from resjax.paper.reproduce import Run, find_table, part, plan, train_missing
from resjax.paper.table1 import table1
from resjax.paper.tables import TABLES, Table
from resjax.paper.tensorboard import write_tensorboard

__all__ = ["TABLES", "Drawing", "Run", "Table", "Verdict", "conclude", "find_table", "part", "plan", "table1",
           "train_missing", "write_findings", "write_report", "write_tensorboard"]
