"""`bench results`: list, show, check and export the records of trials."""

import json as jsonlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from bench import catalog

app = typer.Typer(no_args_is_help=True, help="List, show, check and export records.")
Results = Annotated[
    Path, typer.Option(help="The folder of records; the packaged ones where there is no runs/transfer.")
]
RUNS = Path("runs/transfer")


def folder(results: Path) -> Path:
    """The folder; in place of `RUNS`, where that does not exist, the packaged records' one, and this is said.

    Raises FileNotFoundError where there is none.
    """
    if results == RUNS and not results.is_dir():
        results = catalog.ROOT / "results" / "measured"
        print(f"no records in {RUNS}: these are the packaged ones, of {results}", file=sys.stderr)
    if not results.is_dir():
        raise FileNotFoundError(f"expected a folder of records, found none at {results}: `bench transfer` writes one")
    return results


def serve(out: Path, port: int, say: Callable[[str], None]) -> None:
    """Serves a folder to this machine's browser until interrupted."""
    import functools
    import http.server
    import threading
    import webbrowser

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    try:
        served = http.server.ThreadingHTTPServer(("127.0.0.1", port), functools.partial(Quiet, directory=str(out)))
    except OSError as error:
        raise OSError(
            f"expected port {port} free, found: {error.strerror}; take another --port, or 0 for any"
        ) from error
    with served as server:
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        say(f"{address}  (Ctrl-C ends it)")
        # a browser in this terminal does not return before it has been answered
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("ended")


@app.command("ls")
def ls(
    task: Annotated[str | None, typer.Option(help="Only this task's, a name of `bench list tasks`.")] = None,
    model: Annotated[str | None, typer.Option(help="Only models whose name contains this.")] = None,
    results: Results = RUNS,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """List the trials: file, metrics, marks.

    Examples:

      bench results ls --task voc_c4

      bench results ls --model moco --json
    """
    from bench.cli import put
    from results import record

    root = folder(results)
    trials = record.trials(root)
    known = {*catalog.names("task"), *(t["task"] for t in trials)}
    if task and (task := catalog.ALIASES.get(task, task)) not in known:
        raise ValueError(catalog.unknown("task", task, sorted(known)))
    trials = [t for t in trials if task in (None, t["task"]) and (model or "") in t["model"]["name"]]
    rows: list[dict[str, Any]] = [
        {
            "file": str(record.path(root, trial)),
            **{key: trial[key] for key in ("metrics", "marks", "nonstandard", "finished")},
        }
        for trial in trials
    ]
    if json:
        print(jsonlib.dumps(rows, indent=1))
        return
    for row in rows:
        metrics = "  ".join(f"{name} {value:.2f}" for name, value in row["metrics"].items())
        put(f"{row['file']}  {metrics}  {' '.join(row['marks'] + row['nonstandard'])}".rstrip())
    print(f"{len(rows)} of the records in {root}", file=sys.stderr)


@app.command()
def show(
    file: Annotated[Path, typer.Argument(help="A record's file, as `bench results ls` prints it.")],
) -> None:
    """Print a record whole, as JSON.

    Example: bench results show runs/transfer/voc_c4/2f83ed2e263a-3a19d5a1/random-resnet18/0.json
    """
    from results import record

    if not file.is_file():
        raise FileNotFoundError(f"expected a record's file, found none at {file}: bench results ls lists them")
    # four folders above it tell its place, which .. among them would not
    file = file.resolve() if ".." in file.parts else file.absolute()
    print(jsonlib.dumps(record.read(file, file.parents[3] if len(file.parents) > 3 else Path()), indent=1))


@app.command()
def validate(results: Results = RUNS) -> None:
    """Check every record against the schema, the place where it stands and its protocol's hash. Exit code 1 if one fails.

    Example: bench results validate --results runs/transfer
    """
    from results import record

    root = folder(results)
    files, failures = record.files(root), 0
    for file in files:
        try:
            record.verified(file, root)
        except (ValueError, OSError) as error:
            failures += 1
            print(error)
    print(f"{len(files) - failures} records are as they should be, {failures} are not, in {root}", file=sys.stderr)
    if failures:
        raise typer.Exit(1)


@app.command()
def export(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A file named .csv, .json or .parquet.")],
    results: Results = RUNS,
) -> None:
    """Write all records into one table: a row a trial, a column for every field, such as metrics.AP and model.name.

    Example: bench results export trials.parquet
    """
    from results import export as exporting
    from results import record

    rows = exporting.write(record.load(folder(results)), out)
    print(f"{out}: {rows} trials", file=sys.stderr)
