"""Records as one flat table, for whoever works on with pandas, a spreadsheet or a data base."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results import record

if TYPE_CHECKING:
    import pandas


def frame(records: Sequence[Mapping[str, Any]]) -> "pandas.DataFrame":
    """One row a trial, one column a field: `model.name`, `metrics.AP`; lists and the protocol's content as JSON text."""
    import pandas

    return pandas.DataFrame([_flat(one) for one in records])


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
    writers: dict[str, Callable[[pandas.DataFrame], str | bytes]] = {
        ".csv": lambda table: table.to_csv(index=False),
        ".json": lambda table: table.to_json(orient="records", indent=1),
        ".parquet": lambda table: _typed(table).to_parquet(index=False),
    }
    if out.suffix not in writers:
        raise ValueError(f"expected a file named {', '.join(writers)}, found {out.name!r}")
    table = frame(records)
    record.replaced(out, writers[out.suffix](table))
    return len(table)


def _typed(table: "pandas.DataFrame") -> "pandas.DataFrame":
    """With text in place of columns of mixed kinds, and of integers beyond 64 bits: Parquet's have one kind, and 64 bits."""
    kinds = {name: {*table[name].dropna().map(type)} for name in table}
    wide = [name for name in table if kinds[name] == {int} and table[name].dtype == object]
    return table.astype(dict.fromkeys([name for name in table if len(kinds[name]) > 1] + wide, "string"))
