"""A record is one trial in one JSON file: metrics, protocol, weights, data, seed and all that explains the number.

`record.schema.json` says what stands in it. A file stands where its content says, so two trials never share one:

    ROOT/<task>/<protocol hash>-<data digest>/<model>-<sha256 or arch>/<seed>.json

Files are written whole or not at all, so any number of processes may write under one root.
"""

import json
import math
import os
import re
import uuid
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema of a record (draft 2020-12; `check` knows the keywords it uses)."""
    return json.loads(Path(__file__).with_name("record.schema.json").read_text(encoding="utf-8"))


def check(value: Any, rule: Mapping[str, Any] | None = None, where: str = "record") -> None:
    """Raises ValueError, naming the field, if the value is not a record by the schema."""
    rule = schema() if rule is None else rule
    if "type" not in rule:  # anything that is JSON
        return
    kinds = [rule["type"]] if isinstance(rule["type"], str) else rule["type"]
    if isinstance(value, bool) or not isinstance(value, tuple(t for kind in kinds for t in _TYPES[kind])):
        raise ValueError(f"expected {where} to be of type {' or '.join(kinds)}, found {value!r:.80}")
    if "enum" in rule and value not in rule["enum"]:
        raise ValueError(f"expected {where} to be {' or '.join(map(repr, rule['enum']))}, found {value!r:.80}")
    if isinstance(value, str):
        if len(value) < rule.get("minLength", 0):
            raise ValueError(f"expected {where} to say something, found an empty string")
        if "pattern" in rule and not re.fullmatch(rule["pattern"], value):
            raise ValueError(f"expected {where} to match {rule['pattern']}, found {value!r:.80}")
    elif isinstance(value, int | float):
        low, high = rule.get("minimum", -math.inf), rule.get("maximum", math.inf)
        if not math.isfinite(value) or not low <= value <= high:
            raise ValueError(f"expected {where} to be a finite number from {low} to {high}, found {value!r:.80}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            check(item, rule["items"], f"{where}[{index}]")
    elif isinstance(value, dict):
        if missing := [key for key in rule.get("required", ()) if key not in value]:
            raise ValueError(
                f"expected {where} to have {', '.join(map(repr, missing))}, found only {sorted(value)!r:.300}"
            )
        if len(value) < rule.get("minProperties", 0):
            raise ValueError(f"expected {where} to hold at least one entry, found none")
        for key, item in value.items():
            inner = rule.get("properties", {}).get(key, rule.get("additionalProperties"))
            if inner:
                check(item, inner, f"{where}.{key}")


def path(root: Path, record: Mapping[str, Any]) -> Path:
    """Where a record stands below a root; asks only for task, protocol.hash, data.digest, model.name/.arch/.sha256, seed."""
    model = record["model"]
    return (
        Path(root)
        / _plain(record["task"])
        / f"{record['protocol']['hash'][:12]}-{_plain(record['data']['digest'])[:8]}"
        / f"{_plain(model['name'])}-{model['sha256'][:8] if model['sha256'] else _plain(model['arch'])}"
        / f"{record['seed']}.json"
    )


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._@+-]+", "-", name).lstrip(".-")[:80] or "unnamed"


def write(record: Mapping[str, Any], root: Path) -> Path:
    """The file written, whole or not at all; a record of the same trial is replaced. Raises ValueError if it is no record."""
    check(record)
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    target = path(root, record)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        with partial.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def load(root: Path) -> list[dict[str, Any]]:
    """All records below a root, by path and then by seed. Raises ValueError that names a file which is no record.

    Only files at a record's depth and named by a number are read: a trial's other files may lie below the same root.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"expected a folder of records, found none at {root}: `bench transfer` writes one")
    files = [file for file in root.glob("*/*/*/*.json") if re.fullmatch(r"\d+", file.stem)]
    return [_read(file, root) for file in sorted(files, key=lambda f: (f.parent, int(f.stem)))]


def _read(file: Path, root: Path) -> dict[str, Any]:
    try:
        record = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refused)
        check(record)
    except ValueError as error:
        raise ValueError(f"{file} is no record: {error}; remove it and run the trial again") from error
    if path(root, record) != file:
        raise ValueError(f"expected the record in {file} to stand at {path(root, record)}: was it copied or renamed?")
    return record


def _refused(constant: str) -> None:
    raise ValueError(f"expected finite numbers, found {constant}")
