"""A checkpoint by its address: fetched once into a cache, whole or not at all, its hash checked where one is known.

The cache is $XDG_CACHE_HOME/bench, else ~/.cache/bench; a file's folder in it follows from the address, so that a machine
without a network is served by putting the file there. Beside a file stands a hidden note: address, URL, sha256, size.

Neither torch.hub nor pooch is asked to download: both start a broken transfer again from nothing, and neither gives up on a
server that never ends. Here a transfer goes on where it broke, over a connection that may break any number of times as long
as it gets on, and ends at the size that was declared.
"""

import contextlib
import email.message
import fcntl
import http.client
import json
import os
import re
import shutil
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from bench import __version__, addresses
from bench.content import sha256
from results.record import replaced, user_cache

LIMIT = 16 << 30  # bytes; the largest published ResNet with its optimizer has 4 GB
ATTEMPTS = 5  # without getting on
PAUSE = 2.0  # seconds before the second attempt; doubles
TIMEOUT = addresses.TIMEOUT  # seconds without a byte
WINDOW, SLOWEST = 60, 60_000  # a transfer of fewer bytes than this in so many seconds is taken for dead
TELL = 5  # seconds between two lines of progress
# in an address: by which right one asks (of those that S3, Azure and others sign)
SECRET = re.compile(r"(?i)([?&][^=&#]*(?:token|sig|key|credential|secret|password)[^=&#]*=)[^&#]*")


@dataclass(frozen=True)
class Fetched:
    """A file in the cache and where it came from."""

    path: Path
    address: str
    url: str | None  # None: put there by hand
    sha256: str
    size: int
    checked: str  # who published the hash it was compared with; "" if nobody did
    licence: str | None

    @property
    def name(self) -> str:
        """What the weights are called: the address's last part without a file's ending."""
        last = self.address.partition("?")[0].rpartition("/")[2]
        return re.sub(rf"({'|'.join(map(re.escape, addresses.WEIGHTS))})+$", "", last) or last

    def provenance(self) -> dict[str, Any]:
        """What a record says about it: address, url, checked, licence where there are any. Records are shown: no keys in them."""
        found = {"address": self.address, "url": self.url, "checked": self.checked, "licence": self.licence}
        return {key: SECRET.sub(r"\1...", value) for key, value in found.items() if value}


class _Final(Exception):
    """An answer that another attempt would not change."""


def is_address(text: str) -> bool:
    """Whether this is an address and not a file that exists."""
    return (text.startswith(addresses.SCHEMES) or "://" in text) and not Path(text).exists()


def tell(line: str) -> None:
    """Progress, for a person, from one of torchrun's processes."""
    if int(os.environ.get("RANK", "0")) == 0:
        print(line, file=sys.stderr, flush=True)


def located(file: str) -> Path:
    """The path of a file that is named by its path, by its address or as a run of `bench pretrain`: its folder, or its name in ./runs."""
    if is_address(file):
        return fetch(file).path
    path = Path(file)
    runs = [run / "backbone.pth" for run in (path, Path("runs") / path)]
    return next((weights for weights in runs if weights.is_file() and not path.is_file()), path)


def fetch(address: str) -> Fetched:
    """The file of an address, from the cache if it is there.

    Raises ValueError for an address that cannot be right, a wrong hash, and for what is no file of weights;
    FileNotFoundError if the other side has no such file; ConnectionError or TimeoutError, saying where to put the file
    by hand, if it cannot be reached. Any number of processes may fetch the same file: one does, the others wait;
    on a file system without locks each fetches its own, and the last one stays.
    """
    where = addresses.parsed(address)
    folder = user_cache().joinpath(*where.folder)
    if path := _cached(folder, where):
        return _known(path, where)
    by_hand = folder / (where.file or "")
    try:
        remote = addresses.remote(where)
    except ConnectionError as error:
        raise ConnectionError(f"{error}. Without a network, put the file into {by_hand}") from error
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / remote.file
    with _locked(path) as part:
        if part is not None:
            _configurations(remote, folder, Path(part.name))
            _transfer(remote, path, part)
            _accept(where, remote, path, Path(part.name))
    return _known(path, where)


