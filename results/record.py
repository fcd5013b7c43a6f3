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
import time as clock
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

VERSION = 1  # of the schema; a record of an earlier one stays readable
WITHOUT = ("loaded", "proof", "effective", "versions", "machine")  # what a table does not need of a record


class Newer(ValueError):
    """A record of a later schema, which is good and cannot be read here."""


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
        raise Newer(
            f"expected record.schema up to {VERSION}, found {version}: a newer version of this project wrote it, update this one"
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
    group = f"{plain(record['task'])}/{record['protocol']['hash'][:12]}-{plain(record['data']['digest'])[:8]}"
    return f"{group}/{named(record['model'])}/{record['seed']}.json"


def named(model: Mapping[str, Any]) -> str:
    """A model as a part of a file's name: what it is called and its weights, or the architecture of random ones.

    A name that no file can have is followed by letters of its own hash: another one may look the same without its odd signs.
    """
    name = plain(model["name"])
    if name != model["name"]:
        name += f"-{hashlib.sha256(model['name'].encode(errors='surrogatepass')).hexdigest()[:4]}"
    return f"{name}-{model['sha256'][:8] if model['sha256'] else plain(model['arch'])}"


@lru_cache
def plain(name: str) -> str:
    """Any text as a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9._@+-]+", "-", name).lstrip(".-")[:80] or "unnamed"


def write(record: Mapping[str, Any], root: Path) -> Path:
    """The file written, whole or not at all; a record of the same trial is replaced. Raises ValueError if it is no record."""
    check(record)
    return replaced(path(root, record), json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def replaced(file: Path, content: str | bytes) -> Path:
    """The file, written whole or not at all, whoever else writes it; its folder is made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        with partial.open("xb") as writing:
            writing.write(content.encode() if isinstance(content, str) else content)
            writing.flush()
            os.fsync(writing.fileno())
        return partial.replace(file)
    except OSError as error:  # a full disk does not say where it is
        error.filename = error.filename or str(file)
        raise
    finally:
        partial.unlink(missing_ok=True)


def load(root: Path) -> list[dict[str, Any]]:
    """All records below a root, by path and then by seed. Raises ValueError that names a file which is no record.

    Only files at a record's depth and named by a number are read: a trial's other files may lie below the same root.
    """
    root = _root(root)
    return [read(file, root) for file in files(root)]


def files(root: Path) -> list[Path]:
    """The files of `load`, in its order."""
    return [Path(file) for folder, _ in sorted(_folders(_root(root))) for file in _records(folder)]


def trials(root: Path) -> list[dict[str, Any]]:
    """The records below a root without what tables do not need: `WITHOUT`, the protocol's content and the model's traits.

    In the order of `load`, with its errors; what trials have in common may be the same object. What was read is kept in the
    user's cache: only the folders of models whose time has changed since are read again. Records are replaced or removed,
    which changes it, and never edited in place; `load` reads everything.
    """
    root = _root(root)
    stamps = dict(sorted(_folders(root)))
    with closing(_kept(root)) as kept:
        try:
            known = {folder: (time, *texts) for folder, time, *texts in kept.execute("SELECT * FROM model")}
        except sqlite3.Error:  # damaged, or held by another
            known = {}
        stale = [folder for folder, time in stamps.items() if folder not in known or known[folder][0] != time]
        fresh = {folder: (_settled(stamps[folder]), *_split(folder, root)) for folder in stale}
        # the disk may be full, or a folder's name no text; what was read stands all the same
        with suppress(sqlite3.Error, UnicodeError), kept:
            kept.executemany("DELETE FROM model WHERE folder = ?", [(f,) for f in known if f not in stamps])
            kept.executemany(
                "INSERT OR REPLACE INTO model VALUES (?, ?, ?, ?)", [(f, *row) for f, row in fresh.items()]
            )
    rows = [(fresh.get(folder) or known[folder])[1:] for folder in stamps]
    shared, own = (json.loads(f"[{','.join(texts)}]") for texts in zip(*rows, strict=True)) if rows else ((), ())
    return [common | one for common, ones in zip(shared, own, strict=True) for one in ones]


def _settled(time: int) -> int:
    """A folder's time, or 0, which no folder has, while something may still happen within the clock's resolution."""
    return time if clock.time_ns() - time > 2_000_000_000 else 0


def _split(folder: str, root: Path) -> tuple[str, str]:
    """What the trials of a model's folder have in common, and a list of what each has for itself, by seed; both as JSON."""
    slim = [_slim(read(Path(file), root)) for file in _records(folder)]
    first = slim[0] if slim else {}
    common = {key: value for key, value in first.items() if all(one.get(key) == value for one in slim)}
    return json.dumps(common), json.dumps([{k: v for k, v in one.items() if k not in common} for one in slim])


def _slim(record: dict[str, Any]) -> dict[str, Any]:
    slim = {key: value for key, value in record.items() if key not in WITHOUT}
    slim["protocol"] = {key: slim["protocol"][key] for key in ("name", "hash")}
    slim["model"] = {key: value for key, value in slim["model"].items() if key != "traits"}
    return slim


def user_cache() -> Path:
    """This project's folder among the user's caches."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(root) if root.startswith("/") else Path.home() / ".cache") / "bench"  # as the XDG specification says


def _kept(root: Path) -> sqlite3.Connection:
    """What was read of the records below a root: folder, time and `_split`; in memory where there is no cache to write to."""
    make = "CREATE TABLE IF NOT EXISTS model (folder TEXT PRIMARY KEY, time INTEGER, shared TEXT, own TEXT)"
    try:
        folder = user_cache() / "records"
        folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(os.fsencode(f"3 {VERSION} {root.resolve()} {root}")).hexdigest()[:16]
        kept = sqlite3.connect(folder / f"{name}.sqlite", timeout=60)
        kept.execute(make)
        kept.execute("SELECT folder, time, shared, own FROM model LIMIT 1")
    except (OSError, RuntimeError, sqlite3.Error):
        kept = sqlite3.connect(":memory:")
        kept.execute(make)
    return kept


def _root(root: Path) -> Path:
    if not Path(root).is_dir():
        raise FileNotFoundError(f"expected a folder of records, found none at {root}: `bench transfer` writes one")
    return Path(root)


def _folders(root: Path) -> Iterator[tuple[str, int]]:
    """The folders of models at a record's depth, with the time of the last change in each."""
    folders = [str(root)]
    for _ in range(2):
        folders = [entry.path for folder in folders for entry in _entries(folder) if entry.is_dir()]
    for folder in folders:
        yield from ((entry.path, entry.stat().st_mtime_ns) for entry in _entries(folder) if entry.is_dir())


def _records(folder: str) -> list[str]:
    """The files of a model's folder that are named by a number, by that number."""
    files = [e.path for e in _entries(folder) if re.fullmatch(r"\d+\.json", e.name) and e.is_file()]
    return sorted(files, key=lambda file: int(file.rpartition("/")[2][:-5]))


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))


