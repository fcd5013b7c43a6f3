"""Records as one flat table, for whoever works on with pandas, a spreadsheet or a data base."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results import record

if TYPE_CHECKING:
    import pandas


def rows(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a trial, one column a field: `model.name`, `metrics.AP`; lists and the protocol's content as JSON text.

    Every row has every column, None where the record lacks it.
    """
    flat = [_flat(one) for one in records]
    names = dict.fromkeys(name for row in flat for name in row)
    return [{name: row.get(name) for name in names} for row in flat]


def _flat(one: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key, value in one.items():
        if isinstance(value, Mapping) and f"{prefix}{key}" != "protocol.content":
            row |= _flat(value, f"{prefix}{key}.")
        else:
            row[f"{prefix}{key}"] = json.dumps(value) if isinstance(value, list | Mapping) else value
    return row


def write(records: Sequence[Mapping[str, Any]], out: Path) -> int:
    """Writes .csv, .json or .parquet, by the name, whole or not at all; the number of rows. Raises ValueError for another name."""
    writers: dict[str, Callable[[list[dict[str, Any]]], str | bytes]] = {
        ".csv": lambda table: _frame(table).to_csv(index=False),
        ".json": lambda table: json.dumps(table, indent=1, allow_nan=False),
        ".parquet": lambda table: _typed(_frame(table)).to_parquet(index=False),
    }
    if out.suffix not in writers:
        raise ValueError(f"expected a file named {', '.join(writers)}, found {out.name!r}")
    table = rows(records)
    record.replaced(out, writers[out.suffix](table))
    return len(table)


def _frame(table: list[dict[str, Any]]) -> "pandas.DataFrame":
    import pandas

    return pandas.DataFrame(table)


def _typed(table: "pandas.DataFrame") -> "pandas.DataFrame":
    """With text in place of columns of mixed kinds, and of integers beyond 64 bits: Parquet's have one kind, and 64 bits."""
    kinds = {name: {*table[name].dropna().map(type)} for name in table}
    wide = [name for name in table if kinds[name] == {int} and table[name].dtype == object]
    return table.astype(dict.fromkeys([name for name in table if len(kinds[name]) > 1] + wide, "string"))