def _cached(folder: Path, where: addresses.Address) -> Path | None:
    """The file of an address that is in the cache already."""
    if where.file:
        return folder / where.file if (folder / where.file).is_file() else None
    said = addresses.CONFIGURATIONS
    files = [path for path in folder.glob("[!.]*") if path.is_file() and path.name not in said]
    # else by its own name in the repository
    files = [path for path in files if _fetched_as(path) in (None, where.text)]
    if len(files) > 1:
        raise ValueError(f"expected one file in {folder}, found {len(files)}: remove the others")
    return files[0] if files else None


def _note(path: Path) -> Path:
    return path.with_name(f".{path.name}.json")


def _fetched_as(path: Path) -> str | None:
    """The address by which a file came into the cache; None if somebody put it there."""
    try:
        said = json.loads(_note(path).read_text())
        return said["address"] if said["url"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _known(path: Path, where: addresses.Address) -> Fetched:
    """A file of the cache with its note, which is written now if somebody put the file there."""
    note, stat = _note(path), path.stat()
    if where.folder[0] in ("http", "https") and (other := _fetched_as(path)) not in (None, where.text):
        raise ValueError(
            f"expected the file of {where.text} at {path}, found the one of {other}, whose name is the same there: remove it to"
            " fetch this one"
        )
    try:
        said = json.loads(note.read_text())
        found = Fetched(path, **{key: said[key] for key in ("address", "url", "sha256", "size", "checked", "licence")})
        fresh = said["modified"] == stat.st_mtime_ns and found.size == stat.st_size
    except (OSError, ValueError, KeyError, TypeError):
        digest, authority = sha256(path), addresses.published(where, path.name)
        _compare(digest, *authority, path)
        found, fresh = Fetched(path, where.text, None, digest, stat.st_size, authority[1], None), True
        with contextlib.suppress(OSError):  # in a cache that is read alone: without it the file is hashed every time
            _write_note(found, stat.st_mtime_ns)
    if not fresh and sha256(path) != found.sha256:
        raise ValueError(f"expected {path} as it was fetched, found it changed: remove it to fetch it again")
    _compare(found.sha256, where.sha256, "the address", path)
    return found


def _compare(digest: str, expected: str, authority: str, path: Path) -> None:
    if not digest.startswith(expected):
        raise ValueError(
            f"expected sha256 {expected[:12]}... as {authority} says, found {digest[:12]}... in {path}: remove it to fetch"
            " it again"
        )


def _write_note(found: Fetched, modified: int) -> None:
    content = {key: value for key, value in asdict(found).items() if key != "path"} | {"modified": modified}
    replaced(_note(found.path), json.dumps(content, indent=1) + "\n")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[BinaryIO | None]:
    """The unfinished file, opened by this process alone; None if another process has finished it meanwhile."""
    part = path.with_name(f".{path.name}.part")
    while not path.exists():
        with part.open("a+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                tell(f"another process is fetching {path.name}: waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError:  # a file system without locks
                with _own(part) as own:
                    yield own
                return
            try:
                ours = os.path.samestat(os.fstat(file.fileno()), part.stat())
            except FileNotFoundError:
                ours = False
            if ours:  # else it was renamed or removed by the one that had it
                yield file
                return
    yield None


@contextlib.contextmanager
def _own(part: Path) -> Iterator[BinaryIO]:
    """The unfinished file under a name that no other process has; what is left of it has its old name in the end."""
    own = part.with_name(f"{part.name}.{uuid.uuid4().hex}")

    def moved(old: Path, new: Path) -> None:
        for end in ("", ".json"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{old}{end}").replace(f"{new}{end}")

    moved(part, own)
    try:
        with own.open("a+b") as file:
            yield file
    finally:
        moved(own, part)


def _accept(where: addresses.Address, remote: addresses.Remote, path: Path, part: Path) -> None:
    """Gives a finished file its name. Raises ValueError, and removes it, if it is not the one that was published."""
    digest = sha256(part)
    if not digest.startswith(remote.sha256):
        part.unlink()
        raise ValueError(
            f"expected sha256 {remote.sha256[:12]}... as {remote.authority} says, found {digest[:12]}... at {remote.url}:"
            " nothing was kept"
        )
    stat = part.stat()
    checked = remote.authority if remote.sha256 else ""
    part.replace(path)
    _write_note(Fetched(path, where.text, remote.url, digest, stat.st_size, checked, remote.licence), stat.st_mtime_ns)


def _configurations(remote: addresses.Remote, folder: Path, beside: Path) -> None:
    """Fetches what the publisher has beside the weights, to the same folder; by the one process that fetches the weights."""
    for other in remote.beside:
        path = folder / other.file
        if not path.exists():
            with Path(f"{beside}.{other.file}").open("a+b") as part:  # which is this process's own too
                _transfer(other, path, part)
            Path(part.name).replace(path)


def _transfer(remote: addresses.Remote, path: Path, part: BinaryIO) -> None:
    """Fills `part`, attempt after attempt, each going on where the last one broke."""
    tell(f"fetching {remote.url}")
    attempt, begun = 0, part.seek(0, os.SEEK_END)
    furthest = begun
    while True:
        try:
            _attempt(remote, part)
            return
        except (_Final, urllib.error.URLError, http.client.HTTPException, OSError) as error:
            reason, failure = _reason(error, remote.url)
            if failure is ConnectionError and furthest > begun:  # which was reached before
                reason, failure = "no network or no answer any more", None
            if failure is not None:
                if failure is ValueError or not part.seek(0, os.SEEK_END):
                    Path(part.name).unlink(missing_ok=True)
                    _tags(part).unlink(missing_ok=True)
                raise failure(f"{reason}. Or put the file at {path} by hand") from error
        reached = part.seek(0, os.SEEK_END)
        attempt = 0 if reached >= furthest + (1 << 20) else attempt + 1
        furthest = max(furthest, reached)
        if attempt >= ATTEMPTS:
            kept = f"the first {reached:,} bytes are kept: call again to go on" if reached else "call again later"
            raise ConnectionError(
                f"expected the whole of {remote.url}, found {reason}; {kept}, or put it at {path} by hand"
            )
        tell(f"  {reason}; trying again")
        time.sleep(PAUSE * 2 ** (attempt - 1))


def _reason(error: Exception, url: str) -> tuple[str, type[Exception] | None]:
    """What went wrong, and the exception to raise if it would go wrong again."""
    if isinstance(error, _Final):
        return str(error), ValueError
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        if error.code in (404, 410):
            return f"expected a file at {url}, found none (status {error.code}): correct the address", FileNotFoundError
        if error.code < 500 and error.code not in (408, 416, 429):
            said = " ".join(str(error.reason).split())[:120]
            return f"expected a public file at {url}, found status {error.code} ({said})", ValueError
        return f"status {error.code} ({error.reason})", None
    if isinstance(error, urllib.error.URLError) and not isinstance(error.reason, TimeoutError | ConnectionResetError):
        return (
            f"expected to reach {urlsplit(url).hostname}, found no network or no answer ({error.reason})",
            ConnectionError,
        )
    if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError | urllib.error.URLError):
        return f"expected room and rights for the file, found {error.strerror or error}", OSError
    return f"the connection broke ({getattr(error, 'reason', None) or error or type(error).__name__})", None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections, as urllib does within the web, but never from an encrypted connection to an open one."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise _Final(f"expected a redirection to an encrypted address, found one to {newurl[:120]!r}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _attempt(remote: addresses.Remote, part: BinaryIO) -> None:
    """One connection: goes on behind what `part` has, if the server still has the same file, else starts again."""
    note = _tags(part)
    offset, tag = part.seek(0, os.SEEK_END), None
    if offset:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            tag = json.loads(note.read_text())[remote.url]
        if tag is None or not (tag or remote.sha256):
            part.truncate(offset := 0)  # of another URL, or nothing tells whether it is still the same file
    headers = {"User-Agent": f"transfer-bench/{__version__}", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if tag:
            headers["If-Range"] = tag
    opener = urllib.request.build_opener(_Redirects)
    try:
        with opener.open(urllib.request.Request(remote.url, headers=headers), timeout=TIMEOUT) as response:
            start, total = _declared(response.status, response.headers, offset, remote)
            part.truncate(start)
            note.write_text(json.dumps({remote.url: _tag(response.headers)}))
            _receive(response, part, start, total)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # more than the file has: from another version of it
            part.truncate(0)
        raise
    note.unlink()


def _tags(part: BinaryIO) -> Path:
    """The note beside an unfinished file: {url: what tells its version}."""
    return Path(f"{part.name}.json")


def _tag(headers: email.message.Message) -> str:
    """What tells this version of the file from any other; weak tags do not."""
    tag = headers.get("ETag", "")
    return headers.get("Last-Modified", "") if tag.startswith("W/") or not tag else tag


def _declared(
    status: int, headers: email.message.Message, offset: int, remote: addresses.Remote
) -> tuple[int, int | None]:
    """From where to where the answer goes, as far as the server says. Raises _Final for an answer that is no such file."""
    length = headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() else None
    start = 0
    if status == 206:
        unit, _, whole = headers.get("Content-Range", "").partition("/")
        if unit.partition("-")[0] != f"bytes {offset}":
            raise _Final(f"expected the file from byte {offset:,} on, found {unit[:40]!r}")
        start, total = offset, int(whole) if whole.isdecimal() else None
    if headers.get_content_type() == "text/html":
        raise _Final(f"expected a file of weights at {remote.url}, found an HTML page: open it in a browser")
    if headers.get("Content-Encoding", "identity") != "identity":
        raise _Final(
            f"expected a file of weights at {remote.url}, found it packed with {headers['Content-Encoding'][:20]}"
        )
    if total is not None and remote.size not in (None, total):
        raise _Final(f"expected {remote.size:,} bytes as {remote.authority} says, found {total:,} at {remote.url}")
    if total is not None and total > LIMIT:
        raise _Final(f"expected a checkpoint of at most {LIMIT:,} bytes, found {total:,} at {remote.url}")
    return start, total


def _receive(response: Any, part: BinaryIO, done: int, total: int | None) -> None:
    """Writes what arrives, up to the declared size. Raises TimeoutError or ConnectionError for what can be tried again."""
    if total and total - done > shutil.disk_usage(Path(part.name).parent).free:
        raise OSError(f"{total - done:,} bytes more than the disk of the cache has left")
    most = min(total or LIMIT, LIMIT)
    alive = told = (time.monotonic(), done)
    while total is None or done < total:
        try:
            chunk = response.read1(1 << 18)
        except OSError as error:  # of the network: no route any more, a record that TLS cannot read
            raise ConnectionError(str(error)) from error
        if not chunk:
            break
        if done == 0 and chunk.lstrip()[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
            raise _Final("expected a file of weights, found an HTML page: open the address in a browser")
        done += len(chunk)
        if done > most:
            raise _Final(f"expected {most:,} bytes at most, found that the server goes on sending")
        part.write(chunk)
        now = time.monotonic()
        if now - alive[0] > WINDOW:
            if done - alive[1] < SLOWEST:
                raise TimeoutError(f"{done - alive[1]:,} bytes in {WINDOW} seconds")
            alive = (now, done)
        if now - told[0] > TELL:
            tell(f"  {_progress(done, total, (done - told[1]) / (now - told[0]))}")
            told = (now, done)
    part.flush()
    if total is not None and done < total:
        raise ConnectionError(f"it ended at byte {done:,} of {total:,}")
    if not done:
        raise _Final("expected a file of weights, found nothing in it")


def _progress(done: int, total: int | None, rate: float) -> str:
    """'31 of 98 MB (32 %), 3.1 MB/s, 22 s left', as far as the size is known; rate in bytes per second, positive."""
    speed = f"{rate / 1e6:.1f} MB/s"
    if total is None:
        return f"{done / 1e6:.0f} MB, {speed}"
    return f"{done / 1e6:.0f} of {total / 1e6:.0f} MB ({100 * done // total} %), {speed}, {(total - done) / rate:.0f} s left"
