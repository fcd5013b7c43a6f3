"""A record is one trial in one JSON file: metrics, protocol, weights, data, seed and all that explains the number.

`record.schema.json` says what stands in it. A file stands where its content says, so two trials never share one:

    ROOT/<task>/<protocol hash>-<data digest>/<model>-<sha256 or arch>/<seed>.json

Files are written whole or not at all, so any number of processes may write under one root. `load` gives records whole;
`trials` gives what tables need of them and remembers it from call to call, so that a hundred thousand are quick to read.
"""

import hashlib
import json
import math
import os
import re
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

VERSION = 1  # of the schema; a record of an earlier one stays readable
WITHOUT = ("loaded", "proof", "effective", "versions", "machine")  # what a table does not need of a record


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema of a record (draft 2020-12)."""
    return json.loads(Path(__file__).with_name("record.schema.json").read_text(encoding="utf-8"))


@cache
def _validator() -> Callable[[Any], Any]:
    import fastjsonschema

    # it knows the drafts up to 7; the schema uses no keyword that has changed since
    return fastjsonschema.compile({key: value for key, value in schema().items() if key != "$schema"})


def check(value: Any) -> None:
    """Raises ValueError, naming the field, if the value is not a record by the schema."""
    if isinstance(value, dict) and isinstance(version := value.get("schema"), int) and version > VERSION:
        raise ValueError(
            f"expected record.schema up to {VERSION}, found {version}: a newer version of this project made it"
        )
    try:
        _validator()(value)
    except ValueError as error:
        where, rule = getattr(error, "name", "data"), f"{error.rule} {error.rule_definition}"  # type: ignore[attr-defined]
        where = where.replace("data", "record", 1)
        raise ValueError(f"expected {where} to satisfy {rule:.300}, found {error.value!r:.80}") from error  # type: ignore[attr-defined]
    for name, number in value["metrics"].items():
        if not math.isfinite(number):
            raise ValueError(f"expected record.metrics.{name} to be a finite percentage, found {number}")


def path(root: Path, record: Mapping[str, Any]) -> Path:
    """Where a record stands below a root; asks only for task, protocol.hash, data.digest, model.name/.arch/.sha256, seed."""
    return Path(root) / place(record)


def place(record: Mapping[str, Any]) -> str:
    """`path` below any root, with slashes."""
    model, digest = record["model"], _plain(record["data"]["digest"])[:8]
    weights = model["sha256"][:8] if model["sha256"] else _plain(model["arch"])
    group = f"{_plain(record['task'])}/{record['protocol']['hash'][:12]}-{digest}"
    return f"{group}/{_plain(model['name'])}-{weights}/{record['seed']}.json"


@lru_cache
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
    root = _root(root)
    return [read(file, root) for file in files(root)]


def files(root: Path) -> list[Path]:
    """The files of `load`, in its order."""
    return sorted(map(Path, _files(_root(root))), key=lambda file: (file.parent, int(file.stem)))


def trials(root: Path) -> list[dict[str, Any]]:
    """The records below a root without what tables do not need: `WITHOUT`, the protocol's content and the model's traits.

    In the order of `load`, with its errors; what trials have in common may be the same object. What was read is kept in the
    user's cache: only files that are new or changed since (by time and size) are read again.
    """
    root = _root(root)
    stamps = {file: (entry.st_mtime_ns, entry.st_size) for file, entry in _files(root).items()}
    with closing(_kept(root)) as kept:
        known = {file: (time, size, *texts) for file, time, size, *texts in kept.execute("SELECT * FROM trial")}
        stale = [file for file, stamp in stamps.items() if file not in known or known[file][:2] != stamp]
        fresh = {file: (*stamps[file], *_split(read(Path(file), root))) for file in stale}
        with kept:
            kept.executemany("DELETE FROM trial WHERE file = ?", [(file,) for file in known if file not in stamps])
            kept.executemany(
                "INSERT OR REPLACE INTO trial VALUES (?, ?, ?, ?, ?)", [(f, *row) for f, row in fresh.items()]
            )
    order = sorted(stamps, key=lambda file: ((parts := file.rpartition("/"))[0], int(parts[2][:-5])))
    shared, own = zip(*((fresh.get(file) or known[file])[2:] for file in order), strict=True) if order else ((), ())
    distinct = list(dict.fromkeys(shared))
    parsed = dict(zip(distinct, json.loads(f"[{','.join(distinct)}]"), strict=True))
    return [parsed[s] | o for s, o in zip(shared, json.loads(f"[{','.join(own)}]"), strict=True)]


def _split(record: dict[str, Any]) -> tuple[str, str]:
    """What a model's trials on a task have in common, and what is this one's own; both as JSON."""
    slim = {key: value for key, value in record.items() if key not in WITHOUT}
    slim["protocol"] = {key: slim["protocol"][key] for key in ("name", "hash")}
    slim["model"] = {key: value for key, value in slim["model"].items() if key != "traits"}
    own = {key: slim.pop(key) for key in ("seed", "metrics", "seconds", "finished")}
    return json.dumps(slim), json.dumps(own)


def _kept(root: Path) -> sqlite3.Connection:
    """What was read of the records below a root: file, time, size and `_split`; in memory where there is no cache to write to."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bench" / "records"
    make = "CREATE TABLE IF NOT EXISTS trial (file TEXT PRIMARY KEY, time INTEGER, size INTEGER, shared TEXT, own TEXT)"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(f"1 {VERSION} {root.resolve()}".encode()).hexdigest()[:16]
        kept = sqlite3.connect(cache / f"{name}.sqlite", timeout=60)
        kept.execute(make)
        kept.execute("SELECT file, time, size, shared, own FROM trial LIMIT 1")
    except (OSError, RuntimeError, sqlite3.Error):
        kept = sqlite3.connect(":memory:")
        kept.execute(make)
    return kept


def _root(root: Path) -> Path:
    if not Path(root).is_dir():
        raise FileNotFoundError(f"expected a folder of records, found none at {root}: `bench transfer` writes one")
    return Path(root)


def _files(root: Path) -> dict[str, os.stat_result]:
    """Every file at a record's depth and named by a number."""
    folders = [str(root)]
    for _ in range(3):
        folders = [entry.path for folder in folders for entry in _entries(folder) if entry.is_dir()]
    files = (entry for folder in folders for entry in _entries(folder) if re.fullmatch(r"\d+\.json", entry.name))
    return {entry.path: entry.stat() for entry in files if entry.is_file()}


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))


def read(file: Path, root: Path) -> dict[str, Any]:
    """The record in a file below a root. Raises ValueError that names the file if it is none, or not where it belongs."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refused)
        check(record)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no record: {error}; remove it and run the trial again") from error
    if path(root, record) != file:
        raise ValueError(f"expected the record in {file} to stand at {path(root, record)}: was it copied or renamed?")
    return record


def _refused(constant: str) -> None:
    raise ValueError(f"expected finite numbers, found {constant}")
