"""Tables in, tables out: CSV, XLSX and JSONL through a batch task, for those who write no code."""

from lowtide.tables.formats import FORMATS, TableError, columns_of, read_rows, write_rows
from lowtide.tables.plan import Plan
from lowtide.tables.preview import Preview, preview
from lowtide.tables.run import Progress, Run, runs_in

__all__ = [
    "FORMATS",
    "Plan",
    "Preview",
    "Progress",
    "Run",
    "TableError",
    "columns_of",
    "preview",
    "read_rows",
    "runs_in",
    "write_rows",
]
