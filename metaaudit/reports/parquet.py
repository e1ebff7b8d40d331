"""The flat table of all rankings as Parquet, for data frames."""

from __future__ import annotations

import io

from metaaudit.errors import RunError
from metaaudit.reports.flat_csv import COLUMNS, flat_rows
from metaaudit.runs.saved import SavedRun


def render_parquet(run: SavedRun) -> bytes:
    """The table of ``render_csv`` with typed columns; what does not apply is null.

    Raises:
        RunError: PyArrow is not installed.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise RunError(
            "format 'parquet'",
            "needs PyArrow, which is not installed",
            remedy="pip install 'metaaudit[parquet]'",
        ) from None
    types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    rows = list(flat_rows(run))
    table = pa.table(
        {
            name: pa.array([row.get(name) for row in rows], types[kind])
            for name, kind in COLUMNS.items()
        }
    )
    out = io.BytesIO()
    parquet.write_table(table, out)
    return out.getvalue()