def read(file: Path, root: Path) -> dict[str, Any]:
    """The record in a file below a root. Raises ValueError that names the file if it is none, or not where it belongs."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refused)
        check(record)
        # 1e999 is infinite, and half a character no text
        json.dumps(record, ensure_ascii=False, allow_nan=False).encode()
    except Newer as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no record: {error}; remove it and run the trial again") from error
    if path(root, record) != file:
        raise ValueError(f"expected the record in {file} to stand at {path(root, record)}: was it copied or renamed?")
    return record


def verified(file: Path, root: Path) -> dict[str, Any]:
    """The same; also raises ValueError if the protocol's hash or name is not its content's, which tables never read."""
    record = read(file, root)
    protocol = record["protocol"]
    found = hashlib.sha256(json.dumps(protocol["content"], sort_keys=True).encode()).hexdigest()
    if found != protocol["hash"]:
        raise ValueError(
            f"expected record.protocol.hash in {file} to be the sha256 of record.protocol.content, found {protocol['hash'][:12]} "
            f"for {found[:12]}: one of them was changed; remove it and run the trial again"
        )
    name = protocol["content"].get("name", protocol["name"])
    said = {"protocol.name": protocol["name"], "task": record["task"], "scale": record["scale"]}
    meant = {"protocol.name": name, "task": name.partition("@")[0], "scale": "mini" if "@mini" in name else "paper"}
    if wrong := [key for key in said if said[key] != meant[key]]:
        raise ValueError(
            f"expected record.{wrong[0]} in {file} to be {meant[wrong[0]]}, as record.protocol.content says, found {said[wrong[0]]}: "
            "one of them was changed; remove it and run the trial again"
        )
    return record


def _refused(constant: str) -> None:
    raise ValueError(f"expected finite numbers, found {constant}")
